"""A fingerprint is of one size, whatever the image's, and depends neither on its axes nor on its scale."""

import numpy as np
import pytest

from bedside.core.volume import Volume
from bedside.data.fingerprint import FLIPS, SIDE, averages, fingerprint, flipped, halved


def scan() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 30, (20, 23, 18)).astype(np.float32)


def marks(array: np.ndarray, affine: np.ndarray | None = None) -> np.ndarray:
    return fingerprint(Volume.of(array, np.eye(4) if affine is None else affine))


def test_the_order_of_voxel_axes_plays_no_part() -> None:
    turned = np.zeros((4, 4))
    turned[2, 0], turned[0, 1], turned[1, 2], turned[3, 3] = -1, 1, 1, 1
    again = marks(np.transpose(scan(), (2, 0, 1))[::-1], turned)
    np.testing.assert_allclose(again, marks(scan()), atol=1e-5)


def test_gain_offset_and_constant_borders_play_no_part() -> None:
    np.testing.assert_allclose(marks(3 * scan() - 1024), marks(scan()), atol=1e-4)
    np.testing.assert_allclose(marks(np.pad(scan(), ((4, 0), (3, 9), (0, 2)), constant_values=-3000)), marks(scan()), atol=1e-6)


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.arange(27.0).reshape(3, 3, 3), np.ones((64, 2, 2))])
def test_tiny_and_constant_images_have_a_finite_fingerprint(array: np.ndarray) -> None:
    assert marks(array).shape == (SIDE,) * 3
    assert np.isfinite(marks(array)).all()


def test_averages_share_voxels_exactly() -> None:
    np.testing.assert_allclose(averages(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)
    np.testing.assert_allclose(averages(10, 1, 0.5, 1.0) @ np.arange(10), 7, atol=1e-5)


def test_halving_averages_and_every_flip_is_its_own_way_back() -> None:
    grid = marks(scan())
    assert halved(grid)[0, 0, 0] == pytest.approx(float(grid[:2, :2, :2].mean()), abs=1e-5)
    for flips in FLIPS:
        np.testing.assert_array_equal(flipped(flipped(grid, flips), flips), grid)
