"""Intervals and tests: golden values, coverage, agreement with SciPy, degenerate input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bedside.core.errors import UsageError
from bedside.metrics import intervals

DIFFERENCES = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=2, max_size=25)


# --- bootstrap interval of the mean ---------------------------------------------------------------------------------------


def test_the_interval_agrees_with_scipy_to_resampling_error():
    values = np.random.default_rng(1).beta(20, 2, 60)
    ours = intervals.bootstrap_interval(values, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.001)
    assert ours.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (ours.n, ours.confidence) == (60, 0.95)


@pytest.mark.parametrize(
    ("name", "draw", "truth"),
    [
        ("normal", lambda chance, n: chance.normal(0.9, 0.05, n), 0.9),
        ("left-skewed like Dice", lambda chance, n: chance.beta(18, 2, n), 0.9),
    ],
)
def test_ninety_five_per_cent_intervals_cover_the_truth_in_93_to_97_of_100_studies(name, draw, truth):
    chance, covered, studies = np.random.default_rng(3), 0, 1500
    for seed in range(studies):
        found = intervals.bootstrap_interval(draw(chance, 60), resamples=500, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / studies <= 0.97, name


def test_the_same_values_and_seed_give_the_same_interval():
    values = np.random.default_rng(4).normal(size=30)
    assert intervals.bootstrap_interval(values, seed=5) == intervals.bootstrap_interval(values, seed=5)
    assert intervals.bootstrap_interval(values, seed=5) != intervals.bootstrap_interval(values, seed=6)


def test_more_confidence_gives_a_wider_interval():
    values = np.random.default_rng(4).normal(size=30)
    narrow, wide = (intervals.bootstrap_interval(values, confidence=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_the_interval_holds_the_mean_and_lies_within_the_values(values):
    found = intervals.bootstrap_interval(values, resamples=200)
    slack = 1e-6
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    assert found.n == len(values)
    assert math.isfinite(found.mean)


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.9], [0.5] * 40])
def test_too_few_or_equal_values_give_their_range_and_no_warning(values):
    found = intervals.bootstrap_interval(values)
    assert (found.low, found.high) == (min(values), max(values))
    assert found.low <= found.mean <= found.high


def test_many_patients_need_little_memory():
    found = intervals.bootstrap_interval(np.random.default_rng(0).normal(size=50_000), resamples=200)
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(50_000), rel=0.3)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [0.1, float("inf")], [[0.1, 0.2]]])
def test_a_failure_is_never_left_out(values):
    with pytest.raises(UsageError, match="patient"):
        intervals.bootstrap_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_a_confidence_in_per_cent_is_refused(confidence):
    with pytest.raises(UsageError, match="confidence"):
        intervals.bootstrap_interval([0.1, 0.2, 0.3], confidence=confidence)


# --- studentised lower bound ----------------------------------------------------------------------------------------------


def test_for_normal_values_the_lower_bound_is_that_of_student():
    values = np.random.default_rng(7).normal(0.0, 0.02, 400)
    student = values.mean() - stats.t.ppf(0.95, 399) * values.std(ddof=1) / np.sqrt(400)
    assert intervals.studentised_lower_bound(values, resamples=20_000) == pytest.approx(student, abs=2e-4)


def test_a_long_left_tail_pulls_the_bound_below_that_of_student():
    values = 0.03 * (1 - np.random.default_rng(8).exponential(size=40))
    student = values.mean() - stats.t.ppf(0.95, 39) * values.std(ddof=1) / np.sqrt(40)
    assert intervals.studentised_lower_bound(values) < student


def test_the_lower_bound_of_equal_values_is_that_value():
    assert intervals.studentised_lower_bound([-0.01] * 12) == -0.01


def test_one_catastrophe_among_equal_values_bounds_nothing():
    assert intervals.studentised_lower_bound([0.0] * 29 + [-0.3]) == -math.inf


def test_one_value_has_no_lower_bound():
    with pytest.raises(UsageError, match="at least 2"):
        intervals.studentised_lower_bound([0.1])


# --- Clopper-Pearson ------------------------------------------------------------------------------------------------------


def test_twenty_nine_patients_without_an_event_bound_ten_per_cent_and_twenty_eight_do_not():
    assert intervals.clopper_pearson_upper(0, 29) == pytest.approx(1 - 0.05 ** (1 / 29), abs=1e-12)
    assert intervals.clopper_pearson_upper(0, 29) <= 0.10 < intervals.clopper_pearson_upper(0, 28)
    assert intervals.patients_needed(0.10) == 29


@given(st.integers(1, 200), st.data())
def test_the_upper_bound_is_scipys(count, data):
    events = data.draw(st.integers(0, count))
    theirs = stats.binomtest(events, count, alternative="less").proportion_ci(0.95, method="exact").high
    assert intervals.clopper_pearson_upper(events, count) == pytest.approx(theirs, abs=1e-9)


@given(st.floats(0.01, 0.9), st.floats(0.5, 0.999))
def test_patients_needed_is_the_smallest_number_that_can_pass(share, confidence):
    count = intervals.patients_needed(share, confidence=confidence)
    assert intervals.clopper_pearson_upper(0, count, confidence=confidence) <= share + 1e-9
    if count > 1:
        assert intervals.clopper_pearson_upper(0, count - 1, confidence=confidence) >= share - 1e-9


@pytest.mark.parametrize(("events", "count"), [(-1, 10), (11, 10), (0, 0)])
def test_counts_that_make_no_sense_are_refused(events, count):
    with pytest.raises(UsageError, match="proportion"):
        intervals.clopper_pearson_upper(events, count)


# --- Wilcoxon -------------------------------------------------------------------------------------------------------------

HAMILTON_BEFORE = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
HAMILTON_AFTER = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)


def test_hollander_and_wolfes_depression_scores_give_the_published_statistic():
    """Origin: Hollander & Wolfe (1973), table 3.1; R's ?wilcox.test prints V = 40, p-value = 0.01953."""
    differences = np.subtract(HAMILTON_BEFORE, HAMILTON_AFTER)
    assert intervals.wilcoxon_statistic(differences) == 40.0
    assert intervals.wilcoxon_p(differences) == 0.01953125


