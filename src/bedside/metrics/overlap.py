"""Overlap of two masks: Dice, intersection over union, volume.

Conventions: a mask is an array of booleans, any number of axes; `prediction` comes first, `reference` second. Where both are
empty the answer "there is none" is right and the ratio is 1. Where one is empty (missed or hallucinated) it is 0. Nothing is
ever NaN: MONAI 1.6 and others give NaN there, and a mean that drops NaN drops exactly the failures.

References: L. R. Dice, Ecology 26 (1945) 297; P. Jaccard, New Phytologist 11 (1912) 37; A. A. Taha and A. Hanbury, BMC Medical
Imaging 15 (2015) 29.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bedside.core.errors import UsageError

Mask = NDArray[np.bool_]


def validate(prediction: ArrayLike, reference: ArrayLike) -> tuple[Mask, Mask]:
    """Return both masks as booleans.

    Raises:
        UsageError: they differ in shape, or hold something else than 0 and 1.
    """
    first, second = np.asarray(prediction), np.asarray(reference)
    if first.shape != second.shape:
        raise UsageError(f"The masks have shapes {first.shape} and {second.shape}; give two of one shape.", code="METRIC_SHAPE")
    return _as_mask(first), _as_mask(second)


def _as_mask(array: NDArray[np.generic]) -> Mask:
    if array.dtype == np.bool_:
        return array.astype(np.bool_, copy=False)
    if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
        raise UsageError("A mask holds only 0 and 1; compare a label map with its code first (labels == 2).", code="METRIC_MASK")
    return array.astype(np.bool_)


def validate_spacing(spacing_mm: Sequence[float], axes: int) -> NDArray[np.float64]:
    """Return the voxel size as an array.

    Raises:
        UsageError: it is not one positive finite number per axis.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (axes,) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise UsageError(f"The spacing must be {axes} positive numbers in mm, one per voxel axis.", code="METRIC_SPACING")
    return spacing


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Twice the common voxels over the sum of both; 1 where both are empty, 0 where one is."""
    first, second = validate(prediction, reference)
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def iou(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Common voxels over the voxels of either (Jaccard index); 1 where both are empty, 0 where one is."""
    first, second = validate(prediction, reference)
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0


def volume_difference_ml(prediction: ArrayLike, reference: ArrayLike, *, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction minus that of the reference, in ml: negative where too little was found.

    It shows a bias; its mean over patients may be 0 while every patient is wrong, so it is not what models are judged by.
    """
    first, second = validate(prediction, reference)
    voxel_ml = float(np.prod(validate_spacing(spacing_mm, first.ndim))) / 1000.0
    return (int(first.sum()) - int(second.sum())) * voxel_ml


def volume_error_ml(prediction: ArrayLike, reference: ArrayLike, *, spacing_mm: Sequence[float]) -> float:
    """Absolute difference of the volumes in ml.

    A missed structure is charged with its whole volume, a hallucinated one with its own. This is the one metric here by which
    finding nothing can cost less than finding far too much: it compares volumes, and does not look where they are.
    """
    return abs(volume_difference_ml(prediction, reference, spacing_mm=spacing_mm))
