"""Claims about trainings that several processes compute: real ones, that talk through gloo."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.config import Augmentation, load
from bedside.core.errors import UsageError
from bedside.core.site import Site
from bedside.data.loader import Recipe
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.train.company import threads_here
from bedside.train.distributed import shares

from .conftest import put_dataset, write_study

CHILD = Path(__file__).with_name("distributed_child.py")
NETWORK = {"name": "dynunet", "features": 4, "levels": 3, "deep_supervision": 1}


@given(pieces=st.integers(1, 6), micro=st.integers(1, 9), count=st.integers(1, 5))
def test_every_patch_is_computed_once_and_shares_differ_by_one_piece_at_most(pieces, micro, count):
    if micro < count and pieces < count:
        with pytest.raises(UsageError):
            shares(pieces * micro, micro, count)
        return
    found = shares(pieces * micro, micro, count)
    assert sorted(chain.from_iterable(share.rows for share in found)) == list(range(pieces * micro))
    assert all(sum(share.pieces) == len(share.rows) > 0 for share in found)
    sizes = [len(share.rows) for share in found]
    assert max(sizes) - min(sizes) <= max(pieces, micro)
    assert all(share.sizes == tuple(one.pieces[0] for one in found) for share in found if share.sizes)


@pytest.fixture
def sampler() -> PatchSampler:
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:11, 5:12, 3:13] = 1
    image = (np.random.default_rng(0).normal(size=(1, 20, 18, 16)) + 3 * label).astype(np.float32)
    return PatchSampler([Example(image, label, find_foreground(label))], (16, 16, 16), 6, 0.5, 3)


@pytest.mark.parametrize("rows", [(0, 1, 2), (3, 4, 5), (1, 2, 4), (5,)])
def test_a_share_of_a_batch_has_the_bytes_of_the_whole_one(sampler, rows):
    changed = Augmentation(blur=1.0, probability=0.6)
    for step in range(4):
        whole, part = Recipe(sampler, changed).make(step), Recipe(sampler, changed, rows).make(step)
        assert torch.equal(part.images, whole.images[list(rows)])
        assert torch.equal(part.labels, whole.labels[list(rows)])


@pytest.mark.parametrize(
    ("tasks", "given", "processes", "cores", "threads"),
    [
        (1, "", 1, 8, 8),
        (1, "", 4, 8, 2),
        (1, "", 4, 2, 1),
        (2, "3", 1, 8, 3),
        (2, "8", 1, 3, 3),
        (2, "", 1, 8, 4),
        (1, "3", 1, 8, 8),
    ],
)
def test_threads_are_a_share_unless_slurm_counts_them_for_each_task(monkeypatch, tasks, given, processes, cores, threads):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(tasks))
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", str(tasks))
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    assert threads_here(Site(training_processes=processes), cores) == threads


class Trainings:
    """Trainings of one study, each in a folder of its own, run one after the other by one child."""

    def __init__(self, folder: Path, *, strategy: str = "ddp") -> None:
        self.folder, self.strategy = folder, strategy
        self.asked: list[str] = []
        self.digest = ""

    def study(self, name: str, **train: object) -> Path:
        folder = write_study(self.folder / name, **{"batch": 5, "steps": 9, "stall_seconds": 60.0} | train)
        text = yaml.safe_load((folder / "study.yaml").read_text())
        (folder / "study.yaml").write_text(yaml.safe_dump(text | {"network": NETWORK}, sort_keys=False))
        config = load(folder)
        self.digest = put_dataset(config.workspace, config.study.contract).digest
        return folder

    def ask(self, folder: Path, processes: int, what: str = "plain") -> None:
        self.asked += [str(folder), str(processes), what]

    def run(self, *, apart: bool = False) -> list[dict[str, object]]:
        """Answers in order; `apart` gives every training a process of its own, as on the command line."""
        triples = [self.asked[at : at + 3] for at in range(0, len(self.asked), 3)]
        answers = []
        for words in triples if apart else [self.asked]:
            command = [sys.executable, str(CHILD), self.digest, *words]
            where = os.environ | {"STRATEGY": self.strategy}
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=where)
            assert done.returncode == 0, done.stderr
            answers += [json.loads(line) for line in done.stdout.splitlines()]
        return answers


def test_two_processes_give_the_gradient_of_one_with_shares_that_are_not_even(tmp_path):
    trainings = Trainings(tmp_path)
    trainings.ask(trainings.study("a"), 2, "gradient")
    (found,) = trainings.run()
    for sizes in ("5/5", "3/1", "6/3"):
        assert found[f"{sizes} largest"] > 1e-3
        assert found[sizes] <= 1e-6, found
        assert found[f"{sizes} loss"] <= 1e-6, found


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_only_the_first_writes(tmp_path):
    trainings = Trainings(tmp_path)
    alone, both, again = trainings.study("a"), trainings.study("b"), trainings.study("c")
    trainings.ask(alone, 1)
    trainings.ask(both, 2)
    trainings.ask(again, 2)
    one, two, three = trainings.run()
    assert two["weights"] == three["weights"]
    assert two["threads"] == three["threads"] == 1
    np.testing.assert_allclose(one["losses"], two["losses"], atol=1e-3)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert sorted(path.name for path in both.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert (both / "ledger.jsonl").read_text().count('"trained"') == 1


@pytest.mark.slow
def test_divided_weights_give_the_gradient_of_whole_ones(tmp_path):
    trainings = Trainings(tmp_path, strategy="fsdp")
    trainings.ask(trainings.study("a"), 2, "gradient")
    (found,) = trainings.run()
    for sizes in ("5/5", "3/1", "6/3"):
        assert found[f"{sizes} largest"] > 1e-3
        assert found[sizes] <= 1e-6, found
        assert found[f"{sizes} held"] <= 0.55, "each process keeps about half"


@pytest.mark.slow
def test_divided_weights_train_as_whole_ones_do(tmp_path):
    trainings = Trainings(tmp_path, strategy="fsdp")
    divided, again, alone = (trainings.study(name) for name in "abc")
    trainings.ask(divided, 2)
    trainings.ask(again, 2)
    trainings.ask(alone, 1)
    two, three, one = trainings.run()
    assert two["weights"] == three["weights"]
    np.testing.assert_allclose(one["losses"], two["losses"], atol=1e-3)


@pytest.mark.slow
def test_a_training_of_divided_weights_that_was_stopped_or_killed_goes_on_to_the_same_weights(tmp_path):
    trainings = Trainings(tmp_path, strategy="fsdp")
    often = {"checkpoint_minutes": 0.001, "fold": 0, "precision": "bf16"}
    straight, ended, killed = (trainings.study(name, **often) for name in "abc")
    trainings.ask(straight, 2)
    for folder, what in ((ended, "signal"), (ended, "plain"), (killed, "kill"), (killed, "plain")):
        trainings.ask(folder, 2, what)
    whole, signalled, resumed, lost, begun_again = trainings.run(apart=True)
    assert (signalled["exit"], lost["exit"], lost["code"]) == (8, 6, "RANK")
    assert "last checkpoint" in lost["sentence"]
    assert resumed["resumed"] == begun_again["resumed"] == 1
    assert resumed["weights"] == begun_again["weights"] == whole["weights"]


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_with_as_many_processes_to_the_same_weights(tmp_path):
    trainings = Trainings(tmp_path)
    straight, ended = trainings.study("a"), trainings.study("b")
    trainings.ask(straight, 2)
    trainings.ask(ended, 2, "signal")
    trainings.ask(ended, 1)
    trainings.ask(ended, 2)
    whole, signalled, other, resumed = trainings.run(apart=True)
    assert (signalled["exit"], other["code"]) == (8, "PROCESSES")
    assert "step 5" in signalled["sentence"]
    assert resumed["resumed"] == 1
    assert resumed["weights"] == whole["weights"]


@pytest.mark.slow
def test_a_process_that_is_killed_or_hangs_ends_all_in_time_and_nothing_is_lost(tmp_path):
    trainings = Trainings(tmp_path)
    killed, hung, straight = trainings.study("a"), trainings.study("b", stall_seconds=20.0), trainings.study("c")
    trainings.ask(killed, 2, "kill")
    trainings.ask(killed, 2)
    trainings.ask(hung, 2, "stop")
    trainings.ask(straight, 2)
    one, resumed, other, whole = trainings.run(apart=True)
    assert (one["exit"], one["code"]) == (other["exit"], other["code"]) == (6, "RANK")
    assert "SIGKILL" in one["sentence"]
    assert one["seconds"] < 200
    assert other["seconds"] < 200
    assert resumed["resumed"] == 1
    assert resumed["weights"] == whole["weights"]


@pytest.mark.slow
def test_weights_that_differ_between_processes_are_found_before_they_are_kept(tmp_path):
    trainings = Trainings(tmp_path)
    trainings.ask(trainings.study("a"), 2, "tamper")
    (found,) = trainings.run()
    assert (found["exit"], found["code"]) == (4, "RANKS_DIFFER")
