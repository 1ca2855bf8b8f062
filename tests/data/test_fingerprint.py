"""One scan is found again after what happens to scans on their way, and two patients are not taken for one."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from bedside.core.volume import Volume
from bedside.data.fingerprint import SIDE, fingerprint, search, similarity
from bedside.ingest.leaks import SAME_SCAN


def patient(seed: int, shape: tuple[int, int, int] = (40, 46, 36)) -> np.ndarray:
    """A body with organs of its own, smooth detail at several sizes inside a common outline, and a scanner's noise."""
    chance = np.random.default_rng(seed)
    detail = sum(gaussian_filter(chance.standard_normal(shape), sigma) * sigma**1.5 for sigma in (1, 2, 4))
    middle = [np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    body = 1 / (1 + np.exp(12 * (sum(part**2 for part in middle) - 0.8)))
    return np.asarray(1000 * body * (1 + 0.25 * detail) + chance.normal(0, 8, shape), dtype=np.float32)


def marks(array: np.ndarray, affine: np.ndarray | None = None) -> np.ndarray:
    return fingerprint(Volume.of(array, np.eye(4) if affine is None else affine))


PATIENTS = [patient(seed) for seed in range(5)]
PRINTS = [marks(array) for array in PATIENTS]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("crop", lambda a: a[3:-4, 6:-1, :-5]),
        ("flip", lambda a: a[::-1]),
        ("two flips", lambda a: a[:, ::-1, ::-1]),
        ("smaller", lambda a: zoom(a, 0.8, order=1)),
        ("larger", lambda a: zoom(a, (1.25, 1.1, 1.2), order=1)),
        ("gamma", lambda a: (a / a.max()).clip(0) ** 0.7),
        ("linear", lambda a: 3 * a - 1024),
        ("noise", lambda a: a + np.random.default_rng(9).normal(0, 20, a.shape)),
        ("padded", lambda a: np.pad(a, ((4, 0), (3, 9), (0, 2)), constant_values=-3000)),
        ("a crop, flipped, of another grid and scale", lambda a: zoom(a[2:-3, :-5, 4:][:, ::-1], 1.1, order=1).clip(0) ** 0.8),
    ],
)
def test_one_scan_is_found_again_after(what: str, change) -> None:
    for array, own in zip(PATIENTS[:2], PRINTS, strict=False):
        assert similarity(own, marks(change(array))) >= SAME_SCAN, what


def test_two_patients_are_not_one() -> None:
    assert search(PRINTS, least=SAME_SCAN) == ()


def test_a_match_names_the_pair_the_flip_and_the_window() -> None:
    copy = marks(PATIENTS[2][:, 4:, :][::-1])
    (match,) = search([*PRINTS, copy], least=SAME_SCAN)
    assert (match.first, match.second) == (2, 5)
    assert match.flips == (True, False, False)


def test_the_order_of_voxel_axes_plays_no_part() -> None:
    turned = np.zeros((4, 4))
    turned[2, 0], turned[0, 1], turned[1, 2], turned[3, 3] = -1, 1, 1, 1
    again = marks(np.transpose(PATIENTS[0], (2, 0, 1))[::-1], turned)
    np.testing.assert_allclose(again, PRINTS[0], atol=1e-5)


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.arange(27.0).reshape(3, 3, 3), np.ones((64, 2, 2))])
def test_tiny_and_constant_images_have_a_finite_fingerprint(array: np.ndarray) -> None:
    one = marks(array)
    assert one.shape == (SIDE,) * 3
    assert np.isfinite(one).all()
    assert search([one, marks(array)], least=2.0) == ()
