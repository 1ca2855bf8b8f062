"""Trainings in processes of their own, forked from one that has imported what they need; prints one JSON line for each.

Takes a dataset's digest and pairs of a study folder and a number of MB of address space that its training may map beyond what
it has when its steps begin, until they end (0: no limit).
"""

import json
import os
import resource
import sys
from pathlib import Path

import torch

from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_file
from bedside.core.errors import BedsideError
from bedside.train.pipeline import train
from bedside.train.sitting import Sitting


def limit(megabytes: int) -> None:
    """Let steps begin under a limit."""
    plain = Sitting._work

    def work(self, stop):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + megabytes * 1_000_000, resource.RLIM_INFINITY))
        plain(self, stop)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    Sitting._work = work


def said(folder: str, dataset: str, megabytes: int) -> dict[str, object]:
    config = load(folder)
    if megabytes:
        limit(megabytes)
    try:
        run = train(config, Dataset(dataset, config.workspace))
    except BedsideError as error:
        return {"exit": error.exit_code, "code": error.code, "sentence": error.sentence}
    return {
        "weights": digest_file(run.best().weights),
        "incidents": [[incident.step, incident.code, incident.said] for incident in run.record.incidents],
        "plan": [run.record.plan.batch, run.record.plan.micro_batch, run.record.plan.patch],
        "threads": run.record.threads,
    }


def main(dataset: str, *pairs: str) -> None:
    torch.set_num_threads(1)
    load(pairs[0]).study.network.build(1, 2)  # what it imports is imported once
    for folder, megabytes in zip(pairs[::2], pairs[1::2], strict=True):
        child = os.fork()
        if child == 0:
            print(json.dumps(said(folder, dataset, int(megabytes))), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, folder


main(*sys.argv[1:])
