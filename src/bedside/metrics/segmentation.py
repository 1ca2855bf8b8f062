"""All metrics of a segmentation at once: per structure, with missed and hallucinated structures charged and named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from bedside.core.errors import UsageError
from bedside.core.evidence import MetricDefinition
from bedside.metrics import overlap, surface

CHARGE = "a missed or hallucinated structure counts as"
NOTHING = "nothing there and nothing found as"

DEFINITIONS: Final[dict[str, MetricDefinition]] = {
    definition.name: definition
    for definition in (
        MetricDefinition(
            name="dice",
            unit="1",
            higher_is_better=True,
            text=f"Twice the common voxels over the sum of both masks; {CHARGE} 0, {NOTHING} 1.",
        ),
        MetricDefinition(
            name="iou",
            unit="1",
            higher_is_better=True,
            text=f"Common voxels over the voxels of either mask; {CHARGE} 0, {NOTHING} 1.",
        ),
        MetricDefinition(
            name="surface_dice",
            unit="1",
            higher_is_better=True,
            text=(
                "Share of both surfaces, by area, that lies within the tolerance of the other (evaluate.surface_tolerance_mm);"
                f" {CHARGE} 0, {NOTHING} 1."
            ),
        ),
        MetricDefinition(
            name="hd95_mm",
            unit="mm",
            higher_is_better=False,
            text=(
                "Distance to the other surface that 95 % of a surface's area keeps, the larger of both directions;"
                f" {CHARGE} the image's diagonal, {NOTHING} 0 mm."
            ),
        ),
        MetricDefinition(
            name="mean_surface_distance_mm",
            unit="mm",
            higher_is_better=False,
            text=(
                "Mean distance to the other surface by area, averaged over both directions;"
                f" {CHARGE} the image's diagonal, {NOTHING} 0 mm."
            ),
        ),
        MetricDefinition(
            name="volume_error_ml",
            unit="ml",
            higher_is_better=False,
            text=f"Absolute difference of the two volumes; {CHARGE} its whole volume, {NOTHING} 0 ml.",
        ),
    )
}


@dataclass(frozen=True)
class Scores:
    """What one case scored; the background is left out.

    Attributes:
        values: metric -> structure -> value, every metric of `DEFINITIONS` and every structure, never NaN.
        missed: structures that are there and of which nothing was found.
        hallucinated: structures that are not there and of which something was found.
        absent: structures that are not there and were not found (they score 1 and 0 mm).
    """

    values: dict[str, dict[str, float]]
    missed: tuple[str, ...]
    hallucinated: tuple[str, ...]
    absent: tuple[str, ...]


def validate(prediction: ArrayLike, reference: ArrayLike, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return both label maps as integers.

    Raises:
        UsageError: they are not (I, J, K) of one shape, or hold something else than the whole numbers 0 to `count` - 1.
    """
    maps = np.asarray(prediction), np.asarray(reference)
    if maps[0].shape != maps[1].shape or maps[0].ndim != 3:
        raise UsageError(
            f"The label maps have shapes {maps[0].shape} and {maps[1].shape}; give two of one shape (I, J, K).",
            code="METRIC_SHAPE",
        )
    for array in maps:
        whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and bool((array == np.round(array)).all()))
        if not whole or (array.size and not (array.min() >= 0 and array.max() < count)):
            raise UsageError(f"A label map holds training ids, whole numbers from 0 to {count - 1}.", code="METRIC_LABELS")
    return maps[0].astype(np.intp), maps[1].astype(np.intp)


def score(
    prediction: ArrayLike,
    reference: ArrayLike,
    *,
    structures: Sequence[str],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> Scores:
    """Score one case.

    Args:
        prediction: training ids, (I, J, K).
        reference: training ids, (I, J, K).
        structures: names in training-id order, background first (`Contract.structures`).
        spacing_mm: voxel size along each axis.
        tolerance_mm: of the surface Dice.

    Raises:
        UsageError: the maps are not of one shape, hold an id without a name, or the spacing or tolerance is not a length.
    """
    found, truth = validate(prediction, reference, len(structures))
    charge_mm = surface.diagonal_mm(found.shape, spacing_mm)
    boxes = ndimage.find_objects(found, max_label=len(structures)), ndimage.find_objects(truth, max_label=len(structures))
    values: dict[str, dict[str, float]] = {name: {} for name in DEFINITIONS}
    kinds: dict[str, list[str]] = {"missed": [], "hallucinated": [], "absent": []}
    for number, structure in enumerate(structures[1:], start=1):
        box, box_truth = boxes[0][number - 1], boxes[1][number - 1]
        crop = _around(box, box_truth)
        pair = found[crop] == number, truth[crop] == number
        row = _row(*pair, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm, charge_mm=charge_mm)
        for name, value in row.items():
            values[name][structure] = value
        if box is None or box_truth is None:
            kinds["absent" if box is box_truth else "missed" if box is None else "hallucinated"].append(structure)
    return Scores(values, tuple(kinds["missed"]), tuple(kinds["hallucinated"]), tuple(kinds["absent"]))


def _row(
    found: overlap.Mask, truth: overlap.Mask, *, spacing_mm: Sequence[float], tolerance_mm: float, charge_mm: float
) -> dict[str, float]:
    distances = surface.surface_distances(found, truth, spacing_mm=spacing_mm, charge_mm=charge_mm)
    return {
        "dice": overlap.dice(found, truth),
        "iou": overlap.iou(found, truth),
        "surface_dice": surface.surface_dice(distances, tolerance_mm=tolerance_mm),
        "hd95_mm": surface.hd95_mm(distances),
        "mean_surface_distance_mm": surface.mean_surface_distance_mm(distances),
        "volume_error_ml": overlap.volume_error_ml(found, truth, spacing_mm=spacing_mm),
    }


def _around(first: tuple[slice, ...] | None, second: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """The smallest box that holds both boxes; None stands for nothing."""
    if first is None or second is None:
        return first or second or (slice(0, 0),) * 3
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
