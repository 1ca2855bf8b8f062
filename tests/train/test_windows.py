"""Claims about memory that runs out while cases are scored; under a real limit: `test_survive`."""

import os
import signal

import numpy as np
import pytest

from bedside.core.config import load
from bedside.core.errors import Interrupted, ResourceError
from bedside.train import sitting
from bedside.train.checkpoint import load_checkpoint
from bedside.train.pipeline import train

from .conftest import write_study
from .test_survive import at_step, folder_of, weights


def crowd(monkeypatch, voxels: int) -> list[tuple[int, int, int]]:
    """Let scoring need more memory than there is in windows of more voxels; return the windows that were tried."""
    plain, tried = sitting.score, []

    def score(net, example, task, lesson, patch):
        tried.append(patch)
        if np.prod(patch) > voxels:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return plain(net, example, task, lesson, patch)

    monkeypatch.setattr(sitting, "score", score)
    return tried


def test_without_memory_cases_are_scored_in_smaller_windows_also_after_a_kill_and_training_goes_on(config, dataset, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.fold=0", "train.validations=2"])
    with monkeypatch.context() as patch:
        tried = crowd(patch, 12**3)
        at_step(patch, 20, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset)
    assert tried == [(16, 16, 16), (12, 12, 12), *[(12, 12, 12)] * (len(tried) - 2)]
    tried = crowd(monkeypatch, 16**3)
    run = train(config, dataset)
    assert set(tried) == {(12, 12, 12)}
    (incident,) = run.record.incidents
    assert (incident.step, incident.code, len(incident.cases)) == (16, "SMALLER", 1)
    assert "windows of 16 x 16 x 16 voxels; they have 12 x 12 x 12" in incident.said
    assert (run.record.plan.patch, run.record.steps) == ((16, 16, 16), 24)


def test_with_no_smaller_window_left_it_ends_with_exit_6_and_goes_on_when_there_is_memory(config, dataset, monkeypatch, tmp_path):
    overrides = ["train.fold=0", "train.validations=1", "train.checkpoint_minutes=1e-6"]
    config = load(config.workspace.folder, overrides=overrides)
    calm = load(write_study(tmp_path / "calm"), overrides=overrides)
    (calm.workspace.folder / "store").symlink_to(config.workspace.store)
    with monkeypatch.context() as patch:
        tried = crowd(patch, 0)
        with pytest.raises(ResourceError, match="nothing is left to make smaller") as caught:
            train(config, dataset)
    assert (caught.value.code, caught.value.exit_code) == ("OUT_OF_MEMORY", 6)
    assert tried[-1] == (4, 4, 4)
    assert load_checkpoint(folder_of(config, dataset)).position.step == 24
    assert weights(train(config, dataset, resume=True)) == weights(train(calm, dataset))


def test_an_error_of_scoring_that_is_not_about_memory_is_not_hidden(config, dataset, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.fold=0"])

    def score(*given):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(sitting, "score", score)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(config, dataset)
