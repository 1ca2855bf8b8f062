"""An index of fingerprints: which few images may show the scan that another one shows, whatever was cut off or mirrored.

Of every image 1000 windows (0 to 30 % cut off per axis) are averaged to 8 x 8 x 8 numbers, and each is compared with every other
whole image under all eight flips. All are first projected to the 64 directions in which the images differ most, so that one
comparison is 64 products: the index grows with the square of the images, by some 30 microseconds a pair. The images are compared
in blocks, so that what one comparison takes of memory does not grow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bedside.data.fingerprint import FLIPS, SIDE, Flips, Grid, averages, flipped, halved

Edges = NDArray[np.float64]

_COARSE = 8
_CUTS = (0.0, 0.1, 0.2, 0.3)
_CUT_PAIRS = tuple((low, high) for low, high in product(_CUTS, _CUTS) if low + high <= max(_CUTS) + 1e-9)
_WINDOWS = np.concatenate([averages(SIDE, _COARSE, low, 1 - high) for low, high in _CUT_PAIRS])
_DIRECTIONS = 64
_RIDGE = 0.02
_FLIPS_EACH = 2
_BLOCK = 256 * len(FLIPS)


@dataclass(frozen=True)
class Candidate:
    """An image that may show what a window of another one shows.

    Attributes:
        other: its place among the images.
        flips: how it lies.
        edges: the window of the one, (3, 2) fractions.
    """

    other: int
    flips: Flips
    edges: Edges


class Index:
    """Whole images under all flips, ready to be compared with the windows of one."""

    def __init__(self, prints: Sequence[Grid]) -> None:
        """Project all images on the directions in which they differ most, the shared anatomy weighed down."""
        blocks = np.stack([halved(halved(flipped(one, flips))).ravel() for one in prints for flips in FLIPS])
        rows = _unit(blocks)
        values, vectors = np.linalg.eigh(np.asarray(rows.T @ rows, dtype=np.float64) / len(rows))
        order = np.argsort(-values)[:_DIRECTIONS]
        strength = np.sqrt(np.maximum(values[order], 0) + _RIDGE * values[order][0] + 1e-12)
        self._directions = np.asarray(vectors[:, order] / strength, dtype=np.float32)
        self._whole = _long(rows @ self._directions)

    def candidates(self, number: int, grid: Grid, *, most: int) -> Iterator[Candidate]:
        """The `most` images that resemble some window of this one, each under its two most likely flips."""
        window_of, best = self._closest(_long(_unit(_windows(grid)) @ self._directions))
        best[number] = -2
        others = np.argsort(-best.max(axis=1), kind="stable")[: min(most, len(best) - 1)]
        for other in others:
            for flip in np.argsort(-best[other], kind="stable")[:_FLIPS_EACH]:
                parts = np.unravel_index(int(window_of[other * len(FLIPS) + flip]), (len(_CUT_PAIRS),) * 3)
                edges = [(_CUT_PAIRS[int(part)][0], 1 - _CUT_PAIRS[int(part)][1]) for part in parts]
                yield Candidate(int(other), FLIPS[flip], np.array(edges))

    def _closest(self, windows: Grid) -> tuple[NDArray[np.intp], Grid]:
        """Of every whole image under every flip, the window that is most like it, and (images, flips) how alike they are."""
        places, values = [], []
        for start in range(0, len(self._whole), _BLOCK):
            scores = self._whole[start : start + _BLOCK] @ windows.T
            place = scores.argmax(axis=1)
            places.append(place)
            values.append(np.take_along_axis(scores, place[:, None], axis=1)[:, 0])
        return np.concatenate(places), np.concatenate(values).reshape(-1, len(FLIPS))


def _windows(grid: Grid) -> Grid:
    """All windows of an image, each averaged to (8, 8, 8): (1000, 512)."""
    count = len(_CUT_PAIRS)
    cut = np.einsum("ai,bj,ck,ijk->abc", _WINDOWS, _WINDOWS, _WINDOWS, grid, optimize=True)
    parts = cut.reshape(count, _COARSE, count, _COARSE, count, _COARSE).transpose(0, 2, 4, 1, 3, 5)
    return np.asarray(parts.reshape(count**3, -1))


def _unit(rows: Grid) -> Grid:
    """Rows of mean 0 and length 1."""
    return _long(rows - rows.mean(axis=1, keepdims=True))


def _long(rows: Grid) -> Grid:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)
