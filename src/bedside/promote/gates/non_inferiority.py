"""A new model is not worse than the one in production: paired, per structure, on patients."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, JsonValue

from bedside.core.errors import UsageError
from bedside.core.evidence import Evidence, Verdict
from bedside.core.record import Part
from bedside.core.task import GateInput

if TYPE_CHECKING:
    from bedside.metrics.noninferiority import NonInferiorityTest

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


class NonInferiority(Part):
    """Every structure passes the combined rule of `bedside.metrics.noninferiority` against the model in production.

    Every structure must pass, so no correction for testing several is needed (an intersection-union test).

    Attributes:
        metric: "dice", "hd95_mm", ...
        margin: the loss of the mean that would still be accepted, in the metric's unit.
        labels: structures that are compared; None: all that were measured.
        alpha: size of each one-sided test.
        catastrophic: whether the share of patients with a catastrophic loss is bounded too. It can only be shown with enough
            patients (29 for 10 % at alpha 0.05); with fewer the gate refuses and says so, unless this is false.
        catastrophic_drop: a loss larger than this, in the metric's unit, is catastrophic for the patient.
        catastrophic_share: largest share of such patients that is accepted.
        min_patients: with fewer the gate refuses.
        resamples, seed: of the bootstrap.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "non_inferiority"

    metric: str = "dice"
    margin: Positive
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    catastrophic: bool = True
    catastrophic_drop: Positive = 0.10
    catastrophic_share: Share = 0.10
    min_patients: Annotated[int, Field(ge=2)] = 10
    resamples: Annotated[int, Field(ge=1000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
