"""From a volume to what a network sees, and back. The same path at training, evaluation and the bedside."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bedside.core.errors import InputRejected
from bedside.core.model import Preprocessing
from bedside.core.volume import Reorientation, Volume
from bedside.data.regrid import Box, Regrid

FloatArray = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready for a network, with the way back.

    Attributes:
        array: (C, I, J, K) float32 in closest-to-RAS+ axes, at the target spacing, normalised.
        turn: the reorientation that was applied.
        grid: (I, J, K) after the turn and before resampling.
    """

    array: FloatArray
    turn: Reorientation
    grid: Shape

    def restore(self, output: FloatArray) -> FloatArray:
        """Bring (C, I, J, K) from the network's grid to the case's own grid and axes.

        Values between voxels are interpolated linearly, so this is for probabilities and images, never for label numbers.
        """
        source = (output.shape[1], output.shape[2], output.shape[3])
        back = np.zeros((output.shape[0], *self.grid), dtype=np.float32)

        def keep(box: Box, values: FloatArray) -> None:
            back[(slice(None), *box)] = values

        Regrid(source, self.grid, (0, 1, 2), keep)((slice(0, source[0]), slice(0, source[1]), slice(0, source[2])), output)
        return np.ascontiguousarray(self.turn.undo(back), dtype=np.float32)


def prepare(image: Volume, preprocessing: Preprocessing) -> Prepared:
    """Turn to the closest RAS+ axes, resample if asked, clip and normalise.

    Args:
        image: (C, I, J, K), any number type.
        preprocessing: what to do.

    Raises:
        InputRejected: CONSTANT, when the case has no spread to divide by.
    """
    turn = Reorientation.of(image)
    array = np.array(turn.apply(image.array), dtype=np.float32, order="C")  # a copy: it is normalised in place
    grid = turn.shape(image)
    if preprocessing.spacing_mm is not None:
        array = resample(array, resampled_shape(image, preprocessing.spacing_mm))
    return Prepared(normalise(array, preprocessing), turn, grid)


def prepare_label(label: Volume, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Bring training ids (1, I, J, K) to the network's grid by nearest neighbour; returns (I, J, K)."""
    turn = Reorientation.of(label)
    array = np.array(turn.apply(label.array)[0], dtype=np.uint8, order="C")  # a copy: torch takes no read-only memory map
    if preprocessing.spacing_mm is None:
        return array
    shape = resampled_shape(label, preprocessing.spacing_mm)
    tensor = torch.from_numpy(array)[None, None]
    return np.asarray(functional.interpolate(tensor, size=shape, mode="nearest-exact")[0, 0].numpy())


def resampled_shape(image: Volume, spacing_mm: tuple[float, float, float]) -> Shape:
    """Voxels per axis (after the turn) that give the wanted spacing over the same extent, at least 1.

    The extent is kept exactly, so the true spacing differs from the wanted one by up to half a voxel over the whole axis.
    """
    turn = Reorientation.of(image)
    own = [image.spacing_mm[axis] for axis in turn.order]
    i, j, k = (max(1, round(n * mine / wanted)) for n, mine, wanted in zip(turn.shape(image), own, spacing_mm, strict=True))
    return i, j, k


def resample(array: FloatArray, shape: Shape) -> FloatArray:
    """Resample (C, I, J, K) linearly over the same extent (voxel edges are kept in place, not voxel centres)."""
    if array.shape[1:] == shape:
        return array
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
    return np.asarray(functional.interpolate(tensor, size=shape, mode="trilinear", align_corners=False)[0].numpy())


def normalise(array: FloatArray, preprocessing: Preprocessing) -> FloatArray:
    """Clip, then map to zero mean and unit variance of the case ("zscore"), or the clip limits to -1..1 ("clip"); in place."""
    if preprocessing.clip is not None:
        low, high = np.float32(preprocessing.clip[0]), np.float32(preprocessing.clip[1])
        np.clip(array, low, high, out=array)
        if preprocessing.normalise == "clip":
            array -= low
            array *= np.float32(2.0 / (high - low))
            array -= np.float32(1.0)
            return array
    mean, spread = _mean_and_spread(array)
    if not spread > 0:
        raise InputRejected("After clipping every voxel has the same value; there is nothing to see.", code="CONSTANT")
    array -= mean
    array /= spread
    return array


def _mean_and_spread(array: FloatArray) -> tuple[np.float32, np.float32]:
    """Mean and standard deviation, added up in double precision one plane at a time: no double copy of the volume is made."""
    mean = array.mean(dtype=np.float64)
    squares = sum(float(np.square(plane - mean, dtype=np.float64).sum()) for channel in array for plane in channel)
    return np.float32(mean), np.float32(np.sqrt(squares / array.size))
