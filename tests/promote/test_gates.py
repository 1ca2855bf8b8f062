"""Absolute, latency and non-inferiority: each lets through and refuses, and says why with numbers."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bedside.core.evidence import CaseTiming
from bedside.core.ledger import Event
from bedside.promote.gates.absolute import Absolute
from bedside.promote.gates.latency import Latency
from bedside.promote.gates.non_inferiority import NonInferiority

# --- absolute -------------------------------------------------------------------------------------------------------------


def test_a_floor_lets_a_good_model_through_and_refuses_a_bad_one(shown, evidence_of, near):
    gate = Absolute(metric="dice", floor=0.88)
    good, bad = gate.judge(shown(evidence_of(near(0.90)))), gate.judge(shown(evidence_of(near(0.85))))
    assert good.passed
    assert not bad.passed
    assert bad.because.startswith("Mean dice averaged over structures is 0.8498 (95% interval")
    assert "n=30" in bad.because
    assert "breaks the limit of at least 0.88" in bad.because
    assert bad.numbers["limit"] == 0.88
    assert bad.numbers["mean"] == pytest.approx(0.85, abs=1e-3)


def test_a_ceiling_is_for_metrics_where_lower_is_better(shown, evidence_of, near):
    gate = Absolute(metric="hd95_mm", ceiling=2.0)
    far, close = (gate.judge(shown(evidence_of(near(value), metric="hd95_mm"))) for value in (3.0, 1.5))
    assert close.passed
    assert not far.passed
    assert "breaks the limit of at most 2 mm" in far.because


def test_one_structure_can_be_held_to_its_own_floor(shown, evidence_of, near):
    scores = {"femur": near(0.95)["femur"], "pelvis": near(0.70)["pelvis"]}
    verdicts = {
        label: Absolute(floor=0.8, label=label).judge(shown(evidence_of(scores))) for label in ("femur", "pelvis", "mean")
    }
    assert {label: verdict.passed for label, verdict in verdicts.items()} == {"femur": True, "pelvis": False, "mean": True}
    assert "of pelvis" in verdicts["pelvis"].because


@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_the_unfavourable_end_of_the_interval_is_the_stricter_limit(shown, evidence_of, near, metric):
    evidence = evidence_of(near(0.9), metric=metric)
    mean = evidence.summaries[metric]["mean"].mean
    limit = {"floor": mean} if metric == "dice" else {"ceiling": mean}
    assert Absolute(metric=metric, **limit).judge(shown(evidence)).passed
    assert not Absolute(metric=metric, use_lower_bound=True, **limit).judge(shown(evidence)).passed


def test_a_missed_structure_refuses_even_a_good_mean(shown, evidence_of, near):
    evidence = evidence_of(near(0.95), missed={"femur": ("p01",), "pelvis": ("p01", "p02")})
    refused = Absolute(floor=0.8).judge(shown(evidence))
    assert not refused.passed
    assert "3 structures were missed where at most 0 may be" in refused.because
    assert Absolute(floor=0.8, max_missed=3).judge(shown(evidence)).passed
    assert not Absolute(floor=0.8, max_missed=2).judge(shown(evidence)).passed
    assert Absolute(floor=0.8, label="femur", max_missed=1).judge(shown(evidence)).passed


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Absolute(metric="iou", floor=0.5), "was not measured"),
        (Absolute(metric="dice", ceiling=0.5), "must set a floor"),
        (Absolute(metric="dice", floor=0.5, label="skull"), "no dice of 'skull'"),
    ],
)
def test_a_limit_that_protects_nobody_refuses(shown, evidence_of, near, gate, words):
    verdict = gate.judge(shown(evidence_of(near(0.99))))
    assert not verdict.passed
    assert words in verdict.because


def test_a_mean_that_is_no_number_refuses(shown, evidence_of, near):
    evidence = evidence_of(near(0.9))
    broken = evidence.summaries["dice"]["mean"].model_copy(update={"mean": float("nan")})
    evidence = evidence.model_copy(update={"summaries": {"dice": {"mean": broken}}})
    assert not Absolute(floor=0.1).judge(shown(evidence)).passed


@pytest.mark.parametrize(
    "settings_", [{}, {"floor": 0.5, "ceiling": 0.6}, {"floor": float("nan")}, {"floor": 0.5, "max_missed": -1}]
)
def test_a_gate_without_one_clear_limit_cannot_be_written_down(settings_):
    with pytest.raises(ValidationError):
        Absolute(**settings_)


# --- latency --------------------------------------------------------------------------------------------------------------


def timings(*seconds: float) -> dict[str, CaseTiming]:
    return {f"c{number}": CaseTiming(seconds=value, peak_memory_mb=1.0) for number, value in enumerate(seconds)}


def test_slow_answers_refuse_and_the_sentence_says_how_slow(shown, evidence_of, near):
    evidence = evidence_of(near(0.9), timings=timings(*[1.0] * 90, *[5.0] * 10))
    refused, passed = (Latency(p95_seconds=limit).judge(shown(evidence)) for limit in (4.9, 5.0))
    assert passed.passed
    assert not refused.passed
    assert refused.because == "95 of 100 cases took at most 5 s with torch (n=100), which exceeds the limit of 4.9 s."


def test_a_few_slow_cases_are_what_a_percentile_forgives(shown, evidence_of, near):
    assert Latency(p95_seconds=1.0).judge(shown(evidence_of(near(0.9), timings=timings(*[1.0] * 97, *[60.0] * 3)))).passed


def test_timings_of_another_engine_do_not_count(shown, evidence_of, near):
    refused = Latency(p95_seconds=5.0, engine="onnxruntime").judge(shown(evidence_of(near(0.9))))
    assert not refused.passed
    assert "the rule asks for onnxruntime" in refused.because
    assert Latency(p95_seconds=5.0, engine="torch").judge(shown(evidence_of(near(0.9)))).passed


@pytest.mark.parametrize("seconds", [(), (1.0, float("nan")), (float("inf"),)])
def test_what_was_not_timed_is_not_in_time(shown, evidence_of, near, seconds):
    assert not Latency(p95_seconds=10.0).judge(shown(evidence_of(near(0.9), timings=timings(*seconds)))).passed


# --- non-inferiority ------------------------------------------------------------------------------------------------------


def test_the_first_model_has_nothing_to_be_inferior_to_and_says_so(shown, evidence_of, near):
    verdict = NonInferiority(margin=0.01).judge(shown(evidence_of(near(0.5))))
    assert verdict.passed
    assert verdict.because == "Nothing is in production yet, so there is no model that this one could be inferior to."


def test_an_equal_model_passes_and_a_worse_one_is_refused_by_the_structure_that_is_worse(shown, evidence_of, near):
    baseline = evidence_of(near(0.9), model="b" * 64)
    equal = NonInferiority(margin=0.01).judge(shown(evidence_of(near(0.899)), baseline))
    assert equal.passed
    assert "femur: mean change -0.001 (n=30)" in equal.because
    worse = evidence_of({"femur": near(0.9)["femur"], "pelvis": near(0.87)["pelvis"]})
    refused = NonInferiority(margin=0.02).judge(shown(worse, baseline))
    assert not refused.passed
    assert "For pelvis it is not shown to be non-inferior to the model in production (bbbbbbbbbbbb)" in refused.because
    assert "femur" not in refused.because
    assert refused.numbers["labels"]["pelvis"]["mean"] == pytest.approx(-0.03)
    assert refused.numbers["labels"]["femur"]["passed"]


def test_where_lower_is_better_the_sign_turns(shown, evidence_of, near):
    gate = NonInferiority(metric="hd95_mm", margin=0.2, catastrophic_drop=5.0)
    baseline = evidence_of(near(2.0), metric="hd95_mm")
    assert gate.judge(shown(evidence_of(near(1.0), metric="hd95_mm"), baseline)).passed
    assert not gate.judge(shown(evidence_of(near(3.0), metric="hd95_mm"), baseline)).passed


def test_one_patient_in_ten_that_is_harmed_refuses_although_the_median_gained(shown, evidence_of, near):
    baseline, scores = evidence_of(near(0.85)), near(0.86)
    for patient in ("p03", "p13", "p23"):
        scores["femur"][patient] -= 0.4
    refused = NonInferiority(margin=0.05).judge(shown(evidence_of(scores), baseline))
    assert not refused.passed
    assert "3 lost more than 0.1" in refused.because


def test_too_few_patients_refuse_unless_the_rule_gives_up_the_tail_openly(shown, evidence_of, near):
    few = {label: dict(list(row.items())[:20]) for label, row in near(0.9).items()}
    pair = shown(evidence_of(few), evidence_of(few))
    refused = NonInferiority(margin=0.01).judge(pair)
    assert not refused.passed
    assert "too few patients: n=20, the rule needs 29" in refused.because
    assert NonInferiority(margin=0.01, catastrophic=False).judge(pair).passed


def test_a_margin_below_what_the_seed_alone_moves_is_said_and_decides_nothing(shown, evidence_of, near):
    pair = shown(evidence_of(near(0.9)), evidence_of(near(0.9), model="b" * 64))
    spread = {"metric": "dice", "seeds": 3, "sd": 0.005, "noise_floor": 0.0139}
    event = Event(seq=1, time="", actor="", action="seeds_compared", inputs={}, outputs={}, facts=spread, prev="", hash="")
    noisy = replace(pair, history=(*pair.history, event))
    warned = NonInferiority(margin=0.01).judge(noisy)
    assert warned.passed
    assert "below the noise floor of 0.0139 dice" in warned.because
    assert warned.numbers["noise_floor"] == 0.0139
    for quiet in (NonInferiority(margin=0.02).judge(noisy), NonInferiority(margin=0.01).judge(pair)):
        assert "noise floor" not in quiet.because


def test_only_the_named_structures_are_compared(shown, evidence_of, near):
    worse = evidence_of({"femur": near(0.9)["femur"], "pelvis": near(0.5)["pelvis"]})
    baseline = evidence_of(near(0.9))
    assert NonInferiority(margin=0.01, labels=("femur",)).judge(shown(worse, baseline)).passed
    unknown = NonInferiority(margin=0.01, labels=("femur", "skull")).judge(shown(worse, baseline))
    assert not unknown.passed
    assert "no dice of skull" in unknown.because


def test_other_patients_or_another_metric_are_no_pair(shown, evidence_of, near):
    few = {label: dict(list(row.items())[1:]) for label, row in near(0.9).items()}
    unpaired = NonInferiority(margin=0.01).judge(shown(evidence_of(near(0.9)), evidence_of(few)))
    assert not unpaired.passed
    assert "same patients" in unpaired.because
    other = NonInferiority(margin=0.01, metric="iou").judge(shown(evidence_of(near(0.9)), evidence_of(near(0.9))))
    assert not other.passed
    assert "not measured" in other.because


def test_a_value_that_is_no_number_refuses(shown, evidence_of, near):
    scores = near(0.9)
    evidence = evidence_of(scores)
    broken = {"dice": {**evidence.scores["dice"], "femur": {**scores["femur"], "p00": float("nan")}}}
    verdict = NonInferiority(margin=0.01).judge(shown(evidence.model_copy(update={"scores": broken}), evidence))
    assert not verdict.passed
    assert "For femur" in verdict.because


@given(st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=30), st.floats(0.005, 0.3), st.floats(0.0, 0.3))
@settings(max_examples=40)
def test_a_wider_margin_never_turns_a_pass_into_a_fail(shown, evidence_of, near, changes, margin, more):
    baseline, scores = evidence_of(near(0.6, labels=("femur",))), near(0.6, labels=("femur",))
    candidate = {"femur": {p: value + change for (p, value), change in zip(scores["femur"].items(), changes, strict=True)}}
    pair = shown(evidence_of(candidate), baseline)
    narrow, wide = (
        NonInferiority(margin=width, catastrophic_drop=0.3, resamples=1000).judge(pair) for width in (margin, margin + more)
    )
    assert wide.passed >= narrow.passed


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=30)
def test_a_lower_floor_never_turns_a_pass_into_a_fail(shown, evidence_of, near, value, floor, less):
    pair = shown(evidence_of(near(value)))
    assert Absolute(floor=floor - less).judge(pair).passed >= Absolute(floor=floor).judge(pair).passed
