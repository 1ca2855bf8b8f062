"""What `--what-if` says of the verbs that read one model and write one value."""

from bedside.core.config import Accelerate
from bedside.core.dataset import Dataset
from bedside.core.errors import UsageError
from bedside.core.model import Model
from bedside.core.record import Record
from bedside.core.workspace import Workspace


class EvaluationPlan(Record):
    """What `evaluate` would do."""

    model: str
    dataset: str
    split: str
    cases: int
    locked_split_read_before: int


class AccelerationPlan(Record):
    """What `accelerate` would do."""

    model: str
    stages: tuple[str, ...]
    cases: int
    timed_runs_per_case: int
    largest_dice_change_allowed: float


class RollbackPlan(Record):
    """What `promote --rollback` would do."""

    in_production: str
    would_return_to: str


def evaluation(model: Model, dataset: Dataset, split: str) -> EvaluationPlan:
    """Count what would be scored, without reading the locked split."""
    splits = dataset.splits
    cases = dataset.manifest.cases
    reads = sum(
        1 for e in model.workspace.ledger.events() if e.action == "test_split_read" and e.inputs.get("dataset") == dataset.digest
    )
    count = sum(case.patient in splits.test for case in cases) if split == "test" else len(dataset.cases(split))
    return EvaluationPlan(model=model.digest, dataset=dataset.digest, split=split, cases=count, locked_split_read_before=reads)


def acceleration(model: Model, settings: Accelerate) -> AccelerationPlan:
    """Name the stages that would be tried."""
    from bedside.accelerate.pipeline import stage_names

    return AccelerationPlan(
        model=model.digest,
        stages=stage_names(settings.stages),
        cases=settings.cases,
        timed_runs_per_case=settings.repeats,
        largest_dice_change_allowed=settings.max_dice_change,
    )


def rollback(workspace: Workspace) -> RollbackPlan:
    """Name the model that would come back."""
    from bedside.promote.release import standing

    stack = standing(workspace)
    if len(stack) < 2:
        raise UsageError("There is nothing to roll back to: no earlier promotion stands.", code="NO_EARLIER")
    return RollbackPlan(in_production=stack[-1].model, would_return_to=stack[-2].model)
