"""What came of asking whether beginning with other weights helped, and of comparing an old model with a new one."""

from typing import Literal

from bedside.core.evidence import Interval
from bedside.core.record import Record

TransferVerdict = Literal["transfer helps", "no difference", "NEGATIVE TRANSFER"]


class Transfer(Record):
    """`transfer.json`: a fine-tuned model beside a control that began by chance, at equal budget, on the left-out fold.

    Attributes:
        model, control, parent: digests of the fine-tuned model, of the one from scratch, and of what the first began with.
        dataset, split: what both were scored on; never the locked test split.
        steps: of both trainings; plan: digest of the plan that both had.
        metric: name of the leading metric, mean over structures.
        differences: patient -> fine-tuned minus control, positive where the fine-tuned one is better.
        interval: of their mean.
        better_p, worse_p: one-sided signed-rank tests that it is better, or worse.
        evidence, control_evidence: digests of the scores.
    """

    kind: Literal["transfer"] = "transfer"
    model: str
    control: str
    parent: str
    dataset: str
    split: str
    steps: int
    plan: str
    metric: str
    differences: dict[str, float]
    interval: Interval
    better_p: float
    worse_p: float
    verdict: TransferVerdict
    because: str
    evidence: str
    control_evidence: str


class Compared(Record):
    """Two models on the same patients.

    Attributes:
        of: which patients: "old test patients", "new test patients", "all test patients".
        n: how many; old, new: mean of the leading metric; difference: new minus old, positive where the new one is better.
    """

    of: str
    n: int
    old: float
    new: float
    difference: Interval


class Retrained(Record):
    """What `retrain` did.

    Attributes:
        run, model: of the new training; from_run, from_model: of the old one.
        dataset, from_dataset: what they learned from.
        fine_tuned: whether the new one began with the old one's weights.
        metric: of the comparison; rows: old and new model on the patients of the test split.
        transfer: digest of the check against negative transfer, "" where none was asked for; verdict: of it.
    """

    run: str
    model: str
    from_run: str
    from_model: str
    dataset: str
    from_dataset: str
    fine_tuned: bool
    metric: str
    rows: tuple[Compared, ...]
    transfer: str = ""
    verdict: str = ""


class RetrainPlan(Record):
    """What `retrain --what-if` says would be done."""

    from_run: str
    dataset: str
    development_cases_then: int
    development_cases_now: int
    old_test_patients: int
    new_test_patients: int
    steps: int
    fine_tuned: bool
    control: bool
