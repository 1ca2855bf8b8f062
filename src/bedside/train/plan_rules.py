"""Rules of a plan that look at the data only: grid, values, patch, and how kernels follow the spacing."""

import math
from collections.abc import Iterable
from typing import Literal

from bedside.core.config import Augmentation, Train
from bedside.core.contract import Contract
from bedside.core.model import Preprocessing
from bedside.core.plan import Fingerprint

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Triples = tuple[Shape, ...]

ANISOTROPIC = 3.0
"""Beyond this ratio of spacings an axis is thick, as in nnU-Net."""
UNEVEN = 2.0
"""Along axes whose spacing is beyond this ratio of the finest, kernels do not reach and nothing is halved yet."""
COVER = 0.25
"""A patch should see at least this share of the field of view along each axis, or the spacing is made coarser."""
FINE_ENOUGH = 6.0
"""Voxels across the smallest structure (as a ball) that a coarser spacing must leave."""
LEAST_SIDE = 4
"""Voxels that the lowest level keeps along an axis."""
MOST_LEVELS = 6
LEAST_LEVELS = 3
SPREAD = 5.15
"""Standard deviations of a normal distribution between its 0.5th and its 99.5th percentile."""


def target_spacing(data: Fingerprint, *, room: float) -> tuple[Spacing | None, str]:
    """Spacing in mm to bring all cases to, or None to leave each as it is, and why.

    Args:
        data: numbers of the cases.
        room: voxels that one patch may have.
    """
    spacing = list(data.spacing_mm)
    because = "the median of the cases"
    thick = max(range(3), key=lambda axis: spacing[axis])
    others = [mm for axis, mm in enumerate(spacing) if axis != thick]
    if spacing[thick] / max(others) > ANISOTROPIC:
        spacing[thick] = max(data.fine_spacing_mm[thick], max(others))
        because = f"the median, and the 10th percentile along the thick axis {'IJK'[thick]}"
    coarser = _coarser(spacing, data, room)
    if coarser != spacing:
        return _three(coarser), f"coarser than the median {_said(spacing)}, so that a patch sees a quarter of each axis"
    if data.same_spacing:
        return None, "all cases have the same"
    return _three(spacing), because


def _coarser(spacing: list[float], data: Fingerprint, room: float) -> list[float]:
    """Make the finest axes coarser until a patch of `room` voxels covers enough of the field of view.

    It stops where the smallest structure would become too small to see.
    """
    diameter_mm = 2 * (3 * 1000 * data.smallest_ml / (4 * math.pi)) ** (1 / 3)
    limit = max(diameter_mm / FINE_ENOUGH, max(spacing))
    now = list(spacing)
    while True:
        seen = math.prod(max(1.0, COVER * mm / step) for mm, step in zip(data.extent_mm, now, strict=True))
        if seen <= room:
            return now
        finest = min(now)
        if finest >= limit:
            return now
        now = [min(limit, max(step, finest * 1.05)) for step in now]


def normalisation(data: Fingerprint, contract: Contract) -> tuple[tuple[float, float] | None, Literal["zscore", "clip"], str]:
    """Limits that values are clipped to, how they are scaled, and why.

    A calibrated unit (HU) keeps its meaning: limits come from the values inside the structures. Others are scaled case by case.
    """
    if contract.unit == "HU":
        low, _, high = data.values
        margin = 0.1 * (high - low)
        limits = (math.floor((low - margin) / 50) * 50.0, math.ceil((high + margin) / 50) * 50.0)
        if limits[0] == limits[1]:  # structures of one value
            limits = (limits[0] - 50.0, limits[1] + 50.0)
        return limits, "clip", f"HU inside the structures go from {low:.0f} to {high:.0f} (0.5 to 99.5 %)"
    return None, "zscore", "the unit is not calibrated"


def norm(contract: Contract, train: Train, *, processes: int) -> tuple[Literal["instance", "batch"], str]:
    """What brings activations to one scale, and why.

    An instance norm takes the mean from every patch and with it the absolute values, which is what unscaled images need; in a
    calibrated unit (HU) they are what tells tissues apart (seen in `benchmarks/results/ct_bone.md`).
    """
    if contract.unit != "HU":
        return "instance", "the unit is not calibrated"
    if processes > 1:
        return "instance", "a batch norm needs one process"
    if 1 in {train.batch, train.micro_batch}:
        return "instance", "a batch norm needs several patches at once"
    if train.parent is not None:
        return "instance", "the weights to begin with may have learned with instance norms"
    return "batch", "the unit is calibrated, and an instance norm would hide absolute values"


