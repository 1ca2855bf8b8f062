"""Claims about what a training survives: signals, damage, a full disk, numbers that are not finite, memory that runs out."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.core.config import load
from bedside.core.digest import digest_file
from bedside.core.errors import ConfigError, Interrupted, ResourceError, UsageError
from bedside.core.plan import Plan
from bedside.data.loader import Loader, NoBatchError
from bedside.networks.unet import DynUNet, UNet
from bedside.train import checkpoint, sitting
from bedside.train.checkpoint import check_same, load_checkpoint, save_checkpoint, settings
from bedside.train.memory import is_out_of_memory, smaller
from bedside.train.pipeline import checkpoint_folder, train

from .conftest import write_study
from .test_checkpoint import checkpoint as made
from .test_loop import learner


def folder_of(config, dataset) -> Path:
    return checkpoint_folder(config.workspace, config.study, dataset)


def weights(run) -> str:
    return digest_file(run.best().weights)


@pytest.fixture
def whole(config, dataset, tmp_path) -> str:
    """Digest of the weights of a training that nothing disturbed."""
    calm = load(write_study(tmp_path / "calm"))
    (calm.workspace.folder / "store").symlink_to(config.workspace.store)
    return weights(train(calm, dataset))


def at_step(monkeypatch, step: int, do) -> None:
    """Do something once, before the arithmetic of a step; True from it stands for an error."""
    plain, done = sitting.Learner._gradients, []

    def gradients(self, *given):
        if getattr(self, "at", None) == step and not done:
            done.append(True)
            do(self)
        return plain(self, *given)

    plain_step = sitting.Learner.step

    def remembered(self, number, total, batch=None):
        self.at = number
        return plain_step(self, number, total, batch)

    monkeypatch.setattr(sitting.Learner, "step", remembered)
    monkeypatch.setattr(sitting.Learner, "_gradients", gradients)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_each_stopping_signal_saves_and_a_second_one_while_saving_breaks_nothing(config, dataset, whole, monkeypatch, number):
    plain = checkpoint.write_atomic

    def write(*given, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        plain(*given, **named)

    with monkeypatch.context() as patch:
        at_step(patch, 9, lambda _: os.kill(os.getpid(), number))
        patch.setattr(checkpoint, "write_atomic", write)
        with pytest.raises(Interrupted, match="step 10 of 24"):
            train(config, dataset)
    assert load_checkpoint(folder_of(config, dataset)).position.step == 10
    assert weights(train(config, dataset, resume=True)) == whole


def test_a_signal_while_cases_are_scored_is_obeyed_before_the_next_case(config, dataset, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.fold=0", "train.validations=2"])
    expected = train(config, dataset)
    plain, scored = sitting.Sitting._score_one, []

    def score(*given, **named):
        scored.append(True)
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(sitting.Sitting, "_score_one", score)
        with pytest.raises(Interrupted, match="step 16 of 24"):
            train(config, dataset, fresh=True)
    assert len(scored) == 1
    event = config.workspace.ledger.last("trained")
    (config.workspace.store / event.outputs["model"]).rename(config.workspace.folder / "aside")
    again = train(config, dataset, resume=True)
    assert weights(again) == digest_file(config.workspace.folder / "aside" / "weights.safetensors")
    assert [point.score for point in again.record.curve] == [point.score for point in expected.record.curve]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_the_record_says_so(config, dataset, whole, monkeypatch, caplog):
    config = load(config.workspace.folder, overrides=["train.checkpoint_minutes=1e-6"])
    with monkeypatch.context() as patch:
        at_step(patch, 9, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset)
    newest = sorted(folder_of(config, dataset).glob("checkpoint-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING, "bedside.train"):
        run = train(config, dataset, resume=True)
    assert "damaged" in caplog.text
    assert [(i.step, i.code) for i in run.record.incidents] == [(9, "CHECKPOINT_DAMAGED")]
    assert weights(run) == whole


def test_resume_without_a_checkpoint_is_refused_and_names_what_another_training_was_asked(config, dataset, monkeypatch):
    with pytest.raises(UsageError, match="--or-start") as caught:
        train(config, dataset, resume=True)
    assert (caught.value.code, caught.value.exit_code) == ("NO_CHECKPOINT", 2)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset)
    other = load(config.workspace.folder, overrides=["train.batch=4", "network.features=8"])
    named = r"network\.features \(asked 8, was 4\), study\.train\.batch \(asked 4, was 2\)"
    with pytest.raises(UsageError, match=named) as caught:
        train(other, dataset, resume=True)
    assert caught.value.code == "CHECKPOINT_CONFIG"
    sooner = load(config.workspace.folder, overrides=["train.checkpoint_minutes=7", "train.stall_seconds=9"])
    assert folder_of(sooner, dataset) == folder_of(config, dataset)


def test_a_checkpoint_that_another_plan_made_is_refused_with_the_difference(tmp_path):
    plan = learner().plan
    save_checkpoint(tmp_path, checkpoint.replace(made(3), plan=settings(plan.model_copy(update={"seed": 5}))))
    with pytest.raises(UsageError, match=r"seed \(asked 0, was 5\)") as caught:
        check_same(plan, load_checkpoint(tmp_path))
    assert caught.value.code == "CHECKPOINT_CONFIG"
    elsewhere = plan.model_copy(update={"machine": plan.machine.model_copy(update={"cores": 64}), "memory_mb": 1.0})
    save_checkpoint(tmp_path, checkpoint.replace(made(4), plan=settings(elsewhere)))
    check_same(plan, load_checkpoint(tmp_path))


def test_a_full_disk_ends_with_exit_6_and_the_training_goes_on_when_there_is_room(
    config, dataset, whole, monkeypatch, limited_file_size
):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset)
    greedy = load(config.workspace.folder, overrides=["train.checkpoint_minutes=1e-6"])
    with limited_file_size(5000), pytest.raises(ResourceError, match="disk is full") as caught:
        train(greedy, dataset)
    assert caught.value.exit_code == 6
    assert load_checkpoint(folder_of(config, dataset)).position.step == 4
    assert weights(train(greedy, dataset, resume=True)) == whole


def spoil(monkeypatch, steps) -> None:
    """Put a voxel that is not finite into the first patch of some steps, as if its case had one."""
    plain = Loader.take

    def take(self, step):
        batch = plain(self, step)
        if step in steps:
            batch.images[0, 0, 0, 0, 0] = np.nan
        return batch

    monkeypatch.setattr(Loader, "take", take)


def test_a_case_with_a_voxel_that_is_not_finite_is_named_and_its_steps_skipped(config, dataset, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        spoil(patch, {5, 11})
        run = train(config, dataset)
    codes = [(incident.step, incident.code, len(incident.cases)) for incident in run.record.incidents]
    assert codes == [(5, "NOT_FINITE", 1), (11, "NOT_FINITE", 1)]
    assert run.record.incidents[0].cases[0] in caplog.text
    assert run.record.steps == 24


def test_a_prepared_case_that_holds_one_is_found_in_every_step_it_is_drawn(config, dataset, monkeypatch):
    plain = sitting.Sitting._begin

    def begin(self):
        bad = next(example for example in self.examples if example.id == "p3")
        image = np.array(bad.image)
        image[:] = np.nan
        self.examples = [sitting.Example(image, e.label, e.foreground, e.id) if e is bad else e for e in self.examples]
        plain(self)

    monkeypatch.setattr(sitting.Sitting, "_begin", begin)
    run = train(config, dataset)
    assert {incident.cases for incident in run.record.incidents} == {("p3",)}
    assert len(run.record.incidents) == 24 * 2 // 6  # six cases, two a step


def test_three_bad_steps_in_a_row_return_to_the_last_good_state_and_go_on_behind_them(config, dataset, monkeypatch, tmp_path):
    config = load(config.workspace.folder, overrides=["train.steps=40"])
    monkeypatch.setattr(sitting, "GOOD_STEPS", 4)
    monkeypatch.setattr(sitting, "GOOD_STATES", 10)
    spoil(monkeypatch, {13, 14, 15})
    run = train(config, dataset)
    assert [(i.step, i.code) for i in run.record.incidents] == [
        (13, "NOT_FINITE"),
        (14, "NOT_FINITE"),
        (15, "NOT_FINITE"),
        (15, "RESTORED"),
    ]
    assert "step 12" in run.record.incidents[-1].said
    assert run.record.steps == 40
    with monkeypatch.context() as patch:  # killed and gone on behind it: the same weights
        again = load(write_study(tmp_path / "again", steps=40))
        (again.workspace.folder / "store").symlink_to(config.workspace.store)
        at_step(patch, 17, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(again, dataset)
    assert weights(train(again, dataset)) == weights(run)


def test_returning_twice_to_the_same_state_ends_with_the_cases_named(config, dataset, monkeypatch):
    spoil(monkeypatch, {5, 6, 7, 12, 13, 14})
    with pytest.raises(UsageError, match=r"step 14, with p\d.*returning to step 0") as caught:
        train(config, dataset)
    assert (caught.value.code, caught.value.exit_code) == ("DIVERGED", 2)


def test_a_stall_saves_first_and_is_resumable(config, dataset, whole, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.stall_seconds=30"])
    plain = Loader.take

    def take(self, step):
        if step == 7:
            raise NoBatchError("as if nothing came")
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "take", take)
        with pytest.raises(ResourceError, match="step 7 is saved") as caught:
            train(config, dataset)
    assert (caught.value.code, caught.value.exit_code) == ("STALLED", 6)
    assert (folder_of(config, dataset) / "stalled.txt").exists()
    assert weights(train(config, dataset, resume=True)) == whole


def starve(monkeypatch, voxels: int) -> list[tuple[int, int]]:
    """Let torch refuse to hold more voxels at once; return what was tried: (step, voxels)."""
    plain, tried = sitting.Learner._gradients, []

    def gradients(self, images, labels, *more):
        size = self.plan.micro_batch * labels[0].numel()
        tried.append((images.shape[0], size))
        if size > voxels:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return plain(self, images, labels, *more)

    monkeypatch.setattr(sitting.Learner, "_gradients", gradients)
    return tried


def test_without_memory_fewer_patches_pass_at_once_and_the_batch_stays(config, dataset, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.batch=6"])
    tried = starve(monkeypatch, 16**3)
    run = train(config, dataset)
    assert (run.record.plan.micro_batch, run.record.plan.batch) == (1, 6)
    assert {batch for batch, _ in tried} == {6}
    assert [incident.code for incident in run.record.incidents] == ["SMALLER", "SMALLER"]
    assert run.record.steps == 24


def test_then_the_patch_shrinks_and_the_model_is_of_the_smaller_one(config, dataset, monkeypatch):
    starve(monkeypatch, 12**3)
    run = train(config, dataset)
    assert run.record.plan.patch == (12, 12, 12)
    assert run.best().spec.patch == (12, 12, 12)
    assert "16 x 16 x 16" in run.record.incidents[-1].said


def test_what_was_made_smaller_stays_so_after_a_kill(config, dataset, monkeypatch):
    starve(monkeypatch, 16**3)
    with monkeypatch.context() as patch:
        at_step(patch, 9, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset)
    run = train(config, dataset)
    assert [(incident.step, incident.code) for incident in run.record.incidents] == [(0, "SMALLER")]


def test_with_nothing_left_to_make_smaller_it_ends_with_exit_6(config, dataset, monkeypatch):
    starve(monkeypatch, 0)
    with pytest.raises(ResourceError, match="nothing is left to make smaller") as caught:
        train(config, dataset)
    assert (caught.value.code, caught.value.exit_code) == ("OUT_OF_MEMORY", 6)


def test_the_longest_axes_shrink_first_and_divisors_are_respected():
    plan: Plan = learner().plan.model_copy(update={"patch": (64, 64, 16), "micro_batch": 1})
    sides = []
    while len(sides) < 40:
        try:
            plan, _ = smaller(plan, 0)
        except ResourceError:
            break
        sides.append(plan.patch)
    assert sides[0] == (48, 48, 16)
    assert sides[-1] == (4, 4, 4)
    assert all(side % 2 == 0 for patch in sides for side in patch)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("can't start new thread"))


def test_a_batch_norm_keeps_two_patches_and_the_patch_shrinks():
    network = UNet(features=4, levels=2, residual_units=0)
    plan = learner().plan.model_copy(update={"patch": (64, 64, 16), "batch": 4, "micro_batch": 4})
    normed = plan.model_copy(update={"network": DynUNet(features=4, levels=3, norm="batch")})
    assert [smaller(each, 0)[0].micro_batch for each in (plan, normed)] == [2, 2]
    plan, normed = (smaller(smaller(each, 0)[0], 0)[0] for each in (plan.model_copy(update={"network": network}), normed))
    assert (plan.micro_batch, plan.patch) == (1, (64, 64, 16))
    assert (normed.micro_batch, normed.patch) == (2, (48, 48, 16))


def test_minutes_never_repeat_so_deterministic_refuses_them(tmp_path):
    folder = write_study(tmp_path / "study")
    with pytest.raises(ConfigError, match=r"train\.steps or train\.epochs"):
        load(folder, overrides=["train.deterministic=true", "train.steps=null", "train.minutes=1"])


@pytest.mark.slow
def test_apart_a_deterministic_training_repeats_to_the_bit_and_one_without_memory_shrinks(tmp_path, config, dataset):
    fixed = load(config.workspace.folder, overrides=["train.deterministic=true", "train.fold=0"])
    expected = train(fixed, dataset)
    pairs = []
    scored = {"steps": 2, "batch": 1, "patch": [64, 64, 64], "fold": 0, "validations": 1, "memory_gb": 8.0}
    for name, limit, settings_ in (
        ("fixed", "free", {"deterministic": True, "fold": 0}),
        ("starved", "_work:90", {"steps": 2, "batch": 24, "patch": [64, 32, 32], "memory_gb": 8.0}),
        ("crowded", "_score:8", scored),
    ):
        folder = write_study(tmp_path / name, **settings_)
        (folder / "store").symlink_to(config.workspace.store)
        pairs += [str(folder), limit]
    command = [sys.executable, str(Path(__file__).with_name("apart.py")), dataset.digest, *pairs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    same, starved, crowded = map(json.loads, done.stdout.splitlines())
    assert same["weights"] == weights(expected)
    assert same["threads"] == expected.record.threads == expected.record.plan.machine.cores
    assert {code for _, code, _ in starved["incidents"]} == {"SMALLER"}
    assert starved["plan"][0] == 24
    assert starved["plan"][1] < 24
    assert [(step, code) for step, code, _ in crowded["incidents"]] == [(2, "SMALLER")]
    assert "windows of 64 x 64 x 64" in crowded["incidents"][0][2]
    assert crowded["plan"] == [1, 1, [64, 64, 64]]
    assert len(crowded["scores"]) == 1


def test_a_training_with_workers_gives_the_weights_of_one_without(tmp_path, config, dataset, whole):
    (config.workspace.folder / "site.yaml").write_text("versioning: off\ntracking: off\nthreads: 1\nloader_workers: 2\n")
    run = train(load(config.workspace.folder), dataset)
    assert weights(run) == whole
    assert run.record.cost.wall_seconds > run.record.cost.step_seconds > 0
    assert run.record.cost.joules > 0
