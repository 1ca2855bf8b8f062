"""A part that was cut out of a scan is found by its own voxels, and no stranger is."""

import numpy as np
import pytest

from bedside.core.volume import Volume
from bedside.data.rank_marks import rank_marks, shared_marks


def scan(seed: int, shape: tuple[int, int, int] = (44, 40, 30)) -> np.ndarray:
    """The same anatomy in everybody, and a scanner's noise of one's own."""
    hills = sum(np.sin(np.arange(n) / 5).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape))
    return np.asarray(300 * hills + np.random.default_rng(seed).normal(0, 30, shape), dtype=np.float32)


def marks(array: np.ndarray) -> np.ndarray:
    return rank_marks(Volume.of(np.ascontiguousarray(array), np.eye(4)))


SCANS = [scan(seed) for seed in range(5)]
MARKS = [marks(array) for array in SCANS]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a quarter of the slices", lambda a: a[:, :, 20:28]),
        ("a part of every axis", lambda a: a[4:34, 8:38, 3:20]),
        ("a mirrored part", lambda a: a[4:34, 8:38, 3:20][::-1, ::-1]),
        ("another intensity scale", lambda a: (a[:, :, 10:20] + 2000) ** 0.8 * 5 - 1024),
    ],
)
def test_a_part_is_found(what: str, change) -> None:
    assert set(shared_marks([*MARKS, marks(change(SCANS[1]))])) == {(1, 5)}, what


def test_a_small_part_of_an_image_too_large_for_all_its_marks_is_found() -> None:
    whole = scan(7, (190, 170, 134))
    assert whole.size > 4 << 20
    found = shared_marks([*MARKS, marks(whole), marks(whole[20:120, 30:130, 40:60])])
    assert set(found) == {(5, 6)}


def test_what_noise_was_added_to_or_was_interpolated_has_other_marks() -> None:
    """The limit of it: that is left to the fingerprints."""
    noisy = SCANS[1] + np.random.default_rng(9).normal(0, 30, SCANS[1].shape).astype(np.float32)
    between = (SCANS[1][:-1] + SCANS[1][1:]) / 2
    assert shared_marks([*MARKS, marks(noisy), marks(between)]) == {}


def test_strangers_share_none_and_the_number_of_marks_is_bounded() -> None:
    assert shared_marks(MARKS) == {}
    assert {len(one) for one in MARKS} == {512}


@pytest.mark.parametrize("array", [np.zeros((30, 30, 5)), np.ones((3, 3, 3)), np.tile(np.arange(40.0), (40, 3, 1)).T])
def test_constant_tiny_and_smooth_images_have_no_marks(array: np.ndarray) -> None:
    assert len(marks(array)) == 0
    assert shared_marks([marks(array), marks(array)]) == {}
