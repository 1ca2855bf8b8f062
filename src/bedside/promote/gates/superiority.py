"""A new model is better than the one in production, by more than the choice of patients or of the seed explains."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from bedside.core.errors import UsageError
from bedside.core.evidence import MEAN, Evidence, Verdict, over_labels
from bedside.core.record import Part
from bedside.core.seeds import METRIC
from bedside.core.task import GateInput
from bedside.promote.noise import noise_floor
from bedside.promote.paired import gains


class Superiority(Part):
    """The mean gain over patients is shown to be above `margin`, and is above the noise floor of the seed.

    The bound over patients says that this model is better on patients like these. It says nothing of chance in training: another
    seed of the recipe in production may gain as much. Above the noise floor that happens in 5 of 200 cases, if the seeds were
    those of one of the two recipes; which recipe's they were is not checked, but they must be of one of the two datasets.

    Attributes:
        metric: "dice", "hd95_mm", ...
        label: a structure, or "mean" for the mean over structures of each patient.
        margin: the gain that must be surpassed, in the metric's unit.
        noise: "required" refuses where `bedside train --seeds` did not measure on the candidate's or the baseline's dataset how
            much the seed moves this metric; it measures Dice as the mean over structures only. "ignore" looks at patients alone,
            and the verdict says so.
        alpha: size of the one-sided test.
        min_patients: with fewer the gate refuses.
        resamples, seed: of the bootstrap.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "superiority"

    metric: str = "dice"
    label: str = MEAN
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    noise: Literal["required", "ignore"] = "required"
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    min_patients: Annotated[int, Field(ge=2)] = 10
    resamples: Annotated[int, Field(ge=1000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0

    def judge(self, given: GateInput) -> Verdict:
        """Compare candidate and baseline patient by patient, and their gain with the noise floor."""
        if given.baseline is None:
            because = "Nothing is in production yet, so there is no model to be better than."
            return Verdict(gate=self.part_name, passed=True, because=because)
        datasets = (given.candidate.dataset, given.baseline.dataset)
        floor = noise_floor(given.history, self.metric, datasets) if self.noise == "required" and self.label == MEAN else None
        try:
            self._check_noise(floor)
            found = self._gains(given.candidate, given.baseline)
        except UsageError as error:
            return Verdict(gate=self.part_name, passed=False, because=error.sentence)
        return self._compared(found, floor, against=given.baseline.model)

    def _check_noise(self, floor: float | None) -> None:
        if self.noise == "ignore" or floor is not None:
            return
        if self.label != MEAN or self.metric != METRIC:
            raise UsageError(
                f"How much the seed moves {self.metric} of {self.label} is never measured; compare {METRIC} over all structures"
                " (label: mean), or set noise: ignore.",
                code="NOISE",
            )
        raise UsageError(
            f"Nobody measured on this dataset how much the seed alone moves {self.metric}, so no gain is above it; run bedside"
            " train --seeds 5, or set noise: ignore.",
            code="NOISE",
        )

    def _gains(self, candidate: Evidence, baseline: Evidence) -> tuple[float, ...]:
        """One difference per patient, positive where the candidate is better."""
        rows = gains(candidate, baseline, self.metric, shows="a gain")
        found = over_labels(rows if self.label == MEAN else {self.label: rows.get(self.label, {})})
        if len(found) < self.min_patients:
            raise UsageError(
                f"{len(found)} patients have {self.metric} of {self.label}, and a gain is judged from {self.min_patients} on.",
                code="METRIC",
            )
        return tuple(found[patient] for patient in sorted(found))

    def _compared(self, found: tuple[float, ...], floor: float | None, *, against: str) -> Verdict:
        from bedside.metrics.intervals import studentised_lower_bound

        try:
            low = studentised_lower_bound(found, alpha=self.alpha, resamples=self.resamples, seed=self.seed)
        except UsageError as error:
            return Verdict(gate=self.part_name, passed=False, because=error.sentence)
        gain = sum(found) / len(found)
        shown, above = low > self.margin, floor is None or gain > floor
        who = "averaged over structures" if self.label == MEAN else f"of {self.label}"
        noise = (
            "what the seed moves was not looked at"
            if floor is None
            else f"the gain is {'above' if above else 'not above'} the {floor:.4g} that the seed alone explains"
        )
        numbers: dict[str, JsonValue] = {
            "metric": self.metric,
            "label": self.label,
            "baseline": against,
            "n": len(found),
            "gain": gain,
            "lower_bound": _number(low),
            "margin": self.margin,
            "noise_floor": floor,
        }
        return Verdict(
            gate=self.part_name,
            passed=shown and above,
            because=(
                f"Mean {self.metric} {who} gains {gain:+.4g} over the model in production ({against[:12]}, n={len(found)}); the"
                f" lower bound {low:.4g} is {'above' if shown else 'not above'} {self.margin:g}, and {noise}."
            ),
            numbers=numbers,
        )


def _number(value: float) -> JsonValue:
    """An infinite bound becomes a word: JSON has no number for it."""
    return str(value) if value in {float("inf"), float("-inf")} else value
