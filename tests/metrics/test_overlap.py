"""Overlap: hand-counted values, empties, and what the functions refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedside.core.errors import UsageError
from bedside.metrics import overlap

MASKS = hnp.arrays(np.bool_, st.just((4, 5, 3)))


def boxes() -> tuple[np.ndarray, np.ndarray]:
    prediction, reference = np.zeros((2, 10, 10, 10), dtype=bool)
    prediction[0:4] = True  # 400 voxels
    reference[2:10] = True  # 800 voxels, 200 of them common
    return prediction, reference


def test_hand_counted_boxes_give_the_textbook_values():
    prediction, reference = boxes()
    assert overlap.dice(prediction, reference) == 2 * 200 / 1200
    assert overlap.iou(prediction, reference) == 200 / 1000


def test_volumes_are_counted_in_millilitres():
    prediction, reference = boxes()
    assert overlap.volume_difference_ml(prediction, reference, spacing_mm=(2, 1, 0.5)) == pytest.approx(-0.4, abs=1e-12)
    assert overlap.volume_error_ml(prediction, reference, spacing_mm=(2, 1, 0.5)) == pytest.approx(0.4, abs=1e-12)


def test_finding_nothing_where_nothing_is_is_perfect():
    nothing = np.zeros((3, 3, 3), dtype=bool)
    assert overlap.dice(nothing, nothing) == overlap.iou(nothing, nothing) == 1.0
    assert overlap.volume_error_ml(nothing, nothing, spacing_mm=(1, 1, 1)) == 0.0


def test_missing_and_hallucinating_score_nothing():
    nothing, something = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    for pair in [(nothing, something), (something, nothing)]:
        assert overlap.dice(*pair) == overlap.iou(*pair) == 0.0
        assert overlap.volume_error_ml(*pair, spacing_mm=(1, 1, 1)) == pytest.approx(0.027)


@given(MASKS, MASKS)
def test_dice_and_iou_are_two_forms_of_one_number(prediction, reference):
    dice, iou = overlap.dice(prediction, reference), overlap.iou(prediction, reference)
    assert dice == pytest.approx(2 * iou / (1 + iou), abs=1e-12)
    assert 0.0 <= iou <= dice <= 1.0
    assert dice == overlap.dice(reference, prediction)
    assert isinstance(dice, float)
    assert isinstance(iou, float)


def test_masks_of_zeros_and_ones_of_any_type_are_taken():
    prediction, reference = boxes()
    for kind in (np.uint8, np.int64, np.float32):
        assert overlap.dice(prediction.astype(kind), reference) == overlap.dice(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "code"),
    [
        (np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool), "METRIC_SHAPE"),
        (np.full((2, 2, 2), 2), np.zeros((2, 2, 2), bool), "METRIC_MASK"),
        (np.full((2, 2, 2), np.nan), np.zeros((2, 2, 2), bool), "METRIC_MASK"),
        (np.full((2, 2, 2), "a"), np.zeros((2, 2, 2), bool), "METRIC_MASK"),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(prediction, reference, code):
    for metric in (overlap.dice, overlap.iou):
        with pytest.raises(UsageError) as caught:
            metric(prediction, reference)
        assert caught.value.code == code


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, np.nan), (1, 1, np.inf)])
def test_a_spacing_that_is_no_length_is_refused(spacing):
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(UsageError, match="spacing"):
        overlap.volume_error_ml(mask, mask, spacing_mm=spacing)
