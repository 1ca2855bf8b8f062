"""One scan is found again after what happens to scans on their way, and two patients are not taken for one."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from bedside.core.volume import Volume
from bedside.data.alike import search, similarity
from bedside.data.alike_align import aligned, detail_likeness, texture_likeness
from bedside.data.alike_index import Index
from bedside.data.fingerprint import FLIPS, SIDE, fingerprint
from bedside.ingest.leaks import SAME_SCAN, STANDS_OUT


def patient(seed: int, shape: tuple[int, int, int] = (40, 46, 36)) -> np.ndarray:
    """A body with organs of its own, smooth detail at several sizes inside a common outline, and a scanner's noise."""
    chance = np.random.default_rng(seed)
    detail = sum(gaussian_filter(chance.standard_normal(shape), sigma) * sigma**1.5 for sigma in (1, 2, 4))
    middle = [np.linspace(-1, 1, n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(shape)]
    body = 1 / (1 + np.exp(12 * (sum(part**2 for part in middle) - 0.8)))
    return np.asarray(1000 * body * (1 + 0.25 * detail) + chance.normal(0, 8, shape), dtype=np.float32)


def marks(array: np.ndarray) -> np.ndarray:
    return fingerprint(Volume.of(array, np.eye(4)))


def noisy(array: np.ndarray, share: float) -> np.ndarray:
    return array + np.random.default_rng(9).normal(0, share * np.ptp(np.percentile(array, [1, 99])), array.shape)


PATIENTS = [patient(seed) for seed in range(5)]
PRINTS = [marks(array) for array in PATIENTS]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a crop to 70 %", lambda a: a[8:-4, 10:-4, :-11]),
        ("flip", lambda a: a[::-1]),
        ("two flips", lambda a: a[:, ::-1, ::-1]),
        ("smaller", lambda a: zoom(a, 0.6, order=1)),
        ("larger", lambda a: zoom(a, (1.6, 1.1, 1.2), order=1)),
        ("gamma", lambda a: (a / a.max()).clip(0) ** 0.6),
        ("linear", lambda a: 3 * a - 1024),
        ("noise of 10 %", lambda a: noisy(a, 0.1)),
        ("padded", lambda a: np.pad(a, ((4, 0), (3, 9), (0, 2)), constant_values=-3000)),
        ("a crop and noise", lambda a: noisy(a[3:-2, 4:-3, :-5], 0.02)),
        ("a crop, flipped, of another grid and scale", lambda a: zoom(a[2:-3, :-5, 4:][:, ::-1], 1.1, order=1).clip(0) ** 0.8),
    ],
)
def test_one_scan_is_found_again_after(what: str, change) -> None:
    copies = [marks(change(array)) for array in PATIENTS[:2]]
    found = search([*PRINTS, *copies], least=SAME_SCAN, lead=STANDS_OUT)
    assert {(match.first, match.second) for match in found} == {(0, 5), (1, 6)}, what


def test_two_patients_are_not_one() -> None:
    assert search(PRINTS, least=SAME_SCAN, lead=STANDS_OUT) == ()


def test_two_images_alone_are_compared_with_what_strangers_are_usually_like() -> None:
    assert [match.first for match in search([PRINTS[0], marks(PATIENTS[0][::-1])], least=SAME_SCAN, lead=STANDS_OUT)] == [0]
    assert search(PRINTS[:2], least=SAME_SCAN, lead=STANDS_OUT) == ()


def test_three_copies_of_one_scan_do_not_hide_each_other() -> None:
    copies = [marks(noisy(PATIENTS[0], 0.03)), marks(PATIENTS[0][3:])]
    found = search([*PRINTS, *copies], least=SAME_SCAN, lead=STANDS_OUT)
    assert {(match.first, match.second) for match in found} == {(0, 5), (0, 6), (5, 6)}


def test_images_that_differ_as_little_from_others_do_not_stand_out() -> None:
    shape = PATIENTS[0].shape
    family = [marks(PATIENTS[0] + 1200 * gaussian_filter(np.random.default_rng(n).standard_normal(shape), 3)) for n in range(9)]
    assert search(family, least=SAME_SCAN, lead=-np.inf), "they are alike"
    assert search(family, least=SAME_SCAN, lead=STANDS_OUT) == ()


def test_a_match_names_the_pair_the_flip_and_the_window() -> None:
    copy = marks(PATIENTS[2][:, 8:, :][::-1])
    (match,) = search([*PRINTS, copy], least=SAME_SCAN, lead=STANDS_OUT)
    assert (match.first, match.second) == (2, 5)
    assert match.flips == (True, False, False)
    assert similarity(PRINTS[2], copy) == pytest.approx(match.similarity, abs=0.02)


def test_a_window_is_moved_to_where_it_lies() -> None:
    whole, part = PRINTS[0], marks(PATIENTS[0][4:36, 6:40, 2:30])
    start = np.tile([0.1, 0.9], (3, 1))[np.newaxis]
    score, edges = aligned(whole[np.newaxis], part[np.newaxis], start, steps=8)
    np.testing.assert_allclose(edges[0], [[4 / 40, 36 / 40], [6 / 46, 40 / 46], [2 / 36, 30 / 36]], atol=0.01)
    assert score[0] > 0.98
    assert detail_likeness(whole[np.newaxis], part[np.newaxis], edges)[0] > SAME_SCAN


def test_texture_is_shared_by_copies_and_not_by_patients() -> None:
    place = np.tile([0.0, 1.0], (3, 1))
    assert texture_likeness(PRINTS[0], marks(noisy(PATIENTS[0], 0.02)), place) > 0.5
    assert max(abs(texture_likeness(PRINTS[0], other, place)) for other in PRINTS[1:]) < 0.2
    assert texture_likeness(PRINTS[0], PRINTS[0], place + 3) == -1.0


def test_the_index_proposes_a_bounded_number_of_images_and_the_copy_first() -> None:
    index = Index([*PRINTS, marks(PATIENTS[3][6:, :-8][:, :, ::-1])])
    proposed = list(index.candidates(3, PRINTS[3], most=3))
    assert len({one.other for one in proposed}) == 3
    assert len(proposed) <= 6
    assert proposed[0].other == 5
    assert proposed[0].flips == FLIPS[1]


@pytest.mark.parametrize("array", [np.zeros((5, 5, 5)), np.arange(27.0).reshape(3, 3, 3), np.ones((64, 2, 2))])
def test_tiny_and_constant_images_are_searched_too(array: np.ndarray) -> None:
    one = marks(array)
    assert one.shape == (SIDE,) * 3
    assert search([one, one], least=2.0, lead=0.0) == ()
    assert np.isfinite(similarity(one, one))
