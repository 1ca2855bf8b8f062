"""What `recreate` found: a run done again, or scored again, in a folder of its own."""

from typing import Literal

from bedside.core.record import Record


class Recreated(Record):
    """How a run compares with itself done again.

    Attributes:
        run, model, dataset: digests of what was recreated.
        how: "trained" again, or only "scored".
        deterministic: whether the run must repeat to the bit.
        same: whether weights (or every score, where only scored) are equal to the bit.
        agrees: `same`, or, where the run need not repeat to the bit, within the tolerance.
        weights_was, weights_now: SHA-256 of the files of weights; "" where only scored.
        metric: what the scores are; score_was, score_now: of both; None where weights are equal and nothing had to be scored.
        tolerance: largest difference of scores that counts as none; tolerance_from: where it comes from.
        environment_same: whether the environment has the recorded digest; differences: what differs, code included.
        built: of which packages, by which installer and in how many seconds the environment was made; "" where none was.
        because: one sentence with what decided.
    """

    run: str
    model: str
    dataset: str
    how: Literal["trained", "scored"]
    deterministic: bool
    same: bool
    agrees: bool
    weights_was: str = ""
    weights_now: str = ""
    metric: str = ""
    score_was: float | None = None
    score_now: float | None = None
    tolerance: float = 0.0
    tolerance_from: str = ""
    environment_same: bool
    differences: tuple[str, ...]
    built: str = ""
    because: str


class RecreationPlan(Record):
    """What `recreate --what-if` says would be done.

    Attributes:
        missing: digests of values that are not in this store and would be fetched.
        minutes_then: that the training took.
        environment_same, differences: this environment and the recorded one.
    """

    run: str
    how: Literal["train", "score"]
    folder: str
    dataset: str
    missing: tuple[str, ...]
    steps: int
    corrections: int
    minutes_then: float
    deterministic: bool
    environment_same: bool
    differences: tuple[str, ...]
