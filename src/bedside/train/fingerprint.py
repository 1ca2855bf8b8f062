"""The numbers of a dataset that a plan is made from, measured once and kept in scratch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bedside.core.case import Case
from bedside.core.dataset import CaseSequence, Dataset
from bedside.core.digest import canonical_json, digest_json
from bedside.core.errors import InputRejected
from bedside.core.files import write_atomic
from bedside.core.lesson import needs_labels
from bedside.core.plan import Fingerprint
from bedside.core.progress import Progress
from bedside.core.task import Task
from bedside.core.volume import Reorientation
from bedside.core.workspace import Workspace

CASES_LOOKED_AT = 48
VALUES_PER_CASE = 10_000
SAME_SPACING = 0.01


def fingerprint(dataset: Dataset, cases: CaseSequence, *, task: Task, progress: Progress, keep: bool = True) -> Fingerprint:
    """Measure the cases, or read what was measured of the same cases before.

    Spacings and shapes are of all cases; values and structures of at most 48, spread evenly. Without `keep` nothing is written.

    Raises:
        InputRejected: NO_FOREGROUND, when no looked-at case has a structure to learn; LABEL_MISSING, when a case has no mask
            and the task needs one.
    """
    check_labels(cases, task)
    file = _kept_in(dataset.workspace, dataset, cases, labelled=needs_labels(task))
    before = _kept(file)
    if before is not None:
        return before
    found = _measure(dataset, cases, task, progress)
    if keep:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, canonical_json(found.model_dump(mode="json")), doing="keeping the numbers of the data")
    return found


def check_labels(cases: CaseSequence, task: Task) -> None:
    """Refuse cases without masks where the task needs them.

    Raises:
        InputRejected: LABEL_MISSING.
    """
    if needs_labels(task) and any("label" not in record.volumes for record in cases.records):
        raise InputRejected("A training case has no label; every case of this task needs one.", code="LABEL_MISSING")


def _kept(file: Path) -> Fingerprint | None:
    """What was measured before; None also where another version of this code wrote it."""
    try:
        return Fingerprint.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _kept_in(workspace: Workspace, dataset: Dataset, cases: CaseSequence, *, labelled: bool) -> Path:
    of_what = {"dataset": dataset.digest, "cases": [record.id for record in cases.records]}
    key = digest_json(of_what if labelled else {**of_what, "labelled": False})
    return workspace.scratch / f"fingerprint-{key[:32]}.json"


def _measure(dataset: Dataset, cases: CaseSequence, task: Task, progress: Progress) -> Fingerprint:
    spacing, shape = _grids(cases)
    middle = np.median(spacing, axis=0)
    looked_at = [cases[round(at)] for at in np.linspace(0, len(cases) - 1, min(len(cases), CASES_LOOKED_AT))]
    progress.start("looking at the data", len(looked_at))
    values, volumes, shares = [], [], []
    for number, case in enumerate(looked_at, start=1):
        some, millilitres, share = _structures(case, task)
        values.append(some)
        volumes += millilitres
        shares.append(share)
        progress.advance(number)
    everything = np.concatenate(values)
    if not len(everything):
        raise InputRejected("No case has a structure to learn from: every mask is empty.", code="NO_FOREGROUND")
    low, mid, high = (float(value) for value in np.percentile(everything, (0.5, 50, 99.5)))
    channels = cases.records[0].volumes["image"].shape[0]
    return Fingerprint(
        cases=len(cases),
        channels=channels,
        modality=dataset.contract.modality,
        spacing_mm=_three(middle),
        fine_spacing_mm=_three(np.percentile(spacing, 10, axis=0)),
        same_spacing=bool((np.abs(spacing / middle - 1) <= SAME_SPACING).all()),
        extent_mm=_three(np.median(spacing * shape, axis=0)),
        shape=tuple(int(n) for n in np.round(np.median(shape, axis=0))),
        largest_voxels=int(shape.prod(axis=1).max()),
        structures=max(1, len(dataset.contract.structures) - 1),
        smallest_ml=round(_smallest(volumes), 4),
        foreground_share=round(float(np.median(shares)), 6),
        values=(low, mid, high),
    )


def _grids(cases: CaseSequence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spacing in mm and shape in voxels of every case, (N, 3) each, after the turn to RAS+."""
    spacings, shapes = [], []
    for case in cases:
        turn = Reorientation.of(case.image)
        spacings.append([case.image.spacing_mm[axis] for axis in turn.order])
        shapes.append(turn.shape(case.image))
    return np.asarray(spacings, dtype=np.float64), np.asarray(shapes, dtype=np.float64)


def _structures(case: Case, task: Task) -> tuple[NDArray[np.float64], list[tuple[int, float]], float]:
    """Image values inside the structures (a sample), volume in ml of each structure that is there, share of labelled voxels."""
    target = np.asarray(task.target(case))
    counts = np.bincount(target.ravel().astype(np.int64))
    millilitre = float(np.prod(case.image.spacing_mm)) / 1000.0
    present = [(index, float(count) * millilitre) for index, count in enumerate(counts) if index and count]
    inside = np.flatnonzero(target)
    inside = inside[:: max(1, len(inside) // VALUES_PER_CASE)]
    image = np.asarray(case.image.array[0])
    values = image[np.unravel_index(inside, target.shape)].astype(np.float64)
    return values, present, float(counts[1:].sum()) / target.size


def _smallest(volumes: Sequence[tuple[int, float]]) -> float:
    """Median volume of the structure whose median is smallest."""
    of_each: dict[int, list[float]] = {}
    for index, millilitres in volumes:
        of_each.setdefault(index, []).append(millilitres)
    return min((float(np.median(found)) for found in of_each.values()), default=0.0)


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (round(float(value), 4) for value in values)
    return first, second, third
