"""Two label maps are the same or differ in named ways, and only those that would make a model wrong break it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.contract import Contract
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.labels import LabelMap, Term, check_meeting, compatible, diff_labels

FEMUR = Term(value="71341001", meaning="Bone structure of femur")
PELVIS = Term(value="118645006", meaning="Bone structure of pelvis")
BONES = LabelMap(labels={"background": 0, "femur": 5, "pelvis": 7}, terms={"femur": FEMUR})


def kinds(other: LabelMap) -> set[tuple[str, str, bool]]:
    return {(change.kind, change.name, change.breaks) for change in diff_labels(BONES, other).changes}


def changed(**what: object) -> LabelMap:
    return LabelMap.model_validate({**BONES.model_dump(), **what})


def test_the_same_map_has_the_same_digest_and_no_difference() -> None:
    again = changed()
    assert again.digest == BONES.digest
    assert diff_labels(BONES, again).changes == ()
    assert LabelMap.model_validate_json(BONES.model_dump_json()).digest == BONES.digest


def test_the_order_of_names_is_part_of_the_digest_because_it_is_the_training_ids() -> None:
    swapped = changed(labels={"background": 0, "pelvis": 7, "femur": 5})
    assert swapped.digest != BONES.digest
    assert kinds(swapped) == {("order", "femur", True), ("order", "pelvis", True)}


def test_each_difference_has_its_name_and_says_whether_it_breaks_a_model() -> None:
    assert kinds(changed(labels={"background": 0, "femur": 5, "pelvis": 8})) == {("code", "pelvis", False)}
    assert kinds(changed(labels={"background": 0, "femur": 5, "pelvis": 7, "rib": 9})) == {("added", "rib", True)}
    assert kinds(changed(labels={"background": 0, "femur": 5})) == {("removed", "pelvis", True)}
    assert kinds(changed(version="2")) == {("version", "", False)}
    assert kinds(changed(terms={"femur": FEMUR, "pelvis": PELVIS})) == {("term", "pelvis", False)}
    assert kinds(changed(terms={"femur": PELVIS})) == {("term", "femur", True)}


def test_what_breaks_a_model_is_listed_first() -> None:
    other = changed(version="2", labels={"background": 0, "femur": 6, "pelvis": 7, "rib": 9})
    breaks = [change.breaks for change in diff_labels(BONES, other).changes]
    assert breaks == sorted(breaks, reverse=True)
    assert not compatible(BONES, other)


@given(st.permutations(["background", "a", "b", "c"]), st.lists(st.integers(0, 9), min_size=4, max_size=4, unique=True))
def test_compatible_says_the_same_in_both_directions_and_depends_on_the_order_only(names: list[str], codes: list[int]) -> None:
    first = LabelMap(labels=dict(zip(["background", "a", "b", "c"], range(4), strict=True)))
    second = LabelMap(labels=dict(zip(names, codes, strict=True)))
    assert compatible(first, second) == compatible(second, first) == (names == ["background", "a", "b", "c"])


def test_the_contract_and_its_map_agree() -> None:
    contract = Contract(modality="CT", spacing_mm=(0.5, 3), labels=BONES.labels, terms=BONES.terms)
    assert contract.label_map_digest == BONES.digest
    assert contract.label_map == BONES


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": {"background": 0, "femur": 0}, "terms": {}},
        {"terms": {"rib": FEMUR}},
        {"terms": {"femur": FEMUR, "pelvis": FEMUR}},
        {"labels": [["background", 0], ["femur", 1], ["femur", 2]], "terms": {}},
        {"terms": {"femur": {"scheme": "SCT", "value": "no spaces allowed", "meaning": "x"}}},
    ],
)
def test_a_map_that_contradicts_itself_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="validation error"):
        changed(**wrong)


def test_a_code_of_digits_may_be_written_without_quotes() -> None:
    assert Term.model_validate({"value": 71341001, "meaning": "Bone structure of femur"}) == FEMUR


def test_a_model_and_a_dataset_that_mean_different_things_do_not_meet() -> None:
    other_codes = changed(labels={"background": 0, "femur": 6, "pelvis": 9})
    check_meeting(BONES, other_codes, ["", other_codes.digest])
    with pytest.raises(UsageError, match="pelvis") as caught:
        check_meeting(BONES, changed(labels={"background": 0, "pelvis": 7, "femur": 5}), [])
    assert caught.value.code == "LABEL_MAP"
    with pytest.raises(UsageError, match="femur"):
        check_meeting(BONES, changed(terms={"femur": PELVIS}), [])
    with pytest.raises(IntegrityError) as broken:
        check_meeting(BONES, other_codes, [BONES.digest])
    assert broken.value.code == "LABEL_MAP"
