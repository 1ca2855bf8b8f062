"""Claims about prepared cases on disk: each is prepared once for all trainings, and what was damaged is not learned from."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bedside.core.case import Case
from bedside.core.config import load
from bedside.core.dataset import Dataset, Splits
from bedside.core.digest import digest_file
from bedside.core.errors import ResourceError
from bedside.core.lesson import target_settings
from bedside.core.model import Preprocessing
from bedside.core.progress import SILENT
from bedside.tasks.annotation import Partial
from bedside.tasks.domain_adversarial import DomainAdversarial
from bedside.tasks.masked_volume import MaskedVolume
from bedside.tasks.multi import MultiTask
from bedside.tasks.regions import RegionSegmentation
from bedside.tasks.segmentation import Segmentation
from bedside.testing.samples import sample_case
from bedside.train import prepared
from bedside.train.cases import prepare_cases
from bedside.train.pipeline import train

from .conftest import put_dataset

SIX = Splits(test=("p0",), folds=(("p1", "p2"), ("p3", "p4", "p5")))
SEVEN = Splits(test=("p0",), folds=(("p1", "p2", "p6"), ("p3", "p4", "p5")))


def images(workspace) -> set[tuple[str, int, int]]:
    """The prepared images, each with what tells one writing of it from another."""
    found = workspace.scratch.rglob("image.npy")
    return {(str(path), path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


@pytest.fixture
def six(config) -> Dataset:
    """A dataset of six cases, five of them to learn from."""
    return put_dataset(config.workspace, config.study.contract, cases=6, splits=SIX)


@pytest.fixture
def short(config):
    """Make the study with fewer steps and what else is asked."""
    return lambda *asked: load(config.workspace.folder, overrides=["train.steps=3", *asked])


def test_a_second_training_prepares_only_what_no_training_had_prepared_in_its_way(short, six):
    workspace, contract = six.workspace, short().study.contract
    train(short(), six)
    before = images(workspace)
    assert len(before) == 5
    train(short("task.dice_weight=0.3", "task.objective=tversky", "train.seed=3", "train.fold=1"), six)
    assert images(workspace) == before, "no byte of a case depends on the loss, the seed or the fold"
    fewer = Splits(test=("p0",), folds=(("p1", "p2"), ("p3", "p4")))
    train(short(), put_dataset(workspace, contract, cases=5, splits=fewer))
    assert images(workspace) == before, "a version with one case less prepares none"
    train(short(), put_dataset(workspace, contract, cases=7, splits=SEVEN))
    added = images(workspace)
    assert before < added
    assert len(added) == 6, "a version with one case more prepares one"
    train(short("preprocess.spacing_mm=[1.1, 1.1, 1.1]"), six)
    assert len(images(workspace) - added) == 5, "another spacing prepares every case"


def flip(path) -> None:
    """Change one bit in the middle of a file, and give it back its time."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "name"),
    [(damage, name) for damage in (cut, Path.unlink) for name in (*prepared.ARRAYS, prepared.WRITTEN)]
    + [(flip, name) for name in prepared.ARRAYS],
)
def test_a_damaged_case_is_prepared_again_with_the_same_bytes(six, name, damage):
    example = opened(six).examples[2]
    before, image = images(six.workspace), example.image.tobytes()
    damage(example.folder / name)
    again = opened(six)
    assert again.damaged == (example.id,)
    assert again.examples[2].image.tobytes() == image
    assert len(images(six.workspace) - before) == 1
    assert len(images(six.workspace)) == 5
    assert opened(six).damaged == ()


def test_a_training_on_damaged_files_says_so_and_gives_the_same_weights(short, six, caplog):
    first = train(short(), six)
    assert first.record.incidents == ()
    folder = min(prepared.prepared_folder(six.workspace).iterdir())
    flip(folder / "image.npy")
    again = train(short(), six, fresh=True)
    assert digest_file(again.best().weights) == digest_file(first.best().weights)
    (incident,) = again.record.incidents
    assert incident.code == "PREPARED_AGAIN"
    assert len(incident.cases) == 1
    assert f"prepared again (cases {incident.cases[0]})" in caplog.text


def opened(dataset, **preprocessing):
    """The cases to learn from, prepared."""
    given = Preprocessing(**preprocessing)
    return prepare_cases(dataset.cases("development"), preprocessing=given, task=Segmentation(), progress=SILENT)


