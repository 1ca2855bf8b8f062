"""Prepared cases on disk: every training case is read, checked and normalised once."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bedside.core.case import Case
from bedside.core.digest import digest_json
from bedside.core.errors import disk_errors
from bedside.core.model import Preprocessing
from bedside.core.progress import Progress
from bedside.core.record import Part
from bedside.core.task import Task
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.data.patches import Example, find_foreground, open_example
from bedside.data.transforms import prepare, prepare_label

FORM = 2
"""Counts up whenever the files of a prepared case mean something else."""


def prepared_folder(workspace: Workspace, dataset: str, preprocessing: Preprocessing, task: Part) -> Path:
    """Where the prepared cases of a dataset lie: in scratch, named by what they were made of."""
    made_of = {"dataset": dataset, "preprocessing": preprocessing.model_dump(mode="json"), "task": task.settings()}
    key = digest_json({**made_of, "form": FORM})
    return workspace.scratch / f"prepared-{key[:32]}"


def prepare_cases(
    cases: Iterable[Case], folder: Path, *, preprocessing: Preprocessing, task: Task, progress: Progress, count: int
) -> list[Example]:
    """Prepare cases, or open those prepared before; arrays are memory maps, so memory does not grow with the dataset.

    Raises:
        ResourceError: the disk is full.
    """
    progress.start("preparing cases", count)
    examples = []
    for number, case in enumerate(cases, start=1):
        examples.append(_prepared(case, folder, preprocessing, task))
        progress.advance(number)
    return examples


def _prepared(case: Case, folder: Path, preprocessing: Preprocessing, task: Task) -> Example:
    target = folder / case.id
    if not (target / "foreground.npy").exists():
        with disk_errors("preparing cases"):
            _write(case, target, preprocessing, task)
    return open_example(target)


def _write(case: Case, target: Path, preprocessing: Preprocessing, task: Task) -> None:
    """Write beside the final place and rename, so that a killed run leaves no half-prepared case."""
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    truth = case.volumes.get("label", case.image)
    label = prepare_label(Volume.of(np.asarray(task.target(case)), truth.affine), preprocessing)
    np.save(temporary / "image.npy", prepare(case.image, preprocessing).array)
    np.save(temporary / "label.npy", label)
    np.save(temporary / "foreground.npy", find_foreground(label))
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
