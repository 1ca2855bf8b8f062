"""Whether CT numbers can be Hounsfield units: air near -1000, tissue above it, no stored numbers that nobody rescaled."""

import math

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected
from bedside.core.volume import Array

AIR_HU = (-1100.0, -900.0)
_DARK_HU = -500.0
_PADDING_HU = -1024.0
_SHARE = 0.02
_SAMPLE_VOXELS = 1 << 18
_BIN_HU = 10.0
_NARROW_HU = 40.0
_NARROW_SHARE = 0.6
_STORED_MAX = 1500.0
_STORED_AIR = (0.0, 200.0)


def check_hounsfield(array: Array) -> None:
    """Refuse CT numbers that were never rescaled, rescaled twice, or are calibrated to another zero.

    Looked at is a regular subsample of at most 2^18 voxels. A voxel is dark below -500 HU. Padding (one exact value of -1024 or
    less) is left out. An image with at most 2 % of dark voxels holds no air and has no verdict; lung alone has none either,
    because its peak is broad: air is judged where 60 % of the dark voxels lie within 40 HU of their most common value, and
    that value must lie in `AIR_HU`. Metal, contrast and cone-beam artefacts play no part.

    Args:
        array: (C, I, J, K) finite values.

    Raises:
        InputRejected: HU_CALIBRATION.
    """
    values = _sample(array)
    smallest, largest = float(array.min()), float(array.max())
    if smallest >= 0 and largest > _STORED_MAX and _STORED_AIR[0] <= _mode(values) <= _STORED_AIR[1]:
        raise _refusal(
            f"No value is below 0, the largest is {largest:g} and the most common lies near 0: these look like stored numbers;"
            " rescale them to HU (air is -1000)"
        )
    values = _without_padding(values)
    dark = values[values < _DARK_HU]
    if len(dark) <= _SHARE * len(values):
        return
    if len(values) - len(dark) < _SHARE / 2 * len(values):
        raise _refusal("Nearly every voxel lies below -500 HU, so no tissue is in the image, or the intercept was applied twice")
    air = _mode(dark)
    narrow = float(np.mean(np.abs(dark - air) <= _NARROW_HU)) >= _NARROW_SHARE
    if not AIR_HU[0] <= air <= AIR_HU[1] and (narrow or air < AIR_HU[0]):
        raise _refusal(f"Air lies near {air:.0f} HU; it is expected between {AIR_HU[0]:g} and {AIR_HU[1]:g}")


def _refusal(found: str) -> InputRejected:
    return InputRejected(f"{found}; correct the values, or set contract.hu_check: false.", code="HU_CALIBRATION")


def _sample(array: Array) -> NDArray[np.float64]:
    """Every n-th voxel along each axis, so that no axis is favoured, as (N,)."""
    step = max(1, math.ceil((array.size / _SAMPLE_VOXELS) ** (1 / 3)))
    return np.asarray(array[:, ::step, ::step, ::step], dtype=np.float64).ravel()


def _without_padding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out values that say "outside the field of view": one exact number of -1024 or less, far from its neighbours."""
    low = values[values <= _PADDING_HU]
    if not len(low):
        return values
    exact, counts = np.unique(low, return_counts=True)
    padding = exact[counts > 0.5 * len(low)]
    return values[~np.isin(values, padding)] if len(padding) else values


def _mode(values: NDArray[np.float64]) -> float:
    """The middle of the fullest bin of 10 HU, bins smoothed over their neighbours."""
    low = math.floor(float(values.min()) / _BIN_HU)
    bins = np.floor(values / _BIN_HU).astype(np.int64) - low
    counts = np.bincount(np.minimum(bins, 1 << 14))
    smooth = np.convolve(counts, [1, 2, 1], mode="same")
    return float((low + int(smooth.argmax()) + 0.5) * _BIN_HU)
