"""A candidate beside the model in production, patient by patient."""

from bedside.core.errors import UsageError
from bedside.core.evidence import Evidence


def gains(candidate: Evidence, baseline: Evidence, metric: str, *, shows: str) -> dict[str, dict[str, float]]:
    """Paired differences, label -> patient -> value in the metric's unit, positive where the candidate is better.

    Args:
        candidate: the new model's scores.
        baseline: those of the model in production, on the same patients.
        metric: "dice", ...
        shows: what nothing shows without that metric, for the sentence.

    Raises:
        UsageError: METRIC: it was not measured for both; UNPAIRED: they were scored on other patients.
    """
    definition = next((d for d in candidate.definitions if d.name == metric), None)
    if definition is None:
        raise UsageError(f"The metric {metric} was not measured, so nothing shows {shows}.", code="METRIC")
    sign = 1.0 if definition.higher_is_better else -1.0
    rows = candidate.minus(baseline, metric)
    return {label: {patient: sign * value for patient, value in row.items()} for label, row in rows.items()}
