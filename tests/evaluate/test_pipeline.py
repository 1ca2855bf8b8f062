"""Evidence holds what was measured, all of it, patient by patient."""

import json

import numpy as np
import pytest

from bedside.core.config import Evaluate
from bedside.core.custody import lineage
from bedside.core.errors import BedsideError, IntegrityError, UsageError
from bedside.core.evidence import MEAN, Evidence, load_evidence
from bedside.core.labels import UNANNOTATED
from bedside.evaluate import measure as measuring
from bedside.evaluate.album import PICTURED, pictures
from bedside.evaluate.measure import Scoring, measure, worst_first
from bedside.evaluate.pipeline import digest_of, evaluate, standing_rules, store_evidence
from bedside.metrics.segmentation import DEFINITIONS

DIAGONAL_MM = float(np.linalg.norm(np.array([24, 20, 16]) * [1.0, 2.0, 3.0]))


def test_a_perfect_answer_scores_one_and_zero(study):
    found = study.evaluate([study.planned("a", "pa"), study.planned("b", "pb")])
    for name, definition in DEFINITIONS.items():
        wanted = 1.0 if definition.higher_is_better else 0.0
        assert found.scores[name] == {label: {"pa": wanted, "pb": wanted} for label in ("left_box", "right_box")}
        for label in ("left_box", "right_box", MEAN):
            row = found.summaries[name][label]
            assert (row.mean, row.low, row.high, row.n) == (wanted, wanted, wanted, 2)
    assert found.missed == found.hallucinated == {"left_box": (), "right_box": ()}


def test_scores_equal_those_computed_by_hand(study):
    """A box of 4 x 4 x 4 voxels of 6 mm3 moved by one of 1 mm keeps 48 of its 64 voxels."""
    found = study.evaluate([study.planned("a", "pa"), study.planned("b", "pb")], study.fake({"b": study.shifted(1, 1)}))
    scores = {metric: found.scores[metric]["left_box"]["pb"] for metric in found.scores}
    assert scores["dice"] == pytest.approx(2 * 48 / 128)
    assert scores["iou"] == pytest.approx(48 / 80)
    assert scores["volume_error_ml"] == 0.0
    assert scores["hd95_mm"] == pytest.approx(1.0)
    assert found.scores["dice"]["right_box"] == {"pa": 1.0, "pb": 1.0}
    assert found.summaries["dice"]["left_box"].mean == pytest.approx((1 + 0.75) / 2)
    assert found.summaries["dice"][MEAN].mean == pytest.approx((1 + (0.75 + 1) / 2) / 2)


def test_a_missed_structure_lowers_every_summary_and_is_listed(study):
    planned = [study.planned(name, f"p{name}") for name in "abcde"]
    whole = study.evaluate(planned)
    lost = study.evaluate(planned, study.fake({"c": study.without(2)}))
    for definition in whole.definitions:
        for label in ("right_box", MEAN):
            before, after = (found.summaries[definition.name][label].mean for found in (whole, lost))
            assert after < before if definition.higher_is_better else after > before
    assert lost.missed == {"left_box": (), "right_box": ("pc",)}
    assert lost.scores["dice"]["right_box"]["pc"] == 0.0
    assert lost.scores["hd95_mm"]["right_box"]["pc"] == pytest.approx(DIAGONAL_MM)
    assert lost.scores["volume_error_ml"]["right_box"]["pc"] == pytest.approx(64 * 6 / 1000)
    assert worst_first(lost)[0] == "pc"


def test_a_hallucinated_structure_is_listed(study):
    planned = [study.planned("a", "pa", mask=study.boxes(right=False))]
    found = study.evaluate(planned, study.fake({"a": lambda mask: study.boxes()}))
    assert found.hallucinated == {"left_box": (), "right_box": ("pa",)}
    assert found.scores["dice"]["right_box"]["pa"] == 0.0


def test_two_cases_of_one_patient_count_once(study):
    planned = [study.planned("a1", "pa"), study.planned("a2", "pa"), study.planned("b", "pb")]
    found = study.evaluate(planned, study.fake({"a2": study.without(1)}))
    assert found.scores["dice"]["left_box"] == {"pa": 0.5, "pb": 1.0}
    assert found.summaries["dice"]["left_box"].n == 2
    assert found.summaries["dice"]["left_box"].mean == 0.75
    assert found.missed["left_box"] == ("pa",)
    assert set(found.timings) == {"a1", "a2", "b"}
    assert found.settings["cases"] == 3


def test_a_case_that_is_refused_is_charged_and_named_not_dropped(study):
    planned = [study.planned(name, f"p{name}") for name in "abc"]
    found = study.evaluate(planned, study.fake(refuse=frozenset({"b"})))
    assert found.settings["failed"] == {"b": "SPACING"}
    assert found.missed == {"left_box": ("pb",), "right_box": ("pb",)}
    assert {found.scores["dice"][label]["pb"] for label in found.scores["dice"]} == {0.0}
    assert found.summaries["dice"][MEAN].mean == pytest.approx(2 / 3)
    assert set(found.timings) == {"a", "b", "c"}


