"""Two models are compared on the same patients or not at all."""

import pytest

from bedside.core.errors import IntegrityError, UsageError
from bedside.core.evidence import Evidence
from bedside.core.model import Model
from bedside.core.run import Run
from bedside.core.workspace import Workspace


def evidence(scores: dict[str, dict[str, dict[str, float]]]) -> Evidence:
    return Evidence(
        model="a" * 64,
        dataset="b" * 64,
        split="test",
        engine={"name": "torch"},
        rules="",
        definitions=(),
        scores=scores,
        summaries={},
        timings={},
    )


def test_the_difference_is_taken_patient_by_patient() -> None:
    mine = evidence({"dice": {"femur": {"p1": 0.9, "p2": 0.5}}})
    theirs = evidence({"dice": {"femur": {"p2": 0.75, "p1": 0.8}}})
    assert mine.minus(theirs, "dice") == {"femur": {"p1": pytest.approx(0.1), "p2": -0.25}}


@pytest.mark.parametrize(
    "theirs",
    [{"dice": {"femur": {"p1": 0.8}}}, {"dice": {"femur": {"p1": 0.8, "p3": 0.1}}}, {"dice": {"pelvis": {"p1": 0.8, "p2": 1}}}],
)
def test_other_patients_or_structures_cannot_be_compared(theirs: dict) -> None:
    mine = evidence({"dice": {"femur": {"p1": 0.9, "p2": 0.5}}})
    with pytest.raises(UsageError) as caught:
        mine.minus(evidence(theirs), "dice")
    assert caught.value.code == "UNPAIRED"


def test_a_metric_that_one_side_lacks_is_said() -> None:
    mine = evidence({"dice": {"femur": {"p1": 0.9}}})
    with pytest.raises(UsageError, match="'hd95_mm' was not measured"):
        mine.minus(mine, "hd95_mm")


def test_a_record_comes_back_from_json_as_it_was() -> None:
    mine = evidence({"dice": {"femur": {"p1": 0.9}}})
    assert Evidence.model_validate_json(mine.model_dump_json()) == mine


def test_a_stored_folder_of_another_kind_is_not_taken_for_a_model_or_a_run(workspace: Workspace) -> None:
    with workspace.staging() as staged:
        (staged / "model.json").write_text('{"study": "x"}')
        (staged / "run.json").write_text("[]")
        digest = workspace.put(staged)
    with pytest.raises(IntegrityError, match="not a model"):
        _ = Model(digest, workspace).spec
    with pytest.raises(IntegrityError, match="not a run"):
        _ = Run(digest, digest, workspace).record
