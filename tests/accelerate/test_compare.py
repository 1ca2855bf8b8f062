"""Claims about the numbers of a comparison and the rule that judges them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bedside.accelerate.compare import (
    CaseDifference,
    Comparison,
    Seconds,
    StructureDice,
    compare_case,
    judge,
    seconds_of,
    summarise,
    timed,
)
from bedside.core.case import Prediction
from bedside.core.errors import IntegrityError

STRUCTURES = ("background", "anterior", "posterior")


def answer(labels, output):
    return Prediction(np.asarray(labels, dtype=np.uint8).reshape(-1, 1, 1), "m", "c"), np.asarray(output, dtype=np.float32)


def measured(*, change=0.0, slow=2.0, fast=1.0):
    return Comparison(
        max_difference=0.1,
        mean_difference=0.01,
        voxels=100,
        flips=3,
        flip_share=0.03,
        dice={
            "anterior": StructureDice(baseline=0.9, stage=0.9, difference=0.0),
            "posterior": StructureDice(baseline=0.9, stage=0.9 + change, difference=change),
        },
        seconds_baseline=Seconds(p50=slow, p95=slow, n=3),
        seconds_stage=Seconds(p50=fast, p95=fast, n=3),
        speed_ratio=slow / fast,
    )


def test_one_case_by_hand():
    baseline = answer([0, 1, 1, 2], np.zeros((3, 4, 1, 1)))
    shifted = np.zeros((3, 4, 1, 1))
    shifted[1, 2] = -0.6
    stage = answer([0, 1, 0, 2], shifted)
    found = compare_case(baseline, stage, np.array([0, 1, 1, 0]).reshape(-1, 1, 1), structures=STRUCTURES)
    assert found.largest == pytest.approx(0.6)
    assert found.total == pytest.approx(0.6)
    assert (found.values, found.voxels, found.flips) == (12, 4, 1)
    assert found.dice == {"anterior": (1.0, pytest.approx(2 / 3)), "posterior": (0.0, 0.0)}


def test_cases_of_different_size_weigh_by_their_voxels():
    small = CaseDifference(largest=0.5, total=0.5, values=1, voxels=1, flips=1, dice={"anterior": (1.0, 0.0)})
    large = CaseDifference(largest=0.1, total=0.9, values=99, voxels=99, flips=0, dice={"anterior": (0.5, 0.5)})
    found = summarise([small, large], [2.0, 4.0], [1.0, 2.0])
    assert found.max_difference == 0.5
    assert found.mean_difference == pytest.approx(1.4 / 100)
    assert (found.voxels, found.flips, found.flip_share) == (100, 1, 0.01)
    assert found.dice["anterior"] == StructureDice(baseline=0.75, stage=0.25, difference=-0.5)
    assert found.speed_ratio == 2.0


def test_the_baseline_compared_with_itself_differs_in_nothing():
    same = answer([0, 1, 2], np.random.default_rng(0).normal(size=(3, 3, 1, 1)))
    found = compare_case(same, same, np.array([0, 1, 1]).reshape(-1, 1, 1), structures=STRUCTURES)
    assert (found.largest, found.total, found.flips) == (0.0, 0.0, 0)
    assert all(before == after for before, after in found.dice.values())


def test_outputs_of_different_shape_are_not_compared():
    with pytest.raises(IntegrityError, match="must be equal"):
        compare_case(
            answer([0], np.zeros((3, 1, 1, 1))), answer([0], np.zeros((2, 1, 1, 1))), np.zeros((1, 1, 1)), structures=["a"]
        )


def test_percentiles_are_those_of_the_runs():
    found = seconds_of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (found.p50, found.n) == (3.0, 5)
    assert found.p95 == pytest.approx(4.8)


def test_a_stage_that_is_faster_and_answers_the_same_is_accepted():
    accepted, because = judge(measured(change=0.001), max_dice_change=0.005)
    assert accepted
    assert because == "accepted: 2.00 times as fast (p50 1 s against 2 s), Dice moves by at most 0.001"


@pytest.mark.parametrize("change", [0.007, -0.007])
def test_a_structure_whose_dice_moves_is_named_whichever_way_it_moves(change):
    accepted, because = judge(measured(change=change), max_dice_change=0.005)
    assert not accepted
    assert because == "rejected: Dice of posterior moves by 0.007 > 0.005"


@pytest.mark.parametrize("fast", [2.0, 2.1])
def test_a_stage_that_is_not_faster_is_rejected_with_both_numbers(fast):
    accepted, because = judge(measured(fast=fast), max_dice_change=0.005)
    assert not accepted
    assert because == f"rejected: not faster here (p50 {fast:.4g} s against 2 s)"


def test_every_reason_is_given():
    _, because = judge(measured(change=0.1, fast=3.0), max_dice_change=0.005)
    assert "Dice of posterior" in because
    assert "not faster here" in because


def test_a_difference_that_is_not_a_number_is_never_accepted():
    accepted, _ = judge(measured(change=float("nan")), max_dice_change=1.0)
    assert not accepted


@given(change=st.floats(-1, 1), fast=st.floats(0.01, 5), limit=st.floats(0, 1), more=st.floats(0, 1))
def test_a_wider_limit_never_turns_an_accepted_stage_away(change, fast, limit, more):
    given_numbers = measured(change=change, fast=fast)
    assume(judge(given_numbers, max_dice_change=limit)[0])
    assert judge(given_numbers, max_dice_change=limit + more)[0]


@given(change=st.floats(-0.01, 0.01), fast=st.floats(0.01, 5), faster=st.floats(0.1, 1))
def test_being_faster_still_never_turns_an_accepted_stage_away(change, fast, faster):
    assume(judge(measured(change=change, fast=fast), max_dice_change=0.005)[0])
    assert judge(measured(change=change, fast=fast * faster), max_dice_change=0.005)[0]


def test_a_run_is_timed_once():
    calls = []
    assert timed(lambda: calls.append(1)) >= 0
    assert calls == [1]
