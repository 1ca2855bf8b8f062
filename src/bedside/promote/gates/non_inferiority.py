"""A new model is not worse than the one in production: paired, per structure, on patients."""

import json
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, JsonValue

from bedside.core.errors import UsageError
from bedside.core.evidence import Evidence, Verdict
from bedside.core.record import Part
from bedside.core.task import GateInput
from bedside.promote.noise import noise_floor
from bedside.promote.paired import gains

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

    def judge(self, given: GateInput) -> Verdict:
        """Compare candidate and baseline patient by patient, for each structure."""
        if given.baseline is None:
            because = "Nothing is in production yet, so there is no model that this one could be inferior to."
            return Verdict(gate=self.part_name, passed=True, because=because)
        try:
            rows = self._gains(given.candidate, given.baseline)
        except UsageError as error:
            return Verdict(gate=self.part_name, passed=False, because=error.sentence)
        found = {label: self._test(tuple(row.values())) for label, row in sorted(rows.items())}
        failed = [label for label, test in found.items() if test is None or not test.passed]
        told = "; ".join(f"{label}: {_told(test)}" for label, test in found.items() if not failed or label in failed)
        against = f"the model in production ({given.baseline.model[:12]}) by a margin of {self.margin:g} {self.metric}"
        floor = noise_floor(given.history, self.metric)
        return Verdict(
            gate=self.part_name,
            passed=not failed,
            because=(
                f"For {', '.join(failed)} it is not shown to be non-inferior to {against}. {told}."
                if failed
                else f"Every structure is non-inferior to {against}. {told}."
            )
            + self._warning(floor),
            numbers={
                "metric": self.metric,
                "baseline": given.baseline.model,
                "labels": {label: _numbers(test) for label, test in found.items()},
                **({} if floor is None else {"noise_floor": floor}),
            },
        )

    def _warning(self, floor: float | None) -> str:
        if floor is None or self.margin >= floor:
            return ""
        return (
            f" The margin lies below the noise floor of {floor:.3g} {self.metric}: trainings that differ in the seed alone differ"
            " by as much, so a pass or a refusal this close may be chance of the seed."
        )

    def _gains(self, candidate: Evidence, baseline: Evidence) -> dict[str, dict[str, float]]:
        """Paired differences, label -> patient -> value, positive where the candidate is better."""
        rows = gains(candidate, baseline, self.metric, shows="non-inferiority")
        labels = self.labels or tuple(rows)
        unknown = [label for label in labels if label not in rows]
        if unknown or not rows:
            raise UsageError(
                f"There is no {self.metric} of {', '.join(unknown) or 'any structure'}; measured structures:"
                f" {', '.join(rows) or 'none'}.",
                code="METRIC",
            )
        return {label: rows[label] for label in labels}

    def _test(self, gains: tuple[float, ...]) -> "NonInferiorityTest | None":
        """Run the combined rule; None where there are not even two patients with finite values."""
        from bedside.metrics.noninferiority import Rule, combined

        settings = self.model_dump(exclude={"metric", "labels"})
        try:
            return combined(gains, Rule(**settings))
        except UsageError:
            return None


def _told(test: "NonInferiorityTest | None") -> str:
    return "fewer than two patients with a finite difference" if test is None else test.because


def _numbers(test: "NonInferiorityTest | None") -> JsonValue:
    if test is None:
        return None
    plain = json.loads(test.model_dump_json(exclude={"rule", "because"}))  # an infinite bound becomes a word: JSON has no number
    return {**plain, "passed": test.passed}