def test_a_refused_case_earns_nothing_for_a_structure_it_does_not_have(study):
    planned = [study.planned("a", "pa", mask=study.boxes(right=False))]
    found = study.evaluate(planned, study.fake(refuse=frozenset({"a"})))
    assert found.scores["dice"]["right_box"]["pa"] == 0.0
    assert found.scores["surface_dice"]["right_box"]["pa"] == 0.0
    assert found.scores["hd95_mm"]["right_box"]["pa"] == pytest.approx(DIAGONAL_MM)
    assert found.hallucinated["right_box"] == ()
    assert found.missed == {"left_box": ("pa",), "right_box": ()}


def test_the_worst_come_first_and_ties_go_by_name(study):
    planned = [study.planned(name, f"p{name}") for name in "dcba"]
    found = study.evaluate(planned, study.fake({"c": study.shifted(1, 2), "d": study.shifted(1, 1)}))
    assert worst_first(found) == ("pc", "pd", "pa", "pb")


def test_time_and_memory_of_every_case_are_measured(evidence):
    assert all(cost.seconds > 0 and cost.peak_memory_mb > 1 for cost in evidence.timings.values())


def test_reading_counts_but_scoring_does_not(study, monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(measuring, "perf_counter", lambda: float(next(now)))

    def slow(case):
        next(now), next(now)
        return study.fake()(case)

    scoring = Scoring(study.structures, ("dice",), 1.0)
    found = measure(slow, study.dataset([study.planned("a", "pa")]).cases("test"), scoring=scoring)
    assert found[0].timing.seconds == 3.0


def test_groups_name_scanner_and_site_where_known(study):
    planned = [
        study.planned("a1", "pa", scanner="S1"),
        study.planned("a2", "pa", scanner="S2"),
        study.planned("b", "pb", scanner="S1"),
        study.planned("c", "pc"),
    ]
    assert study.evaluate(planned).groups == {"scanner": {"pa": "S1 + S2", "pb": "S1", "pc": ""}}


def test_the_evidence_lies_in_the_store_and_its_event_in_the_ledger(study):
    found = study.evaluate([study.planned("a", "pa")])
    digest = digest_of(found)
    assert load_evidence(study.workspace, digest) == found
    event = study.workspace.ledger.last("evaluated")
    assert event.outputs == {"evidence": digest}
    assert event.inputs == {"model": found.model, "dataset": found.dataset}
    assert (event.facts["split"], event.facts["mean"], event.facts["missed"]) == ("test", 1.0, 0)
    assert [step.action for step in lineage(study.workspace.ledger.events(), digest)] == ["evaluated"]


def test_stored_json_equals_the_evidence(study):
    found = study.evaluate([study.planned("a", "pa")], study.fake({"a": study.without(1)}))
    stored = json.loads((study.workspace.get(digest_of(found)) / "evidence.json").read_bytes())
    assert stored == json.loads(json.dumps(found.model_dump(mode="json")))
    assert store_evidence(study.workspace, Evidence.model_validate(stored)) == digest_of(found)


def test_something_else_in_the_store_is_not_taken_for_evidence(study):
    with pytest.raises(IntegrityError) as refused:
        load_evidence(study.workspace, study.dataset([study.planned("a", "pa")]).digest)
    assert refused.value.exit_code == 4
    with study.workspace.staging() as staged:
        (staged / "evidence.json").write_text('{"kind": "evidence"}')
        digest = study.workspace.put(staged)
    with pytest.raises(IntegrityError, match="is not evidence"):
        load_evidence(study.workspace, digest)


def test_settings_say_how_it_was_measured(study):
    settings = Evaluate(surface_tolerance_mm=2.5, confidence=0.9, resamples=300, seed=5)
    found = study.evaluate([study.planned(name, f"p{name}") for name in "abc"], settings=settings)
    assert found.settings.items() >= settings.model_dump(mode="json").items()
    assert found.settings["structures"] == list(study.structures)
    assert found.settings["study"] == "boxes"
    assert found.summaries["dice"][MEAN].confidence == 0.9
    assert found.engine["name"] == "torch"


def test_a_wider_tolerance_reaches_the_surface_dice(study):
    fake = study.fake({"a": study.shifted(1, 2)})
    narrow, wide = (
        study.evaluate([study.planned("a", "pa")], fake, settings=Evaluate(surface_tolerance_mm=mm)).scores for mm in (0.5, 2.5)
    )
    assert narrow["surface_dice"]["left_box"]["pa"] < wide["surface_dice"]["left_box"]["pa"] == 1.0


def test_only_rules_frozen_before_the_reading_bind_it(study):
    ledger = study.workspace.ledger
    dataset = study.dataset([study.planned("a", "pa")])
    assert standing_rules(ledger, dataset.digest, "test") == ("", 0)
    ledger.append("rules_frozen", outputs={"rules": "old"})
    dataset.cases("test")
    ledger.append("rules_frozen", outputs={"rules": "new"})
    assert standing_rules(ledger, dataset.digest, "test") == ("old", 1)
    assert standing_rules(ledger, dataset.digest, "fold0") == ("new", 1)
    dataset.cases("test")
    assert standing_rules(ledger, dataset.digest, "test") == ("new", 2)
    assert standing_rules(ledger, "f" * 64, "test") == ("", 0)


def test_the_number_of_readings_is_in_the_settings(study):
    planned = [study.planned("a", "pa")]
    assert [study.evaluate(planned).settings["test_split_reads"] for _ in range(3)] == [1, 2, 3]


def test_no_cases_are_a_wrong_use(study):
    empty = study.dataset([study.planned("a", "pa")]).cases("fold1")
    with pytest.raises(UsageError, match="no cases"):
        evaluate_with(study, empty)
    with pytest.raises(UsageError, match="no cases"):
        evaluate(study.model(), empty)
    assert study.workspace.ledger.last("evaluated") is None


def evaluate_with(study, cases):
    return measure(study.fake(), cases, scoring=Scoring(study.structures, ("dice",), 1.0))


def test_a_case_without_a_mask_is_a_wrong_use(study):
    whole = study.dataset([study.planned("a", "pa")]).cases("test")[0]
    bare = type(whole)("a", "pa", {"image": whole.image})
    with pytest.raises(UsageError, match="has no mask"):
        evaluate_with(study, [bare])


def test_a_model_of_other_structures_is_refused_before_anything_is_predicted(study):
    other = study.model(labels={"background": 0, "right_box": 1, "left_box": 2})
    with pytest.raises(UsageError) as refused:
        evaluate(other, study.dataset([study.planned("a", "pa")]).cases("test"))
    assert refused.value.code == "STRUCTURES"


def test_a_metric_that_gives_nan_is_a_defect_and_never_a_dropped_value(study, monkeypatch):
    real = measuring.score

    def poisoned(*args, **kwargs):
        found = real(*args, **kwargs)
        found.values["dice"]["left_box"] = float("nan")
        return found

    monkeypatch.setattr(measuring, "score", poisoned)
    with pytest.raises(BedsideError, match="dice"):
        study.evaluate([study.planned("a", "pa")])


def test_an_answer_of_another_shape_is_refused(study):
    with pytest.raises(UsageError):
        study.evaluate([study.planned("a", "pa")], study.fake({"a": lambda mask: mask[1:]}))


def test_progress_is_told_of_every_case(study):
    told = []

    class Listener:
        def start(self, what, total):
            told.append((what, total))

        def advance(self, done, note=""):
            told.append((done, note))

    planned = [study.planned("a", "pa"), study.planned("b", "pb")]
    study.evaluate(planned, study.fake(refuse=frozenset({"b"})), progress=Listener())
    assert told == [("evaluate", 2.0), (1.0, "a: dice 1.000"), (2.0, "b: dice 0.000 (failed)")]


def test_the_worst_and_the_median_case_are_kept_and_nothing_else_is_left(study):
    planned = [study.planned(name, f"p{name}") for name in "abcde"]
    fake = study.fake({"b": study.without(2), "d": study.shifted(1, 1)})
    found = study.evaluate(planned, fake)
    kept = pictures(study.workspace, digest_of(found))
    assert {name: picture.patient for name, picture in kept.items()} == {"worst": "pb", "median": "pa"}
    assert kept["worst"].focus == "right_box"
    assert sorted(path.name for path in study.workspace.scratch.iterdir()) == ["overlays"]


def test_a_single_patient_is_both_worst_and_median(study):
    found = study.evaluate([study.planned("a", "pa")])
    assert set(pictures(study.workspace, digest_of(found))) == set(PICTURED)


def test_an_interrupted_pass_leaves_neither_evidence_nor_pictures(study):
    def stop(case):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.evaluate([study.planned("a", "pa")], stop)
    assert study.workspace.ledger.last("evaluated") is None
    assert list(study.workspace.scratch.iterdir()) == []


def test_what_a_model_says_where_nobody_annotated_is_neither_right_nor_wrong(study):
    mask = np.array(study.planned("a", "pa").mask)
    mask[:, 14:] = UNANNOTATED
    planned = [study.planned("a", "pa", mask=mask), study.planned("b", "pb")]
    found = study.evaluate(planned, study.fake({"a": lambda truth: np.where(truth == UNANNOTATED, 1, truth)}))
    assert found.scores["dice"]["left_box"]["pa"] == 1.0
    assert found.scores["hd95_mm"]["left_box"]["pa"] == 0.0
    assert found.scores["volume_error_ml"]["left_box"]["pa"] == 0.0
