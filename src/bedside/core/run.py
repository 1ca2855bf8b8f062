"""One training, as a record in the store."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue, ValidationError

from bedside.core.errors import IntegrityError
from bedside.core.model import Model
from bedside.core.plan import Plan
from bedside.core.record import Record
from bedside.core.workspace import Workspace, read_json


class CurvePoint(Record):
    """Progress at one moment of a training."""

    step: int
    minutes: float
    loss: float
    score: float | None = None


class PlannedSteps(Record):
    """A schedule: from step `at` on, the training was to have `total` steps."""

    at: int
    total: int


class RunRecord(Record):
    """`run.json` of a training.

    Attributes:
        study: the resolved study tree; study_digest: its hash; plan: what was done of it, every number decided.
        dataset: digest of the training data; environment: of what it ran in; commit: of the code, with "+" if edited.
        model: digest of the best weights.
        steps, minutes: done; `peak_memory_mb`: largest resident memory.
        schedule: the first plan, and each correction where the machine turned out slower or faster than it began. A run with
            one entry is repeated exactly with `train.steps`.
        curve: loss, and score of the left-out fold where there is one.
    """

    study: dict[str, JsonValue]
    study_digest: str
    plan: Plan
    dataset: str
    environment: dict[str, JsonValue]
    environment_digest: str
    commit: str
    seed: int
    steps: int
    minutes: float
    resumed: int
    seconds_per_step: float
    peak_memory_mb: float
    schedule: tuple[PlannedSteps, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Run:
    """A finished training. `digest` names its record; `model` the weights that were kept."""

    digest: str
    model: str
    workspace: Workspace

    @cached_property
    def record(self) -> RunRecord:
        """The record, verified on first use."""
        try:
            return RunRecord.model_validate(read_json(self.workspace.get(self.digest) / "run.json"))
        except ValidationError as error:
            raise IntegrityError(f"{self.digest[:12]} is not a run: its run.json does not fit.", code="NOT_A_RUN") from error

    def best(self) -> Model:
        """The model that was kept: the best validation score, or the last average of weights where no fold was left out."""
        return Model(self.model, self.workspace)
