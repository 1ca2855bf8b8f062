"""Provenance: what is not in the ledger is not proven, and every gap is named."""

import pytest

from bedside.core.config import Promote
from bedside.core.contract import Contract
from bedside.core.custody import PARENT
from bedside.core.dataset import CaseRecord, Manifest, Splits, VolumeRecord
from bedside.core.digest import canonical_json, digest_json
from bedside.promote.gates.provenance import Provenance
from bedside.promote.pipeline import judge
from bedside.promote.policy import freeze, freezing

OLD = Splits(test=("a", "b"), folds=(("c", "d"), ("e", "f")))
GROWN = Splits(test=("a", "b", "g"), folds=(("c", "d", "h"), ("e", "f")))
ALONE = Promote.model_validate({"gates": [{"name": "provenance"}]})


def version(study, splits, *, before="", accept=True):
    """Put a version of a dataset into the store, and into the ledger what ingest would write: its own cases and its parent."""
    patients = [*splits.test, *(patient for fold in splits.folds for patient in fold)]
    eye = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    image = VolumeRecord(file="image.npy", affine=eye, shape=(1, 2, 2, 2), source="0" * 64, geometry="sform")
    manifest = Manifest(
        study="line",
        contract=Contract(modality="MR", spacing_mm=(0.5, 2.0), labels={"background": 0, "bone": 1}),
        cases=tuple(CaseRecord(id=name, patient=name, volumes={"image": image}) for name in sorted(patients)),
        splits=splits,
        received=len(patients),
        accepted=len(patients),
        rejected={},
        duplicates=0,
        parent=before,
    )
    with study.workspace.staging() as staged:
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        digest = study.workspace.put(staged)
    known = {name for event in study.ledger.events() if event.action == "ingested" for name in event.inputs}
    own = {name: digest_json(["case", name]) for name in sorted(set(patients) - known)}
    for case in own.values() if accept else ():
        study.ledger.append("case_accepted", inputs={"image": case}, outputs={"case": case})
    study.ledger.append("ingested", inputs={**({PARENT: before} if before else {}), **own}, outputs={"dataset": digest})
    return digest


def judged(study, model, dataset):
    """The gate's verdict on a model scored on a dataset, with what the store holds, as `promote` asks it."""
    scores = {"bone": dict.fromkeys(("a", "b"), 0.9)}
    study.rules = ALONE
    freeze(study.ledger, ALONE)
    return judge(model, study.evaluate(model, scores, dataset=dataset), ALONE).verdicts[0]


@pytest.mark.parametrize("between", [0, 2])
def test_a_model_of_an_earlier_version_passes_on_a_later_one_that_tests_nobody_it_learned_from(study, between):
    old = newest = version(study, OLD)
    for number in range(between):
        newest = version(study, OLD.model_copy(update={"folds": (("c", "d", f"x{number}"), ("e", "f"))}), before=newest)
    verdict = judged(study, study.train("old", dataset=old), version(study, GROWN, before=newest))
    assert verdict.passed, verdict.because
    assert (
        f"leads from the model back to 6 accepted scans through code cccccccccccc and the earlier version {old[:12]}"
        in verdict.because
    )


def test_a_model_of_an_earlier_version_is_refused_where_somebody_it_learned_from_is_tested(study):
    old = version(study, OLD)
    later = version(study, Splits(test=("a", "b", "c"), folds=(("d", "g"), ("e", "f"))), before=old)
    verdict = judged(study, study.train("old", dataset=old), later)
    assert not verdict.passed
    assert f"1 patients of the test split (c) were in a fold of {old[:12]}" in verdict.because


def test_a_model_of_a_later_version_is_refused_on_an_earlier_one(study):
    old = version(study, OLD)
    later = version(study, GROWN, before=old)
    model = study.train("new", dataset=later)
    verdict = judged(study, model, old)
    assert not verdict.passed
    assert "another dataset than the one it was scored on" in verdict.because
    assert judged(study, model, later).passed


def test_fine_tuning_on_a_later_version_keeps_its_origin(study):
    old = version(study, OLD)
    later = version(study, GROWN, before=old)
    parent, model = study.train("parent", dataset=old), study.model("tuned")
    inputs = {"dataset": later, "parent": parent.digest}
    study.ledger.append("trained", inputs=inputs, outputs={"model": model.digest}, facts={"commit": "c" * 40})
    assert judged(study, model, later).passed
    assert not judged(study, model, old).passed


def test_a_gap_anywhere_in_the_line_of_versions_is_named(study):
    old = version(study, OLD, accept=False)
    later = version(study, GROWN, before=old)
    assert "6 of 6 cases of the dataset were never accepted" in judged(study, study.train("old", dataset=old), later).because
    lost = digest_json("never ingested")
    orphan = version(study, GROWN.model_copy(update={"test": ("a", "b")}), before=lost)
    verdict = judged(study, study.train("orphan", dataset=orphan), orphan)
    assert not verdict.passed
    assert f"no ingest in the ledger made the dataset {lost[:12]}" in verdict.because


def test_an_earlier_version_whose_splits_nobody_can_read_proves_nothing(study):
    old = version(study, OLD)
    later = version(study, GROWN, before=old)
    (study.workspace.store / old).rename(study.workspace.store / "elsewhere")
    verdict = judged(study, study.train("old", dataset=old), later)
    assert not verdict.passed
    assert f"the store has not got the splits of the dataset {old[:12]}" in verdict.because


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
