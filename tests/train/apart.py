"""Trainings in processes of their own, forked from one that has imported what they need; prints one JSON line for each.

Takes a dataset's digest and pairs of a study folder and a limit: the method of `Sitting` while which its training may map no
more than so many MB of address space beyond what it has when it begins, as "_work:90", or "free".
"""

import json
import os
import resource
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_file
from bedside.core.errors import BedsideError
from bedside.train import pipeline
from bedside.train.pipeline import train
from bedside.train.sitting import Sitting


def limit(name: str, megabytes: int) -> None:
    """Let a method of a sitting run under a limit."""
    plain = getattr(Sitting, name)

    def limited(self, stop):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + megabytes * 1_000_000, resource.RLIM_INFINITY))
        try:
            return plain(self, stop)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    setattr(Sitting, name, limited)
    if name == "_score":  # else it would find all it needs in what the heap keeps of the steps, where no limit counts
        pipeline.kept_heap = nullcontext


def said(folder: str, dataset: str, wanted: str) -> dict[str, object]:
    config = load(folder)
    if wanted != "free":
        name, _, megabytes = wanted.partition(":")
        limit(name, int(megabytes))
    try:
        run = train(config, Dataset(dataset, config.workspace))
    except BedsideError as error:
        return {"exit": error.exit_code, "code": error.code, "sentence": error.sentence}
    return {
        "weights": digest_file(run.best().weights),
        "incidents": [[incident.step, incident.code, incident.said] for incident in run.record.incidents],
        "plan": [run.record.plan.batch, run.record.plan.micro_batch, run.record.plan.patch],
        "threads": run.record.threads,
        "scores": [point.score for point in run.record.curve if point.score is not None],
    }


def main(dataset: str, *pairs: str) -> None:
    torch.set_num_threads(1)
    load(pairs[0]).study.network.build(1, 2)  # what it imports is imported once
    for folder, wanted in zip(pairs[::2], pairs[1::2], strict=True):
        child = os.fork()
        if child == 0:
            print(json.dumps(said(folder, dataset, wanted)), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, folder


main(*sys.argv[1:])
