"""Only what somebody annotated is scored: by voxel, by structure and by case."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.core.case import Case, Prediction
from bedside.core.errors import InputRejected, UsageError
from bedside.core.evidence import MEAN, over_labels
from bedside.core.labels import UNANNOTATED
from bedside.core.volume import Volume
from bedside.evaluate.measure import Scoring, measure, patient_scores, summarise, worst_first
from bedside.evaluate.report import render
from bedside.metrics.segmentation import DEFINITIONS
from bedside.promote.gates.absolute import Absolute
from bedside.promote.gates.non_inferiority import NonInferiority
from bedside.tasks.annotation import Partial

ONLY_LEFT = {"column": "site", "value": "east", "structures": [1]}
SHAPE = (4, 4, 3)
STRUCTURES = ("background", "one", "two")
ids = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))
masks = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, UNANNOTATED]))


def case_of(mask, *, patient="p", site=""):
    volumes = {"image": Volume.of(np.zeros((1, *SHAPE), np.float32), np.eye(4)), "label": Volume.of(mask[None], np.eye(4))}
    return Case(f"case-{patient}", patient, volumes, {}, site)


def scored(pairs, partial=()):
    """What was measured of cases and the answers to them."""
    answers = {case.id: answer for case, answer in pairs}
    scoring = Scoring(STRUCTURES, tuple(DEFINITIONS), 1.0, partial)
    return measure(lambda case: Prediction(answers[case.id], "0" * 64, case.id), [case for case, _ in pairs], scoring=scoring)


@settings(max_examples=30, deadline=None)
@given(masks.filter(lambda mask: (mask != UNANNOTATED).any()), ids, ids)
def test_an_answer_where_nobody_annotated_never_changes_a_score(mask, answer, other):
    elsewhere = np.where(mask == UNANNOTATED, other, answer)
    (first,), (second,) = (scored([(case_of(mask), given)]) for given in (answer, elsewhere))
    assert first.values == second.values
    assert (first.missed, first.hallucinated) == (second.missed, second.hallucinated)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, SHAPE, elements=st.integers(0, 1)), ids, ids)
def test_what_is_found_of_a_structure_that_nobody_looked_for_never_changes_a_score(mask, answer, other):
    rules = (Partial(column="site", value="east", structures=(1,)),)
    elsewhere = np.where(np.isin(answer, (0, 2)) & (other != 1), other, answer)
    (first,), (second,) = (scored([(case_of(mask, site="east"), given)], rules) for given in (answer, elsewhere))
    assert first.values == second.values
    assert set(first.values["dice"]) == {"one"}
    assert (first.missed | first.hallucinated | second.missed | second.hallucinated) <= {"one"}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=6), ids)
def test_a_case_without_a_structures_annotation_does_not_count_in_its_n(partly, answer):
    rules = (Partial(column="site", value="east", structures=(1,)),)
    mask = np.zeros(SHAPE, np.uint8)
    mask[:2] = 1
    pairs = [(case_of(mask, patient=f"p{n}", site="east" if part else ""), answer) for n, part in enumerate(partly)]
    table = patient_scores(scored(pairs, rules), Scoring(STRUCTURES, tuple(DEFINITIONS), 1.0, rules))
    summary = summarise(table)["dice"]
    assert summary["one"].n == summary[MEAN].n == len(partly)
    assert len(table["dice"]["two"]) == partly.count(False)
    assert ("two" in summary) == (False in partly)
    if False in partly:
        alone = patient_scores(scored([pair for pair in pairs if not pair[0].site]), Scoring(STRUCTURES, tuple(DEFINITIONS), 1.0))
        assert summary["two"] == summarise(alone)["dice"]["two"]


def partly(study, **more):
    """Five patients, two of them of a place where only the left box was annotated; the model invents or misses the right one."""
    planned = [study.planned(name, f"p{name}") for name in "abc"]
    planned += [study.planned(name, f"p{name}", mask=study.boxes(right=False), site="east") for name in "de"]
    fake = study.fake({"c": study.without(2), "d": lambda mask: study.boxes(), "e": study.shifted(1, 1)})
    return study.evaluate(planned, fake, partial=[ONLY_LEFT], **more)


def test_scores_intervals_and_charges_follow_the_annotation(study):
    found = partly(study)
    assert set(found.scores["dice"]["right_box"]) == {"pa", "pb", "pc"}
    assert {label: row.n for label, row in found.summaries["dice"].items()} == {"left_box": 5, "right_box": 3, MEAN: 5}
    assert found.hallucinated == {"left_box": (), "right_box": ()}
    assert found.missed == {"left_box": (), "right_box": ("pc",)}
    assert over_labels(found.scores["dice"]) == pytest.approx({"pa": 1, "pb": 1, "pc": 0.5, "pd": 1, "pe": 0.75})
    assert worst_first(found)[:2] == ("pc", "pe")
    assert found.settings["partial"] == [ONLY_LEFT]


def test_the_report_says_on_how_many_patients_each_structure_was_scored(study):
    html = render(partly(study), study.workspace)
    assert "of 5, left box on 5, right box on 3" in html
    whole = render(study.evaluate([study.planned("a", "pa")]), study.workspace)
    assert "Not every structure was annotated" not in whole


def test_a_structure_that_was_annotated_in_nobody_has_no_score_and_passes_no_gate(study):
    planned = [study.planned(name, f"p{name}", mask=study.boxes(right=False), site="east") for name in "abcdefgh"]
    found = study.evaluate(planned, partial=[ONLY_LEFT])
    assert found.scores["dice"]["right_box"] == {}
    assert "right_box" not in found.summaries["dice"]
    assert "right box on 0" in render(found, study.workspace)
    given = SimpleNamespace(candidate=found, baseline=found, history=())
    verdict = Absolute(floor=0.1).judge(given)
    assert (verdict.passed, "right_box annotated" in verdict.because) == (False, True)
    assert Absolute(floor=0.1, label="left_box").judge(given).passed
    assert not Absolute(floor=0.1, label="right_box").judge(given).passed
    gate = NonInferiority(margin=0.1, min_patients=2, catastrophic=False)
    assert not gate.judge(given).passed
    assert gate.model_copy(update={"labels": ("left_box",)}).judge(given).passed


def test_a_case_in_which_nothing_was_annotated_has_no_score_and_all_of_them_are_refused(study):
    bare = study.planned("b", "pb", mask=np.full(study.shape, UNANNOTATED, np.uint8))
    found = study.evaluate([study.planned("a", "pa"), bare], study.fake({"b": lambda mask: study.boxes()}))
    assert found.summaries["dice"][MEAN].n == 1
    assert found.settings["unscored"] == ["b"]
    assert "1 case had no annotated voxel" in render(found, study.workspace)
    with pytest.raises(UsageError) as caught:
        study.evaluate([bare], study.fake({"b": lambda mask: study.boxes()}))
    assert (caught.value.code, caught.value.exit_code) == ("NOT_ANNOTATED", 2)


def test_a_mask_that_holds_what_was_not_annotated_is_refused(study):
    with pytest.raises(InputRejected, match=r"task\.partial") as caught:
        study.evaluate([study.planned("a", "pa", site="east")], partial=[ONLY_LEFT])
    assert caught.value.code == "LABEL_PARTIAL"


def test_a_refused_case_is_charged_only_for_what_was_annotated_in_it(study):
    planned = [study.planned("a", "pa"), study.planned("b", "pb", mask=study.boxes(right=False), site="east")]
    found = study.evaluate(planned, study.fake(refuse=frozenset({"b"})), partial=[ONLY_LEFT])
    assert found.missed == {"left_box": ("pb",), "right_box": ()}
    assert found.scores["dice"] == {"left_box": {"pa": 1.0, "pb": 0.0}, "right_box": {"pa": 1.0}}
