"""Provenance: what is not in the ledger is not proven, and every gap is named."""

from bedside.core.config import Promote
from bedside.core.digest import digest_json
from bedside.promote.gates.provenance import Provenance
from bedside.promote.policy import freeze, freezing


def test_a_model_whose_whole_chain_is_there_passes_and_the_sentence_counts_the_scans(study, near):
    model = study.train("first")
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9))))
    assert verdict.passed
    assert "leads from the model back to 30 accepted scans through code cccccccccccc" in verdict.because
    assert "the rules were frozen (event 1) before the test split was read (event 34, reading number 1)" in verdict.because


def test_a_model_that_no_training_made_is_refused(study, near):
    model = study.model("from nowhere")
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.99))))
    assert not verdict.passed
    assert f"no training in the ledger made the model {model.digest[:12]}" in verdict.because


def test_an_accelerated_model_goes_back_through_its_parent(study, near):
    parent, fast = study.train("parent"), study.model("fast")
    study.ledger.append("accelerated", inputs={"model": parent.digest, "dataset": parent.digest}, outputs={"model": fast.digest})
    assert Provenance().judge(study.given(study.evaluate(fast, near(0.9)))).passed


def test_unknown_code_is_refused_and_edited_code_where_the_rule_says_so(study, near):
    for commit in ("", "+"):
        refused = Provenance().judge(study.given(study.evaluate(study.train("x" + commit, commit=commit), near(0.9))))
        assert not refused.passed
        assert "recorded no code commit" in refused.because
    edited = study.given(study.evaluate(study.train("edited", commit="d" * 40 + "+"), near(0.9)))
    told = Provenance().judge(edited)
    assert told.passed
    assert "dddddddddddd with uncommitted changes" in told.because
    strict = Provenance(clean_code=True).judge(edited)
    assert not strict.passed
    assert "ran edited code (dddddddddddd with uncommitted changes)" in strict.because
    outside = study.given(study.evaluate(study.train("installed", commit="bedside-0.1.0+sha256:0123456789ab"), near(0.9)))
    assert "bedside-0.1.0+sha256:0123456789ab" in Provenance(clean_code=True).judge(outside).because


def test_a_model_trained_on_other_data_than_it_was_scored_on_is_refused(study, near):
    model = study.train("elsewhere", dataset=digest_json("other"))
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9))))
    assert not verdict.passed
    assert "it may have seen patients of the test split" in verdict.because
    assert "no ingest in the ledger made the dataset" in verdict.because


def test_a_case_that_was_never_accepted_is_refused(study, near):
    dataset = digest_json("with a stranger")
    study.ledger.append("ingested", inputs={"known": digest_json("p00"), "stranger": "f" * 64}, outputs={"dataset": dataset})
    model = study.train("strange", dataset=dataset)
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9), dataset=dataset)))
    assert not verdict.passed
    assert "1 of 2 cases of the dataset were never accepted" in verdict.because


def test_only_the_locked_test_split_decides(study, near):
    model = study.train("first")
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9), split="fold0")))
    assert not verdict.passed
    assert "the evidence is of the split fold0" in verdict.because


def test_rules_changed_after_the_split_was_read_are_refused(study, near):
    model = study.train("first")
    evidence = study.evaluate(model, near(0.9))
    study.rules = Promote.model_validate({"gates": [{"name": "absolute", "floor": 0.1}]})
    freeze(study.ledger, study.rules)
    verdict = Provenance().judge(study.given(evidence))
    assert not verdict.passed
    assert "stood when the test split was read, and those in force now are" in verdict.because


def test_evidence_that_only_claims_the_new_rules_is_refused(study, near):
    """The split was read under other rules than the evidence says: the ledger knows the order."""
    model = study.train("first")
    study.rules = Promote.model_validate({"gates": [{"name": "absolute", "floor": 0.1}]})
    evidence = study.evaluate(model, near(0.9))
    freeze(study.ledger, study.rules)
    verdict = Provenance().judge(study.given(evidence))
    assert not verdict.passed
    assert "these rules were not the ones frozen when the test split was read" in verdict.because


def test_reading_the_split_once_more_under_new_rules_does_not_renew_an_old_evaluation(study, near):
    model = study.train("first")
    study.rules = Promote.model_validate({"gates": [{"name": "absolute", "floor": 0.1}]})
    evidence = study.evaluate(model, near(0.9))
    freeze(study.ledger, study.rules)
    study.ledger.append("test_split_read", inputs={"dataset": evidence.dataset})
    assert "these rules were not the ones frozen" in Provenance().judge(study.given(evidence)).because


def test_an_evaluation_of_another_split_is_no_evaluation_of_the_test_split(study, near):
    model = study.train("first")
    study.ledger.append("test_split_read", inputs={"dataset": study.ledger.last("ingested").outputs["dataset"]})
    evidence = study.evaluate(model, near(0.9), split="fold0").model_copy(update={"split": "test"})
    assert "the ledger has no evaluation of this model" in Provenance().judge(study.given(evidence)).because


def test_rules_that_were_frozen_replaced_and_not_frozen_again_do_not_count(study, near):
    old, model = study.rules, study.train("first")
    freeze(study.ledger, Promote.model_validate({"gates": [{"name": "absolute", "floor": 0.1}]}))
    assert study.rules is old
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9))))
    assert not verdict.passed
    freeze(study.ledger, old)
    assert Provenance().judge(study.given(study.evaluate(model, near(0.9)))).passed


def test_evidence_that_was_never_recorded_is_refused(study, near, evidence_of):
    model = study.train("first")
    evidence = evidence_of(near(0.99), model=model.digest, rules=study.rules.digest())
    verdict = Provenance().judge(study.given(evidence))
    assert not verdict.passed
    assert "the ledger has no evaluation of this model under these rules" in verdict.because


def test_an_evaluation_without_a_reading_of_the_split_is_refused(study, near):
    model = study.train("first")
    facts = {"split": "test", "rules": study.rules.digest()}
    evidence = study.evaluate(model, near(0.9), split="fold0").model_copy(update={"split": "test"})
    study.ledger.append("evaluated", inputs={"model": model.digest, "dataset": evidence.dataset}, facts=facts)
    verdict = Provenance().judge(study.given(evidence))
    assert not verdict.passed
    assert "no reading of the test split before the evaluation" in verdict.because


def test_every_gap_is_named_not_only_the_first(study, near):
    model = study.train("bad", commit="", dataset=digest_json("other"))
    verdict = Provenance().judge(study.given(study.evaluate(model, near(0.9), rules="")))
    assert len(verdict.numbers["problems"]) == 4
    assert "no rules stood when the test split was read" in verdict.because


def test_an_edited_ledger_is_refused_with_its_first_bad_line(study, near):
    evidence = study.evaluate(study.train("first"), near(0.9))
    lines = study.ledger.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"case_accepted"', b'"case_acceptet"')
    study.ledger.path.write_bytes(b"".join(lines))
    verdict = Provenance().judge(study.given(evidence))
    assert not verdict.passed
    assert "the ledger is broken at line 5" in verdict.because


def test_freezing_the_same_rules_twice_is_one_event(study):
    before = study.actions()
    freeze(study.ledger, study.rules)
    assert study.actions() == before
    assert study.actions().count("rules_frozen") == 1


def test_every_reading_of_the_split_is_counted(study, near):
    model = study.train("first")
    for _ in range(3):
        study.evaluate(model, near(0.9))
    events = tuple(study.ledger.events())
    found = freezing(events, rules=study.rules.digest(), model=model.digest, dataset=events[31].outputs["dataset"])
    assert found.reads == 3
    assert found.in_time
