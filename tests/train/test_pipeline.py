"""Claims about a whole training: it learns, it survives kills bit for bit, it keeps its budget, it says what it did."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bedside.core.config import load
from bedside.core.dataset import Splits
from bedside.core.digest import digest_file
from bedside.core.errors import Interrupted, ResourceError, UsageError
from bedside.core.run import PlannedSteps
from bedside.engines.predict import open_model
from bedside.metrics.overlap import dice
from bedside.train import sitting
from bedside.train.checkpoint import Position
from bedside.train.pipeline import checkpoint_folder, plan, train
from bedside.train.planned import fresh_plan
from bedside.train.replans import Replans

from .conftest import put_dataset, write_study

SCRIPT = """
import sys
from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.train.pipeline import train
from bedside.core.errors import BedsideError
config = load(sys.argv[1])
try:
    train(config, Dataset(sys.argv[2], config.workspace))
except BedsideError as error:
    sys.exit(error.exit_code)
"""


def test_it_learns_what_a_ball_is(config, dataset):
    config = load(config.workspace.folder, overrides=["train.steps=160"])
    run = train(config, dataset)
    predict = open_model(run.best())
    scores = [dice(predict(case).value == 1, case.volumes["label"].array[0] == 1) for case in dataset.cases("test")]
    assert min(scores) > 0.8
    assert run.record.steps == 160
    assert run.record.schedule == (PlannedSteps(at=0, total=160),)


def test_a_second_call_returns_the_finished_run_and_adds_no_event(config, dataset):
    first = train(config, dataset)
    events = len(list(config.workspace.ledger.events()))
    assert train(config, dataset) == first
    assert len(list(config.workspace.ledger.events())) == events


def test_the_same_study_and_seed_give_the_same_weights_and_another_seed_does_not(config, dataset):
    first = train(config, dataset)
    again = train(config, dataset, fresh=True)
    assert digest_file(first.best().weights) == digest_file(again.best().weights)
    other = load(config.workspace.folder, overrides=["train.seed=1"])
    assert digest_file(train(other, dataset).best().weights) != digest_file(first.best().weights)


def test_the_event_names_data_code_environment_and_rules(config, dataset):
    run = train(config, dataset)
    event = config.workspace.ledger.last("trained")
    assert event.inputs == {"dataset": dataset.digest, "study": config.study.digest()}
    assert event.outputs == {"model": run.model, "run": run.digest}
    assert event.facts["commit"] == run.record.commit != ""
    assert event.facts["environment"] == run.record.environment_digest
    assert event.facts["rules"] == config.promote.digest()


def test_the_best_weights_on_the_left_out_fold_are_kept(config, dataset):
    config = load(config.workspace.folder, overrides=["train.fold=0", "train.validations=3"])
    run = train(config, dataset)
    scores = [point.score for point in run.record.curve if point.score is not None]
    assert len(scores) == 3
    assert run.best().spec.run == run.digest


def stop_at(monkeypatch, step: int) -> None:
    """Deliver SIGTERM to this process while a step is done."""
    real = sitting.Learner.step

    def signalled(self, number, total, batch=None):
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, number, total, batch)

    monkeypatch.setattr(sitting.Learner, "step", signalled)


def test_a_signal_saves_and_the_same_command_ends_with_the_weights_of_an_unbroken_run(config, dataset, monkeypatch):
    straight = digest_file(train(config, dataset).best().weights)
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(Interrupted, match="step 10 of 24"):
            train(config, dataset, fresh=True)
    # "fresh" forgot the finished run only for that call: it must still be possible to go on from the checkpoint
    assert checkpoint_folder(config.workspace, config.study, dataset).exists()
    event = config.workspace.ledger.last("trained")
    (config.workspace.store / event.outputs["model"]).rename(config.workspace.folder / "aside")
    assert plan(config, dataset).resumes_at_step == 10
    resumed = train(config, dataset)
    assert digest_file(resumed.best().weights) == straight
    assert resumed.record.resumed == 1


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.4, 0.9, 1.7])
def test_kill_9_at_any_moment_loses_at_most_one_interval_and_no_bit(tmp_path, config, dataset, delay):
    straight = digest_file(train(load(config.workspace.folder, overrides=["train.steps=120"]), dataset).best().weights)
    folder = write_study(tmp_path / "killed", steps=120, checkpoint_minutes=0.0005)
    (folder / "store").symlink_to(config.workspace.store)
    command = [sys.executable, "-c", SCRIPT, str(folder), dataset.digest]
    kills = 0
    while kills < 3:
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not list((folder / "scratch").glob("train-*/checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    subprocess.run(command, check=True, timeout=120)
    done = load(folder)
    event = done.workspace.ledger.last("trained")
    weights = Path(folder / "store" / event.outputs["model"] / "weights.safetensors")
    assert digest_file(weights) == straight


def test_a_patch_that_does_not_divide_is_refused_with_the_number_that_would(config, dataset):
    with pytest.raises(UsageError, match="multiple of 2"):
        train(load(config.workspace.folder, overrides=["train.patch=[15, 16, 16]"]), dataset)


def test_memory_above_the_ceiling_ends_with_a_saved_checkpoint(config, dataset, monkeypatch):
    monkeypatch.setattr(importlib.import_module("bedside.train.sitting"), "peak_memory_mb", lambda: 9000.0)
    small = load(config.workspace.folder, overrides=["train.memory_gb=8", "train.checkpoint_minutes=0.0001"])
    with pytest.raises(ResourceError, match=r"train\.memory_gb allows"):
        train(small, dataset)
    assert list(checkpoint_folder(small.workspace, small.study, dataset).glob("checkpoint-*"))


def test_a_budget_of_minutes_becomes_steps_and_is_kept(config, dataset):
    config = load(config.workspace.folder, overrides=["train.steps=null", "train.minutes=0.05"])
    started = time.monotonic()
    run = train(config, dataset)
    assert run.record.steps == run.record.schedule[-1].total
    assert time.monotonic() - started < 30
    assert run.record.minutes < 0.1


def position(step: int, seconds: float, total: int) -> Position:
    return Position(
        step=step,
        total_steps=total,
        seconds=seconds,
        resumed=0,
        precision="fp32",
        seconds_per_step=0.1,
        best_score=None,
        schedule=(),
        curve=(),
    )


def test_a_machine_that_turns_out_slower_gets_fewer_steps_and_a_faster_one_more():
    assert Replans(position(0, 0.0, 600), 1.0).due(position(25, 5.0, 600)) == 25 + 275
    assert Replans(position(0, 0.0, 600), 1.0).due(position(100, 5.0, 600)) == 100 + 1100


def test_small_deviations_and_moments_in_between_change_nothing():
    assert Replans(position(0, 0.0, 600), 1.0).due(position(50, 5.0, 600)) is None
    assert Replans(position(0, 0.0, 600), 1.0).due(position(5, 2.0, 600)) is None
    assert Replans(position(0, 0.0, 600), None).due(position(5, 20.0, 600)) is None


def test_what_if_counts_and_writes_nothing(config, dataset):
    before = sorted(path for path in config.workspace.folder.rglob("*"))
    planned = plan(config, dataset)
    assert (planned.cases, planned.validation_cases, planned.budget) == (6, 0, "24 steps")
    assert planned.resumes_at_step is None
    assert sorted(path for path in config.workspace.folder.rglob("*")) == before


def test_a_fold_that_would_leave_nothing_to_learn_from_is_a_usage_error(tmp_path):
    folder = write_study(tmp_path / "study", fold=0)
    config = load(folder)
    dataset = put_dataset(config.workspace, config.study.contract, splits=Splits(test=("p0",), folds=(("p1", "p2"),)), cases=3)
    with pytest.raises(UsageError, match="1 folds when it was ingested, and has no case to learn from when fold 0") as caught:
        fresh_plan(config, dataset)
    assert caught.value.code == "NO_CASES"
