"""Promotion: all gates are asked, the ledger remembers, nothing unrecorded decides."""

from pathlib import Path

import pytest

from bedside.core.config import Promote
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.evidence import Verdict
from bedside.core.model import Model
from bedside.promote.pipeline import judge, newest_evidence, promote
from bedside.promote.release import production_now


def rules(*gates: dict[str, object], baseline: str = "released") -> Promote:
    return Promote.model_validate({"gates": gates, "baseline": baseline})


def test_a_good_model_goes_into_production_and_the_ledger_says_why(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    promotion = promote(model, evidence, study.rules)
    assert promotion.passed
    assert [verdict.gate for verdict in promotion.verdicts] == ["provenance", "non_inferiority", "absolute", "latency"]
    assert promotion.refusals == ()
    assert promotion.baseline == ""
    event = study.last()
    assert (event.action, event.seq) == ("promoted", promotion.event)
    assert event.inputs["model"] == model.digest
    assert study.workspace.get(event.inputs["evidence"]).is_dir()
    assert event.facts["rules"] == study.rules.digest()
    assert [Verdict.model_validate(value) for value in event.facts["verdicts"]] == list(promotion.verdicts)
    assert study.ledger.verify().intact
    release = production_now(study.workspace)
    assert release is not None
    assert release.model == model.digest


def test_judging_says_what_promoting_would_and_writes_nothing(study, near):
    good, bad = study.train("good"), study.train("bad")
    pairs = [(bad, study.evaluate(bad, near(0.5))), (good, study.evaluate(good, near(0.9)))]
    for model, evidence in pairs:
        before = study.actions()
        judged = judge(model, evidence, study.rules)
        assert study.actions() == before
        assert judged.event == 0
        promoted = promote(model, evidence, study.rules)
        assert promoted.model_copy(update={"event": 0}) == judged


def test_two_gates_that_refuse_are_both_reported(study, near):
    model = study.train("bad")
    study.rules = rules(
        {"name": "absolute", "floor": 0.95}, {"name": "latency", "p95_seconds": 0.1}, {"name": "absolute", "floor": 0.1}
    )
    promotion = promote(model, study.evaluate(model, near(0.9)), study.rules)
    assert not promotion.passed
    assert [verdict.gate for verdict in promotion.refusals] == ["absolute", "latency"]
    assert len(promotion.verdicts) == 3
    assert study.last().action == "promotion_refused"
    assert len(study.last().facts["verdicts"]) == 3
    assert production_now(study.workspace) is None


def test_a_model_that_nobody_trained_is_refused_by_provenance(study, near):
    model = study.model("from nowhere")
    promotion = promote(model, study.evaluate(model, near(0.99)), study.rules)
    assert [verdict.gate for verdict in promotion.refusals] == ["provenance"]


def test_a_worse_model_is_refused_against_the_one_in_production(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.92)), study.rules)
    refused = promote(second, study.evaluate(second, near(0.89)), study.rules)
    assert [verdict.gate for verdict in refused.refusals] == ["non_inferiority"]
    assert refused.baseline == first.digest
    assert production_now(study.workspace).model == first.digest


def test_a_better_model_replaces_the_one_in_production(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.90)), study.rules)
    assert promote(second, study.evaluate(second, near(0.92)), study.rules).passed
    assert production_now(study.workspace).model == second.digest


def test_the_newest_evidence_of_the_model_in_production_is_the_one_compared_with(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.85)), study.rules)
    newer = study.evaluate(first, near(0.95))
    assert newest_evidence(study.workspace, first.digest, dataset=newer.dataset, split="test") == newer
    assert newest_evidence(study.workspace, first.digest, dataset=newer.dataset, split="fold0") is None
    assert not promote(second, study.evaluate(second, near(0.86)), study.rules).passed


def test_a_named_baseline_takes_the_place_of_production(study, near):
    named, second = study.train("named"), study.train("second")
    study.evaluate(named, near(0.95))
    study.rules = rules({"name": "non_inferiority", "margin": 0.01}, baseline=named.digest)
    promotion = promote(second, study.evaluate(second, near(0.85)), study.rules)
    assert not promotion.passed
    assert promotion.baseline == named.digest


