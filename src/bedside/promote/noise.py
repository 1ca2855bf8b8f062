"""How much the seed alone moves a score: what `train --seeds` last found, for the gates."""

from collections.abc import Sequence

from bedside.core.ledger import Event
from bedside.core.seeds import COMPARED


def noise_floor(history: Sequence[Event], metric: str, datasets: Sequence[str] = ()) -> float | None:
    """What two trainings that differ in the seed alone differ by at most in 95 of 100 pairs; None where nobody looked.

    Args:
        history: of the study, oldest first.
        metric: "dice", ...; the floor is in its unit, of the mean over structures.
        datasets: digests of which one must be what the seeds were compared on; none: any.
    """
    for event in reversed(history):
        floor = event.facts.get("noise_floor")
        fits = not datasets or event.inputs.get("dataset") in datasets
        if event.action == COMPARED and event.facts.get("metric") == metric and fits and isinstance(floor, float):
            return floor
    return None