def test_files_that_were_copied_are_hashed_and_taken(config, six):
    opened(six)
    place = prepared.prepared_folder(config.workspace)
    for path in place.rglob("*.npy"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    copies = images(config.workspace)
    assert opened(six).damaged == ()
    assert images(config.workspace) == copies


def test_a_full_disk_is_said_and_leaves_no_half_prepared_case(config, six, limited_file_size):
    with limited_file_size(9000), pytest.raises(ResourceError, match="disk is full"):
        opened(six)
    assert list(prepared.prepared_folder(config.workspace).iterdir()) == []
    assert len(opened(six).examples) == 5


def _prepare(config, dataset, start, ends) -> None:
    start.wait()
    try:
        ends.put(len(opened(Dataset(dataset, config.workspace)).examples))
    except BaseException as error:
        ends.put(repr(error))
        raise


def test_trainings_that_prepare_at_the_same_time_do_not_hurt_each_other(config, six):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        start, ends = context.Barrier(3), context.Queue()
        crew = [context.Process(target=_prepare, args=(config, six.digest, start, ends)) for _ in range(3)]
        for process in crew:
            process.start()
        assert [ends.get(timeout=50) for _ in crew] == [5, 5, 5]
        for process in crew:
            process.join()
        folders = list(prepared.prepared_folder(config.workspace).iterdir())
        assert len(folders) == 5
        assert all(len(list(folder.iterdir())) == 4 for folder in folders)
        for folder in folders[:3]:
            cut(folder / "label.npy")  # the next round finds damage at the same time


def test_what_a_kill_left_half_prepared_goes_when_the_next_case_is_prepared(config, six, monkeypatch):
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(prepared, "sync_files", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        opened(six)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    place = prepared.prepared_folder(config.workspace)
    assert [path.name.startswith(".preparing-") for path in place.iterdir()] == [True]
    assert opened(six).damaged == ()
    assert len(list(place.iterdir())) == 5
    assert not list(place.glob(".*"))


def test_the_key_holds_the_rule_of_annotation_of_the_case_and_no_other_setting():
    case = sample_case()
    of_site = Case(case.id, case.patient, case.volumes, site="A")
    rule = Partial(column="site", value="A", structures=(1,))
    plain, partial = Segmentation(), Segmentation(partial=(rule,))
    assert target_settings(plain, of_site) == target_settings(Segmentation(dice_weight=0.1), of_site)
    assert target_settings(plain, of_site) != target_settings(partial, of_site)
    assert target_settings(plain, case) == target_settings(partial, case)
    regions = RegionSegmentation(regions=[{"name": "all", "structures": [1]}], partial=(rule,))
    assert target_settings(regions, of_site) == target_settings(partial, of_site)
    hidden = MaskedVolume()
    both = MultiTask(tasks=[{"task": {"name": "masked_volume"}}, {"task": {"name": "masked_volume"}, "weight": 3}])
    assert target_settings(both, case) == target_settings(hidden, case) == target_settings(MaskedVolume(ratio=0.1), case)
    assert target_settings(hidden, case) != target_settings(plain, case)
    inside = DomainAdversarial(task={"name": "segmentation", "dice_weight": 0.2})
    assert target_settings(inside, case) == target_settings(plain, case)


def test_a_task_that_does_not_say_what_it_looks_at_shares_nothing_it_could_see():
    class Silent(Segmentation):
        target_settings: ClassVar[None] = None

    case = sample_case()
    other = Case(case.id, case.patient, case.volumes, clinical={"stage": 2})
    assert target_settings(Silent(), case) != target_settings(Silent(dice_weight=0.1), case)
    assert target_settings(Silent(), case) != target_settings(Silent(), other)
    assert target_settings(Silent(), case) == target_settings(Silent(), sample_case())


def test_equal_scans_under_two_names_share_their_bytes_and_keep_their_names(config, six):
    manifest = six.manifest
    twin = manifest.cases[1].model_copy(update={"id": "twin"})
    records = (manifest.cases[1], twin)
    keys = [
        prepared.case_key(record, Case(record.id, "p1", {}), dataset="", preprocessing=Preprocessing(), task=Segmentation())
        for record in records
    ]
    assert keys[0] == keys[1]
    found = opened(six).examples
    assert [example.id for example in found] == ["p1", "p2", "p3", "p4", "p5"]
    assert all(np.isfinite(example.image).all() for example in found)