def test_a_baseline_that_was_not_scored_on_the_same_cases_is_asked_for(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.9)), study.rules)
    evidence = study.evaluate(second, near(0.9), split="fold0")
    before = study.actions()
    with pytest.raises(UsageError, match="run bedside evaluate on it first") as caught:
        promote(second, evidence, study.rules)
    assert caught.value.code == "NO_BASELINE"
    assert study.actions() == before


def test_promoting_the_model_in_production_again_does_nothing_and_says_so(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    first = promote(model, evidence, study.rules)
    before = study.actions()
    again = promote(model, evidence, rules({"name": "absolute", "floor": 0.99}))
    assert again.already
    assert again.model_copy(update={"already": False}) == first
    assert study.actions() == before


def test_a_refused_model_can_come_back_with_new_evidence(study, near):
    model = study.train("first")
    assert not promote(model, study.evaluate(model, near(0.5)), study.rules).passed
    assert promote(model, study.evaluate(model, near(0.9)), study.rules).passed
    assert study.actions()[-1] == "promoted"


def test_evidence_that_no_evaluation_recorded_decides_nothing(study, near, evidence_of):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.5))
    for forged in (
        evidence_of(near(0.99), model=model.digest, rules=study.rules.digest()),
        evidence.model_copy(update={"summaries": evidence_of(near(0.99)).summaries}),
    ):
        with pytest.raises(UsageError, match="is not what an evaluation recorded"):
            promote(model, forged, study.rules)
    assert "promoted" not in study.actions()


def test_evidence_of_another_model_decides_nothing(study, near):
    first, second = study.train("first"), study.train("second")
    with pytest.raises(UsageError, match="The evidence is of the model"):
        promote(second, study.evaluate(first, near(0.9)), study.rules)


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_changed_weights_are_an_integrity_error(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    rewrite(study.workspace.store / model.digest / "model.json", b"other")
    with pytest.raises(IntegrityError) as caught:
        promote(Model(model.digest, study.workspace), evidence, study.rules)
    assert caught.value.code == "CHANGED"


def test_changed_evidence_is_an_integrity_error(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.5))
    stored = study.last().outputs["evidence"]
    file = study.workspace.store / stored / "evidence.json"
    rewrite(file, file.read_bytes().replace(b"0.5", b"0.9"))
    with pytest.raises(IntegrityError) as caught:
        promote(model, evidence, study.rules)
    assert caught.value.code == "CHANGED"


def edit(study, line: int, old: bytes, new: bytes) -> None:
    lines = study.ledger.path.read_bytes().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    study.ledger.path.write_bytes(b"".join(lines))


def test_a_tampered_ledger_refuses_and_the_attempt_is_recorded(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    edit(study, 3, b'"actor":"', b'"actor":"x')
    promotion = promote(model, evidence, study.rules)
    assert [verdict.gate for verdict in promotion.refusals] == ["provenance"]
    assert "broken at line 4" in promotion.refusals[0].because
    assert study.actions()[-1] == "promotion_refused"


def test_without_a_provenance_gate_a_tampered_ledger_still_promotes_nobody(study, near):
    model = study.train("first")
    study.rules = rules({"name": "absolute", "floor": 0.1})
    evidence = study.evaluate(model, near(0.9))
    edit(study, 3, b'"actor":"', b'"actor":"x')
    with pytest.raises(IntegrityError, match="no model is promoted on it"):
        promote(model, evidence, study.rules)
    assert "promoted" not in study.actions()


def test_a_ledger_of_unreadable_lines_is_an_integrity_error(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    edit(study, 3, b"{", b"")
    with pytest.raises(IntegrityError, match="Ledger line 4"):
        promote(model, evidence, study.rules)


def test_verdicts_with_infinite_numbers_survive_the_ledger(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.9)), study.rules)
    scores = near(0.9)
    scores["femur"]["p00"] = 0.5  # all other differences are equal: the bootstrap bounds nothing
    refused = promote(second, study.evaluate(second, scores), study.rules)
    verdict = refused.refusals[0]
    assert verdict.numbers["labels"]["femur"]["lower_bound"] == "-Infinity"
    assert study.ledger.verify().intact
