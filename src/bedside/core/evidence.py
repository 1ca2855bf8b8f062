"""What was measured, and what a gate made of it."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from bedside.core.errors import IntegrityError, UsageError
from bedside.core.record import Record
from bedside.core.workspace import Workspace, read_json

EVIDENCE_FILE = "evidence.json"
MEAN = "mean"
"""In the place of a label: the mean over the structures of each patient."""


class Interval(Record):
    """An estimate over patients with its confidence interval; all in the metric's unit."""

    mean: float
    low: float
    high: float
    n: int
    confidence: float


class MetricDefinition(Record):
    """What a number means.

    Attributes:
        name: "dice", "surface_dice", "hd95_mm", ...
        unit: "1" for a ratio, "mm", "ml".
        higher_is_better: direction.
        text: one sentence, with how missed and hallucinated structures are charged.
    """

    name: str
    unit: str
    higher_is_better: bool
    text: str


class CaseTiming(Record):
    """Cost of one prediction, end to end: read, preprocess, infer, postprocess."""

    seconds: float
    peak_memory_mb: float


class Evidence(Record):
    """Scores of one model on one split of one dataset.

    Attributes:
        scores: metric -> label -> patient -> value; where a patient has several cases, their mean. Never NaN.
        summaries: metric -> label -> interval over patients; label "mean" is the mean over labels per patient.
        missed, hallucinated: label -> patients whose structure was not found, or found where there is none.
        timings: case -> cost.
        groups: attribute ("scanner", "site") -> patient -> value.
        engine: what computed the predictions, as {name, settings}.
        rules: digest of the promotion rules that stood when the split was read.
    """

    kind: Literal["evidence"] = "evidence"
    model: str
    dataset: str
    split: str
    engine: dict[str, JsonValue]
    rules: str
    definitions: tuple[MetricDefinition, ...]
    scores: dict[str, dict[str, dict[str, float]]]
    summaries: dict[str, dict[str, Interval]]
    missed: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    hallucinated: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    timings: dict[str, CaseTiming]
    groups: dict[str, dict[str, str]] = Field(default_factory=dict)
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    def minus(self, other: "Evidence", metric: str) -> dict[str, dict[str, float]]:
        """Paired differences, label -> patient -> self minus other.

        Raises:
            UsageError: the two were not measured on the same patients, or the metric is not in both.
        """
        if metric not in self.scores or metric not in other.scores:
            raise UsageError(f"The metric {metric!r} was not measured for both models; evaluate both again.", code="METRIC")
        mine, theirs = self.scores[metric], other.scores[metric]
        if {k: set(v) for k, v in mine.items()} != {k: set(v) for k, v in theirs.items()}:
            raise UsageError(
                "The two models were not scored on the same patients; a paired comparison needs that.", code="UNPAIRED"
            )
        return {label: {patient: value - theirs[label][patient] for patient, value in row.items()} for label, row in mine.items()}


def over_labels(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """From label -> patient -> value to each patient's mean over the labels that were annotated in them."""
    patients = dict.fromkeys(patient for row in rows.values() for patient in row)
    return {patient: float(np.mean([row[patient] for row in rows.values() if patient in row])) for patient in patients}


def load_evidence(workspace: Workspace, digest: str) -> Evidence:
    """Read evidence back from the store.

    Raises:
        IntegrityError: it is not there, has changed, or is not evidence.
    """
    try:
        return Evidence.model_validate(read_json(workspace.get(digest) / EVIDENCE_FILE))
    except ValidationError as error:
        raise IntegrityError(f"{digest[:12]} is not evidence: its {EVIDENCE_FILE} does not fit.", code="NOT_EVIDENCE") from error


class Verdict(Record):
    """What one gate made of the evidence.

    Attributes:
        gate: its name.
        passed: whether it lets the model through.
        because: one sentence with the numbers that decided.
        numbers: all that was computed.
    """

    gate: str
    passed: bool
    because: str
    numbers: dict[str, JsonValue] = Field(default_factory=dict)