@given(st.integers(3, 50), st.integers(0, 2**32 - 1))
def test_without_ties_the_p_value_is_scipys_exact_one(count, seed):
    values = np.random.default_rng(seed).normal(0.1, 1.0, count)
    theirs = stats.wilcoxon(values, alternative="greater", method="exact")
    assert intervals.wilcoxon_statistic(values) == theirs.statistic
    assert intervals.wilcoxon_p(values) == pytest.approx(theirs.pvalue, rel=1e-9, abs=1e-15)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=20))
def test_with_ties_and_zeros_the_statistic_is_the_sum_of_mid_ranks_with_zeros_split(values):
    ranks = stats.rankdata(np.abs(values))
    expected = sum(rank * (1.0 if value > 0 else 0.5 if value == 0 else 0.0) for rank, value in zip(ranks, values, strict=True))
    assert intervals.wilcoxon_statistic([float(value) for value in values]) == expected


def test_many_patients_are_tested_with_the_normal_distribution_as_in_scipy():
    values = np.random.default_rng(9).normal(0.05, 1.0, 600)
    theirs = stats.wilcoxon(values, alternative="greater", correction=True, method="asymptotic").pvalue
    assert intervals.wilcoxon_p(values) == pytest.approx(theirs, rel=1e-6)


def test_the_exact_and_the_normal_distribution_meet_where_one_takes_over(monkeypatch):
    values = np.random.default_rng(10).normal(0.1, 1.0, intervals.EXACT_UP_TO)
    exact = intervals.wilcoxon_p(values)
    monkeypatch.setattr(intervals, "EXACT_UP_TO", 0)
    assert intervals.wilcoxon_p(values) == pytest.approx(exact, rel=0.02)


@given(DIFFERENCES, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_margin_never_raises_the_p_value(values, margin, more):
    assert intervals.wilcoxon_p(values, margin=margin + more) <= intervals.wilcoxon_p(values, margin=margin)


def test_scipys_p_value_may_rise_with_the_margin_which_is_why_ours_is_our_own():
    """At the wider margin two differences tie and SciPy leaves the exact distribution."""
    values, margins = np.array([-0.02] * 2 + [0.01] * 6 + [0.05] * 6), (0.0199, 0.02)
    theirs = [stats.wilcoxon(values + margin, alternative="greater").pvalue for margin in margins]
    ours = [intervals.wilcoxon_p(values, margin=margin) for margin in margins]
    assert theirs[1] > theirs[0]
    assert ours[1] <= ours[0]


def test_equal_models_are_non_inferior_by_any_margin_but_not_superior():
    assert intervals.wilcoxon_p([0.0] * 20, margin=0.01) == pytest.approx(2.0**-20)
    assert intervals.wilcoxon_p([0.0] * 20) > 0.4
