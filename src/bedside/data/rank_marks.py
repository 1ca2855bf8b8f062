"""Marks of an image's own voxels: a part that was cut out of a scan keeps them, and two scans share next to none.

A mark is the order, from darkest to brightest, of 17 voxels in a row around one that is brighter than its neighbours. Which of 17
noisy voxels is brighter than which is a matter of chance, so no two scans have one order; a crop, a flip and any rising change
of intensities leave it as it is. Interpolation and added noise do not: a resampled part has other marks.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from bedside.core.volume import Volume

Marks = NDArray[np.uint64]

_REACH = 8
_NEAR = 3
_LEAST_TURNS = 7
"""An edge or a smooth hill orders voxels alike in everybody; noise turns about every second voxel."""
_KEPT = 512
_ZIGZAGS = (1, 3, 5)
_LARGE_VOXELS = 4 << 20
_COMMON = np.uint64(1 << 63)
_LEAST_SHARED, _LEAST_SHARE = 12, 0.25
_WEIGHTS = np.random.default_rng(0).integers(1, 1 << 63, 2 * _REACH + 1, dtype=np.uint64) | np.uint64(1)


def rank_marks(volume: Volume) -> Marks:
    """The 512 smallest marks of an image (fewer where it has no more), sorted; axes are turned to the closest RAS+ first.

    They are numbers without order in space, so the smallest are a random sample, and the same one wherever a voxel lies.
    One plane is held at a time. Marks of voxels around which both sides go up and down alike, which are few, come before all
    others; of an image above 4 million voxels only they are made.
    """
    kept = np.zeros(0, np.uint64)
    array = volume.canonical().array[0]
    for place in range(array.shape[2]):
        plane = np.asarray(array[:, :, place], dtype=np.float32)
        found = [
            _line_marks(lines, rare_only=array.size > _LARGE_VOXELS) for lines in (plane, plane.T) if lines.shape[1] > 2 * _REACH
        ]
        kept = np.unique(np.concatenate([kept, *found]))[:_KEPT]
    return kept


def shared_marks(marks: Sequence[Marks]) -> dict[tuple[int, int], float]:
    """Pairs of images of which one may be a part of the other, and the share of marks that they share where both have any.

    Time and memory grow with the number of marks, not of pairs.
    """
    holders: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(marks):
        for mark in own.tolist():
            holders[mark].append(number)
    counts = Counter(pair for held in holders.values() for pair in combinations(held, 2))
    found = {}
    for (first, second), count in counts.items():
        if count < _LEAST_SHARED:
            continue
        end = min(_end(marks[first]), _end(marks[second]))
        least = min(int((marks[one] <= end).sum()) for one in (first, second))
        if count >= _LEAST_SHARE * least:
            found[first, second] = count / least
    return found


def _end(marks: Marks) -> int:
    """Up to which number all marks of an image are kept."""
    if len(marks) == _KEPT:
        return int(marks[-1])
    return (1 << 64) - 1 if len(marks) and marks[-1] >= _COMMON else int(_COMMON) - 1


def _line_marks(lines: NDArray[np.float32], *, rare_only: bool) -> Marks:
    """All marks along the second axis."""
    inner = lines[:, _REACH:-_REACH]
    highest = maximum_filter1d(lines, 2 * _NEAR + 1, axis=1)[:, _REACH:-_REACH]
    row, start = np.nonzero(inner == highest)
    rare = np.ones(len(row), dtype=bool)
    for near in _ZIGZAGS:
        for side in (-1, 1):
            place = start + _REACH + side * near
            rare &= lines[row, place] < lines[row, place + side]
    if rare_only:
        row, start, rare = row[rare], start[rare], rare[rare]
    parts = np.lib.stride_tricks.sliding_window_view(lines, 2 * _REACH + 1, axis=1)[row, start]
    steps = np.sign(np.diff(parts, axis=1))
    turns = (steps[:, 1:] * steps[:, :-1] < 0).sum(axis=1)
    parts, rare = parts[turns >= _LEAST_TURNS], rare[turns >= _LEAST_TURNS]
    if not len(parts):
        return np.zeros(0, np.uint64)
    order = np.argsort(parts, axis=1)
    ordered = np.take_along_axis(parts, order, axis=1)
    distinct = (np.diff(ordered, axis=1) > 0).all(axis=1)
    parts, order, rare = parts[distinct], order[distinct].astype(np.uint64), rare[distinct]
    turned = parts[:, _REACH - 1] > parts[:, _REACH + 1]
    order[turned] = np.uint64(2 * _REACH) - order[turned]
    numbers = _mixed((order * _WEIGHTS).sum(axis=1, dtype=np.uint64)) & ~_COMMON
    return np.unique(np.where(rare, numbers, numbers | _COMMON))


def _mixed(numbers: Marks) -> Marks:
    """Numbers spread evenly over 64 bits (the finalizer of SplitMix64, Steele and others 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
