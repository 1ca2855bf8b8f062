"""May a new model replace an old one? Three conditions, all of which must hold.

Wilcoxon's test alone is what many plans write down. At its boundary (the true mean loss equals the margin) it declared a model
that harms one patient in ten by 0.30 Dice non-inferior in 85 % (n=20) to 99 % (n=60) of simulations, because it looks at the
median. So two conditions join it: the studentised bootstrap bounds the mean loss, and Clopper-Pearson bounds the share of
patients who lose catastrophically. Together they keep the error near 5 % for normal, catastrophic and exponentially skewed
differences (7 % at n=30), and pass a model that is truly fine; tests/metrics/test_noninferiority.py measures that. A tail as
heavy as a lognormal one (sigma 1) still raises the error to about 10 % at n=30 to 60, where Wilcoxon alone has 45 to 65 %.

References: those of `bedside.metrics.intervals`; ICH E9 and E10, Federal Register 63 (1998) 49583 and 66 (2001) 24390.
"""

from typing import Annotated

from pydantic import Field

from bedside.core.record import Record
from bedside.metrics import intervals

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Rule(Record):
    """What is asked; written down before the test split is read.

    Attributes:
        margin: loss of the mean that would still be accepted, in the metric's unit.
        alpha: size of each one-sided test.
        catastrophic: whether the third condition is asked for.
        catastrophic_drop: a larger loss is catastrophic for the patient, in the metric's unit.
        catastrophic_share: largest accepted share of such patients.
        min_patients: with fewer the answer is no.
        resamples, seed: of the bootstrap.
    """

    margin: Positive
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    catastrophic: bool = True
    catastrophic_drop: Positive = 0.10
    catastrophic_share: Annotated[float, Field(gt=0, lt=1)] = 0.10
    min_patients: Annotated[int, Field(ge=2)] = 10
    resamples: Annotated[int, Field(ge=1000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def patients_needed(self) -> int:
        """With fewer patients the answer is no whatever they show."""
        if not self.catastrophic:
            return self.min_patients
        return max(self.min_patients, intervals.patients_needed(self.catastrophic_share, confidence=1.0 - self.alpha))


class NonInferiorityTest(Record):
    """What was found for one structure.

    Attributes:
        n: patients.
        mean: mean difference, positive is better.
        wilcoxon_p: of the signed-rank test against the margin.
        lower_bound: one-sided bootstrap-t bound of the mean difference.
        catastrophic: patients who lost more than `catastrophic_drop`.
        catastrophic_upper: Clopper-Pearson upper bound of their share.
        median_holds, mean_holds, tail_holds: the three conditions; `tail_holds` is true where the rule does not ask for it.
        because: one sentence with the numbers that decided.
    """

    rule: Rule
    n: int
    mean: float
    wilcoxon_p: float
    lower_bound: float
    catastrophic: int
    catastrophic_upper: float
    median_holds: bool
    mean_holds: bool
    tail_holds: bool
    because: str

    @property
    def enough(self) -> bool:
        """Whether there are enough patients for the rule to be able to pass."""
        return self.n >= self.rule.patients_needed

    @property
    def passed(self) -> bool:
        """Whether the new model is non-inferior."""
        return self.enough and self.median_holds and self.mean_holds and self.tail_holds


def combined(differences: intervals.Values, rule: Rule) -> NonInferiorityTest:
    """Test whether paired differences (new minus old, positive is better, one per patient) are above -margin.

    With too few patients to pass, the answer is no and the sentence says how many are needed: no condition is dropped silently.

    Args:
        differences: (n,), in the metric's unit; turn the sign where lower is better.
        rule: margin, level and limits.

    Raises:
        UsageError: fewer than two patients, or a difference that is not finite.
    """
    array = intervals.validate(differences, least=2)
    p = intervals.wilcoxon_p(array, margin=rule.margin)
    lower = intervals.studentised_lower_bound(array, alpha=rule.alpha, resamples=rule.resamples, seed=rule.seed)
    bad = int((array < -rule.catastrophic_drop).sum())
    upper = intervals.clopper_pearson_upper(bad, array.size, confidence=1.0 - rule.alpha)
    found = NonInferiorityTest(
        rule=rule,
        n=array.size,
        mean=float(array.mean()),
        wilcoxon_p=p,
        lower_bound=lower,
        catastrophic=bad,
        catastrophic_upper=upper,
        median_holds=p <= rule.alpha,
        mean_holds=lower > -rule.margin,
        tail_holds=not rule.catastrophic or upper <= rule.catastrophic_share,
        because="",
    )
    return found.model_copy(update={"because": _sentence(found)})


def _sentence(found: NonInferiorityTest) -> str:
    rule = found.rule
    if not found.enough:
        why = f"; bounding catastrophic losses by {rule.catastrophic_share:.0%} needs that many" if rule.catastrophic else ""
        return f"too few patients: n={found.n}, the rule needs {rule.patients_needed}{why}"
    parts = [
        f"mean change {found.mean:+.4g} (n={found.n})",
        f"Wilcoxon p={found.wilcoxon_p:.2g} {_sign(holds=found.median_holds)} {rule.alpha:g}",
        f"lower bound of the mean {found.lower_bound:.4g} {'>' if found.mean_holds else '<='} {-rule.margin:g}",
    ]
    if rule.catastrophic:
        parts.append(
            f"{found.catastrophic} lost more than {rule.catastrophic_drop:g}, so at most {found.catastrophic_upper:.1%} do"
            f" {_sign(holds=found.tail_holds)} {rule.catastrophic_share:.0%}"
        )
    return ", ".join(parts)


def _sign(*, holds: bool) -> str:
    return "<=" if holds else ">"
