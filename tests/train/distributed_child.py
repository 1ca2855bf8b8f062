"""Trainings by several processes, one after the other; prints one JSON line for each.

Takes a dataset's digest and triples of a study folder, a number of processes and what happens at step 5: "plain" nothing, "kill"
the second process is killed, "stop" it is suspended, "signal" this process gets SIGTERM, "tamper" a weight of this process
changes alone. STRATEGY of the environment is `site.strategy`. With "gradient" there is no training: gradients of whole
batches are compared with those of one process.
"""

import json
import os
import signal
import sys
import time

import torch

from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_file
from bedside.core.errors import BedsideError
from bedside.core.progress import SILENT
from bedside.train import company as together
from bedside.train import distributed, pipeline
from bedside.train.company import company
from bedside.train.distributed import ALONE
from bedside.train.loop import Learner
from bedside.train.planned import fresh_plan
from bedside.train.sharding import local_shard
from bedside.train.sitting import Sitting

AT = 5


plain_start, plain_advance = together._Follower.start, Sitting._advance


def arm(what: str) -> None:
    crew = []

    def start(*given, **named):
        crew.append(plain_start(*given, **named))
        return crew[-1]

    def advance(self, seconds, loss):
        plain_advance(self, seconds, loss)
        if self.position.step == AT and what in {"kill", "stop"}:
            os.kill(crew[0].process.pid, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
        if self.position.step == AT and what == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.position.step == AT and what == "tamper":
            with torch.no_grad():
                next(self.learner.net.parameters()).flatten()[0] += 1e-3

    together._Follower.start, Sitting._advance = start, advance
    distributed.CHECKED_EVERY = 2  # of this process only; the followers answer when they are asked


def said(config, dataset: Dataset, what: str) -> dict[str, object]:
    arm(what)
    began = time.monotonic()
    try:
        run = pipeline.train(config, dataset)
    except BedsideError as error:
        took = time.monotonic() - began
        return {"exit": error.exit_code, "code": error.code, "sentence": error.sentence, "seconds": took}
    record = run.record
    losses = [point.loss for point in record.curve]
    weights = digest_file(run.best().weights)
    counted = {"resumed": record.resumed, "processes": record.processes, "threads": record.threads}
    return {"weights": weights, "losses": losses, **counted}


def gradients(config, dataset: Dataset) -> dict[str, float]:
    """Largest difference of any gradient from that of one process, by batch and micro-batch; with it the largest gradient."""
    study, planned = config.study, fresh_plan(config, dataset)
    examples, *_ = pipeline._examples(config, dataset, planned, SILENT)
    found: dict[str, float] = {}
    with company(study, config.site, examples) as ranks:
        for batch, micro in ((5, 5), (3, 1), (6, 3)):
            plan = planned.model_copy(update={"batch": batch, "micro_batch": micro})
            sitting = Sitting(study, plan, config.workspace.scratch, SILENT, examples, [], config.site)
            sitting.plan = plan
            grads, losses = [], []
            for sitting.ranks in (ALONE, ranks):
                learner: Learner = sitting._make_learner("fp32")
                losses.append(learner.step(0, 10))
                held = sum(local_shard(parameter.grad).numel() for parameter in learner.net.parameters())
                moments = {name: value / 0.1 for name, value in learner.tensors().items() if name.endswith(".exp_avg")}
                grads.append([value for _, value in sorted(moments.items())])  # the first moment is a tenth of the gradient
            found[f"{batch}/{micro}"] = max(float((alone - both).abs().max()) for alone, both in zip(*grads, strict=True))
            found[f"{batch}/{micro} loss"] = abs(losses[0] - losses[1])
            found[f"{batch}/{micro} held"] = held / sum(grad.numel() for grad in grads[0])
            found[f"{batch}/{micro} largest"] = max(float(grad.abs().max()) for grad in grads[0])
    return found


def main(digest: str, *words: str) -> None:
    torch.set_num_threads(1)
    for folder, processes, what in zip(words[::3], words[1::3], words[2::3], strict=True):
        config = load(folder, overrides=[f"site.training_processes={processes}", f"site.strategy={os.environ['STRATEGY']}"])
        dataset = Dataset(digest, config.workspace)
        found = gradients(config, dataset) if what == "gradient" else said(config, dataset, what)
        print(json.dumps(found), flush=True)


main(*sys.argv[1:])
