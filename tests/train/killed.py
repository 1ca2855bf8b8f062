"""Train one study again and again, each time killed (kill -9) at other points one after the other, then once to the end.

Takes a study folder with its dataset in the store, the dataset's digest, a folder for copies and a list of lists of points as
JSON; prints one JSON line per list. A point is [where, number]: the number-th "step" (between its forward and its backward pass),
"case" (while it is scored), "half" (a checkpoint half written), "call" (to the file system, below the study's folder). The loss
draws from every generator there is, so weights come out the same only if their states are kept. Everything runs in children
forked from one process that has imported what they need.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bedside.core import files
from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_file
from bedside.core.run import Run
from bedside.tasks.segmentation import Segmentation
from bedside.train import checkpoint, sitting
from bedside.train.pipeline import checkpoint_folder, train

CALLS = {"open", "os.rename", "os.mkdir", "os.remove"}


class Killer:
    """Counts what passes and kills this process at its point."""

    def __init__(self, where: str, number: int) -> None:
        self.where, self.left = where, number

    def passes(self, where: str) -> bool:
        """Whether this is the moment."""
        self.left -= where == self.where
        return where == self.where and self.left == 0

    def at(self, where: str) -> None:
        if self.passes(where):
            os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """Writes down how far a training is, without a buffer that a kill would lose."""

    def __init__(self, path: Path) -> None:
        self.out = os.open(path, os.O_WRONLY | os.O_CREAT)

    def start(self, what, total) -> None: ...

    def advance(self, done, note="") -> None: ...

    def stepped(self, done: int) -> None:
        os.pwrite(self.out, b"%8d" % done, 0)


def arm(killer: Killer, steps: Steps, folder: Path) -> None:
    """Put the killer into this child."""
    plain_loss, plain_score, plain_write = Segmentation.loss, sitting.Sitting._score_one, files.write_atomic
    plain_advance = sitting.Sitting._advance

    def loss(self, output, target):
        killer.at("step")
        chance = torch.rand(()) + random.random() + np.random.random()  # noqa: NPY002 - this is about its state
        return plain_loss(self, output, target) * (0.5 + 0.3 * chance)

    def score(*given, **named):
        killer.at("case")
        return plain_score(*given, **named)

    def write(path, data, **named):
        if killer.passes("half"):
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as stream:
                stream.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        plain_write(path, data, **named)

    def advance(self, seconds, value):
        plain_advance(self, seconds, value)
        steps.stepped(self.position.step)

    Segmentation.loss, sitting.Sitting._score_one, checkpoint.write_atomic = loss, score, write
    sitting.Sitting._advance = advance

    def count(event: str, given: tuple[object, ...]) -> None:
        if event in CALLS and str(folder) in str(given[0]):
            killer.at("call")

    sys.addaudithook(count)


def sat(folder: Path, dataset: str, killer: Killer) -> int:
    """Train in a child, armed; return its wait status."""
    child = os.fork()
    if child == 0:
        config = load(folder)
        arm(killer, Steps(folder / "steps"), folder)
        train(config, Dataset(dataset, config.workspace), progress=Steps(folder / "other"))
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main(study: str, dataset: str, copies: str, lists: str) -> None:
    torch.set_num_threads(1)
    load(study).study.network.build(1, 2)  # what it imports is imported once
    for number, points in enumerate(json.loads(lists)):
        folder = Path(copies) / str(number)
        shutil.copytree(study, folder, symlinks=True)
        config = load(folder)
        place = checkpoint_folder(config.workspace, config.study, Dataset(dataset, config.workspace))
        struck, lost = [], []
        for where, count in points:
            struck.append(os.WIFSIGNALED(sat(folder, dataset, Killer(where, count))))
            done = int((folder / "steps").read_text() or 0)
            found = checkpoint.load_checkpoint(place)
            lost.append(done - (found.position.step if found else 0))
        assert sat(folder, dataset, Killer("never", 0)) == 0
        event = config.workspace.ledger.last("trained")
        run = Run(event.outputs["run"], event.outputs["model"], config.workspace)
        report = {
            "points": points,
            "struck": struck,
            "lost": lost,
            "weights": digest_file(run.best().weights),
            "curve": [[point.step, point.loss, point.score] for point in run.record.curve],
            "left_over": [path.name for path in config.workspace.scratch.glob("train-*")],
        }
        print(json.dumps(report), flush=True)


main(*sys.argv[1:])