def augmentation(asked: Augmentation, data: Fingerprint, preprocessing: Preprocessing) -> tuple[Augmentation, str]:
    """The changes to patches as numbers, and why where the values decide; what the study sets is kept.

    Noise and brightness are in units of the normalised image. Where that is a standard deviation of the case, nothing has to be
    known; where values keep their calibrated unit, one of the values inside the structures is taken.
    """
    low, _, high = data.values
    deviation, said = 1.0, ""
    if preprocessing.normalise == "clip" and preprocessing.clip is not None and high > low:
        deviation = (high - low) / SPREAD / (0.5 * (preprocessing.clip[1] - preprocessing.clip[0]))
        said = (
            f"a standard deviation inside the structures is {(high - low) / SPREAD:.0f}, {deviation:.2f} of the normalised unit"
        )
    noise, brightness = asked.amounts(deviation)
    open_ones = None in {asked.noise, asked.brightness}
    return asked.model_copy(update={"noise": noise, "brightness": brightness}), said if open_ones else ""


def grid(data: Fingerprint, preprocessing: Preprocessing) -> tuple[Shape, Spacing]:
    """Voxels and spacing in mm of a median case as the network will see it."""
    spacing = preprocessing.spacing_mm
    if spacing is None:
        return data.shape, data.spacing_mm
    i, j, k = (max(1, round(mm / step)) for mm, step in zip(data.extent_mm, spacing, strict=True))
    return (i, j, k), spacing


def planned_patch(shape: Shape, *, most_voxels: float, spacing: Spacing) -> Shape:
    """A patch of at most so many voxels: the whole of a median case if it may be, else as even in mm as the case allows."""
    sides = [float(side) for side in shape]
    while math.prod(sides) > most_voxels and max(sides) > LEAST_SIDE:
        longest = max(range(3), key=lambda axis: sides[axis] * spacing[axis] if sides[axis] > LEAST_SIDE else 0.0)
        sides[longest] = max(float(LEAST_SIDE), sides[longest] * 0.97)
    i, j, k = (max(1, round(side)) for side in sides)
    return i, j, k


def pyramid(patch: Shape, spacing: Spacing) -> tuple[Triples, Triples]:
    """Kernels and strides of each level (nnU-Net's rule).

    An axis is halved while it keeps 4 voxels and is not yet twice as coarse as the finest; a kernel is 3 wide along axes that are
    not, else 1.
    """
    size, step = [float(side) for side in patch], list(spacing)
    kernels: list[Shape] = [_kernel(step, size)]
    strides: list[Shape] = [(1, 1, 1)]
    while len(strides) < MOST_LEVELS:
        finest = _finest(step, size)
        halved = [size[axis] >= 2 * LEAST_SIDE and step[axis] < UNEVEN * finest for axis in range(3)]
        if not any(halved):
            break
        strides.append(_three_ints(2 if half else 1 for half in halved))
        size = [side / 2 if half else side for side, half in zip(size, halved, strict=True)]
        step = [mm * 2 if half else mm for mm, half in zip(step, halved, strict=True)]
        kernels.append(_kernel(step, size))
    while len(strides) < LEAST_LEVELS:
        strides.append((1, 1, 1))
        kernels.append(_kernel(step, size))
    return tuple(kernels), tuple(strides)


def _finest(step: list[float], size: list[float]) -> float:
    """Smallest spacing among the axes that have more than one voxel."""
    return min((mm for mm, side in zip(step, size, strict=True) if side > 1), default=min(step))


def _kernel(step: list[float], size: list[float]) -> Shape:
    finest = _finest(step, size)
    return _three_ints(3 if side > 1 and mm < UNEVEN * finest else 1 for mm, side in zip(step, size, strict=True))


def _three_ints(values: Iterable[int]) -> Shape:
    i, j, k = values
    return i, j, k


def _three(values: list[float]) -> Spacing:
    i, j, k = (round(value, 3) for value in values)
    return i, j, k


def _said(spacing: list[float]) -> str:
    return " x ".join(f"{mm:.3g}" for mm in spacing) + " mm"
