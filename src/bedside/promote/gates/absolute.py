"""A floor (or a ceiling) that a model must keep, whatever is in production."""

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue, model_validator

from bedside.core.evidence import Evidence, Interval, Verdict
from bedside.core.record import Part
from bedside.core.task import GateInput

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Absolute(Part):
    """The mean over patients of one metric is at least a floor, or at most a ceiling.

    Attributes:
        metric: "dice", "hd95_mm", ...
        floor: smallest mean allowed, for a metric where higher is better; in the metric's unit.
        ceiling: largest mean allowed, for a metric where lower is better; in the metric's unit.
        label: a structure, or "mean" for the mean over structures of each patient.
        use_lower_bound: whether the unfavourable end of the confidence interval must keep the limit, not only the mean.
        max_missed: how many structures (patient by structure) may be missed altogether.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "absolute"

    metric: str = "dice"
    floor: Finite | None = None
    ceiling: Finite | None = None
    label: str = "mean"
    use_lower_bound: bool = False
    max_missed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_limit(self) -> "Absolute":
        if (self.floor is None) == (self.ceiling is None):
            raise ValueError("give one of floor (higher is better) and ceiling (lower is better)")
        return self

    def judge(self, given: GateInput) -> Verdict:
        """Compare the candidate's summary with the limit and count its missed structures."""
        evidence = given.candidate
        problem = self._problem(evidence)
        if problem:
            return Verdict(gate=self.part_name, passed=False, because=problem)
        found = evidence.summaries[self.metric][self.label]
        missed = self._missed(evidence)
        within = self._within(found)
        unit = next(d.unit for d in evidence.definitions if d.name == self.metric)
        return Verdict(
            gate=self.part_name,
            passed=within and missed <= self.max_missed,
            because=self._sentence(found, missed, within=within, unit="" if unit == "1" else f" {unit}"),
            numbers=self._numbers(found, missed),
        )

    def _problem(self, evidence: Evidence) -> str:
        definition = next((d for d in evidence.definitions if d.name == self.metric), None)
        if definition is None or self.metric not in evidence.summaries:
            known = ", ".join(sorted(evidence.summaries)) or "none"
            return f"The metric {self.metric} was not measured, so nothing shows that the limit is kept; measured: {known}."
        if definition.higher_is_better != (self.floor is not None):
            better, limit = ("higher", "floor") if definition.higher_is_better else ("lower", "ceiling")
            return f"For {self.metric} {better} is better, so the rule must set a {limit}; as it stands it protects nobody."
        if self.label not in evidence.summaries[self.metric]:
            known = ", ".join(sorted(evidence.summaries[self.metric])) or "none"
            return f"There is no {self.metric} of {self.label!r}; measured structures: {known}."
        unseen = [label for label, row in evidence.scores[self.metric].items() if not row]
        if self.label == "mean" and unseen:
            return f"No patient had {', '.join(sorted(unseen))} annotated, so nothing shows how well the model finds it."
        return ""

    def _missed(self, evidence: Evidence) -> int:
        return sum(len(patients) for label, patients in evidence.missed.items() if self.label in {"mean", label})

    def _within(self, found: Interval) -> bool:
        if self.floor is not None:
            return (found.low if self.use_lower_bound else found.mean) >= self.floor
        assert self.ceiling is not None
        return (found.high if self.use_lower_bound else found.mean) <= self.ceiling

    def _sentence(self, found: Interval, missed: int, *, within: bool, unit: str) -> str:
        limit = f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"
        who = "averaged over structures" if self.label == "mean" else f"of {self.label}"
        which = "the unfavourable end of the interval" if self.use_lower_bound else "the mean"
        keeps = "keeps" if within else "breaks"
        allowed = "as allowed" if missed <= self.max_missed else "too many"
        return (
            f"Mean {self.metric} {who} is {found.mean:.4g}{unit} ({found.confidence:.0%} interval {found.low:.4g} to"
            f" {found.high:.4g}, n={found.n}); {which} {keeps} the limit of {limit}{unit}, and {missed} structures were missed"
            f" where at most {self.max_missed} may be, {allowed}."
        )

    def _numbers(self, found: Interval, missed: int) -> dict[str, JsonValue]:
        return {
            "metric": self.metric,
            "label": self.label,
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
            "n": found.n,
            "limit": self.floor if self.floor is not None else self.ceiling,
            "missed": missed,
            "max_missed": self.max_missed,
        }
