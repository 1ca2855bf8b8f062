"""One training, as a record in the store."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue, ValidationError

from bedside.core.adapt import Matched
from bedside.core.errors import IntegrityError
from bedside.core.model import Model
from bedside.core.plan import Plan
from bedside.core.record import Record
from bedside.core.workspace import Workspace, read_json


def training_name(key: str) -> str:
    """What a training is called while it is under way, by the key that the ledger has for it."""
    return f"train-{key[:32]}"


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


class Incident(Record):
    """Something that a training had to deal with, and went on.

    Attributes:
        step: steps done when it happened.
        code: NOT_FINITE (a step was skipped), RESTORED (the last good state was taken up), SMALLER (for want of memory),
            CHECKPOINT_DAMAGED (the one before was taken), WORKER_REPLACED, BEGUN_FROM (weights of another model).
        said: what happened, for people; cases: the pseudonyms it concerns.
    """

    step: int
    code: str
    said: str
    cases: tuple[str, ...] = ()


class Cost(Record):
    """What a training took, over all its sittings.

    Attributes:
        wall_seconds: by the clock on the wall; cpu_seconds: of processors, workers that have ended included.
        step_seconds: in forward and backward passes; data_seconds: in waiting for batches; validation_seconds: in scoring;
        augment_seconds: that batches took to be made, wherever they were made.
        joules: of energy; measured: whether the processor's own counter said so (RAPL), else `cpu_seconds` times the watts of
            one core that site.yaml states.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_seconds: float = 0.0
    data_seconds: float = 0.0
    validation_seconds: float = 0.0
    augment_seconds: float = 0.0
    joules: float = 0.0
    measured: bool = False

    @property
    def data_wait_share(self) -> float:
        """Share of the training steps that went by in waiting for batches."""
        return self.data_seconds / max(1e-9, self.data_seconds + self.step_seconds)

    def utilisation(self, cores: int) -> float:
        """Share of the processors that was busy."""
        return self.cpu_seconds / max(1e-9, self.wall_seconds * cores)


class RunRecord(Record):
    """`run.json` of a training.

    Attributes:
        study: the resolved study tree; study_digest: its hash; plan: what was done of it, every number decided.
        dataset: digest of the training data; environment: of what it ran in; commit: of the code, with "+" if edited.
        model: digest of the best weights.
        steps, minutes: done; `peak_memory_mb`: largest resident memory.
        device: "cpu", or the name of the accelerator; device_peak_mb: the most of its memory that was held, in MB of 10^6 bytes.
        schedule: the first plan, and each correction where the machine turned out slower or faster than it began. A run with
            one entry is repeated exactly with `train.steps`.
        curve: loss, and score of the left-out fold where there is one.
        incidents: what the training had to deal with; cost: what it took; threads: that computed, in each of `processes`;
            deterministic: whether every operation was one that repeats to the bit.
        precision: that "auto" was resolved to; "" where a version before it was recorded trained.
        parent: digest of the weights that it began with; "" where it began by chance; begun: what of them fitted.
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
    incidents: tuple[Incident, ...] = ()
    cost: Cost = Cost()
    threads: int = 0
    processes: int = 1
    deterministic: bool = False
    precision: str = ""
    parent: str = ""
    begun: Matched | None = None
    device: str = "cpu"
    device_peak_mb: float = 0.0


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
