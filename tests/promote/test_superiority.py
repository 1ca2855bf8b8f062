"""The gate that asks for a gain: shown over patients, and more than the seed alone explains."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bedside.core.digest import digest_json
from bedside.core.ledger import Event
from bedside.promote.gates.superiority import Superiority
from bedside.promote.noise import noise_floor
from bedside.promote.pipeline import Given

OLD = "b" * 64
DATASET = digest_json("dataset")
"""Of the evidence in conftest.py."""


def compared(floor: object, metric: str = "dice", dataset: str = DATASET) -> Event:
    """What `bedside train --seeds` leaves in the ledger."""
    facts = {"metric": metric, "seeds": 3, "sd": 0.005, "noise_floor": floor}
    inputs = {"dataset": dataset, "study": "s" * 64}
    return Event(seq=1, time="", actor="", action="seeds_compared", inputs=inputs, outputs={}, facts=facts, prev="", hash="")


@pytest.fixture
def pair(shown, evidence_of, near) -> Callable[..., Given]:
    """A candidate whose every patient gains about so much, and the seeds' noise floor."""

    def made(gain: float, floor: float | None = 0.0139, **changes: object) -> Given:
        given = shown(evidence_of(near(0.88 + gain), **changes), evidence_of(near(0.88), model=OLD, **changes))
        return given if floor is None else replace(given, history=(*given.history, compared(floor)))

    return made


def test_a_gain_above_what_the_seed_explains_passes(pair):
    verdict = Superiority().judge(pair(0.02))
    assert verdict.passed
    assert verdict.because == (
        "Mean dice averaged over structures gains +0.02 over the model in production (bbbbbbbbbbbb, n=30); the lower bound 0.02"
        " is above 0, and the gain is above the 0.0139 that the seed alone explains."
    )
    assert verdict.numbers["noise_floor"] == 0.0139
    assert verdict.numbers["gain"] == pytest.approx(0.02)


def test_a_gain_that_patients_show_and_the_seed_explains_is_refused(pair):
    refused = Superiority().judge(pair(0.01))
    assert not refused.passed
    assert "the lower bound 0.01 is above 0, and the gain is not above the 0.0139 that the seed alone explains" in refused.because
    assert Superiority().judge(pair(0.01, floor=0.005)).passed


def test_the_newest_spread_of_seeds_counts_and_only_of_the_same_metric(pair):
    given = pair(0.01, floor=0.005)
    assert not Superiority().judge(replace(given, history=(*given.history, compared(0.02)))).passed
    assert Superiority().judge(replace(given, history=(*given.history, compared(0.02, "hd95_mm")))).passed
    assert noise_floor((compared(0.02), compared(0.03)), "dice") == 0.03
    assert noise_floor((compared("high"),), "dice") is None


def test_a_spread_of_seeds_on_another_dataset_says_nothing(pair):
    given = pair(0.05, floor=None)
    refused = Superiority().judge(replace(given, history=(compared(0.001, dataset="e" * 64),)))
    assert not refused.passed
    assert "Nobody measured on this dataset" in refused.because
    assert Superiority().judge(replace(given, history=(compared(0.001), compared(0.2, dataset="e" * 64)))).passed


def test_a_metric_whose_spread_is_never_measured_sends_nobody_to_measure_it(pair):
    refused = Superiority(metric="hd95_mm").judge(pair(-0.5, metric="hd95_mm"))
    assert not refused.passed
    assert "is never measured" in refused.because
    assert "--seeds" not in refused.because


def test_without_a_spread_of_seeds_it_refuses_unless_the_rule_says_so(pair):
    refused = Superiority().judge(pair(0.05, floor=None))
    assert not refused.passed
    assert "run bedside train --seeds 5" in refused.because
    openly = Superiority(noise="ignore").judge(pair(0.05, floor=None))
    assert openly.passed
    assert "what the seed moves was not looked at" in openly.because


def test_a_gain_of_the_mean_that_patients_do_not_show_is_refused(shown, evidence_of, near):
    scores = near(0.88)
    for number, patient in enumerate(scores["femur"]):
        scores["femur"][patient] += 0.3 if number == 0 else -0.005
    refused = Superiority(noise="ignore").judge(shown(evidence_of(scores), evidence_of(near(0.88), model=OLD)))
    assert refused.numbers["gain"] > 0
    assert not refused.passed


def test_a_margin_must_be_surpassed_by_the_lower_bound(pair):
    assert Superiority(margin=0.019).judge(pair(0.02)).passed
    assert not Superiority(margin=0.021).judge(pair(0.02)).passed


def test_where_lower_is_better_the_sign_turns(pair):
    gate = Superiority(metric="hd95_mm", noise="ignore")
    assert gate.judge(pair(-0.1, metric="hd95_mm")).passed
    assert not gate.judge(pair(0.1, metric="hd95_mm")).passed


def test_one_structure_is_compared_by_itself_where_the_rule_gives_up_the_seeds(shown, evidence_of, near):
    better = {"femur": near(0.90)["femur"], "pelvis": near(0.80)["pelvis"]}
    given = shown(evidence_of(better), evidence_of(near(0.88), model=OLD))
    assert Superiority(label="femur", noise="ignore").judge(given).passed
    assert not Superiority(label="pelvis", noise="ignore").judge(given).passed
    refused = Superiority(label="femur").judge(replace(given, history=(*given.history, compared(0.001))))
    assert not refused.passed
    assert "the seed moves dice of femur is never measured" in refused.because


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Superiority(metric="iou", noise="ignore"), "was not measured"),
        (Superiority(label="skull", noise="ignore"), "0 patients have dice of skull"),
        (Superiority(min_patients=31, noise="ignore"), "judged from 31 on"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(pair, gate, words):
    refused = gate.judge(pair(0.5))
    assert not refused.passed
    assert words in refused.because


def test_other_patients_are_no_pair(shown, evidence_of, near):
    few = {label: dict(list(row.items())[1:]) for label, row in near(0.9).items()}
    refused = Superiority(noise="ignore").judge(shown(evidence_of(near(0.95)), evidence_of(few, model=OLD)))
    assert not refused.passed
    assert "same patients" in refused.because


def test_the_first_model_passes_and_says_why(shown, evidence_of, near):
    verdict = Superiority().judge(shown(evidence_of(near(0.5))))
    assert verdict.passed
    assert verdict.because == "Nothing is in production yet, so there is no model to be better than."


def test_a_bound_that_is_infinite_can_be_written_down(shown, evidence_of, near):
    candidate = near(0.88)
    for row in candidate.values():
        for patient in list(row)[2:]:
            del row[patient]
    baseline = {label: {**row, "p00": row["p00"] - 0.1} for label, row in candidate.items()}
    gate = Superiority(noise="ignore", min_patients=2)
    verdict = gate.judge(shown(evidence_of(candidate), evidence_of(baseline, model=OLD)))
    assert not verdict.passed
    assert verdict.numbers["lower_bound"] == "-inf"
