"""Predict and score case by case, average by patient, put an interval on it. Works with any predictor.

A case that the predictor refuses is not dropped. It is charged as if nothing had been found: every structure it has counts as
missed, a structure it does not have earns no credit either, and `CaseScores.failed` holds the code of the refusal.

Only what somebody looked for is scored: a voxel that nobody annotated never changes a score, and a structure has no score in a
case where `task.partial` says that it was not annotated, whatever the model finds there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bedside.core.case import Case
from bedside.core.config import Evaluate
from bedside.core.errors import BedsideError, InputRejected, UsageError
from bedside.core.evidence import MEAN, CaseTiming, Evidence, Interval, MetricDefinition, over_labels
from bedside.core.labels import UNANNOTATED
from bedside.core.progress import SILENT, Progress
from bedside.core.task import Predictor
from bedside.evaluate.memory import peak_mb, reset_peak
from bedside.metrics.intervals import bootstrap_interval
from bedside.metrics.segmentation import DEFINITIONS, score
from bedside.tasks.annotation import Partial, annotated_in

DEFAULTS = Evaluate()

Table = dict[str, dict[str, dict[str, float]]]
"""metric -> label -> patient -> value."""


@dataclass(frozen=True)
class Scoring:
    """How one case is scored.

    Attributes:
        structures: names by training id, background first.
        metrics: names, the leading one first.
        tolerance_mm: of the surface Dice.
        partial: cases in which only some structures were annotated.
    """

    structures: tuple[str, ...]
    metrics: tuple[str, ...]
    tolerance_mm: float
    partial: tuple[Partial, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The structures that are scored: all but the background."""
        return self.structures[1:]

    @property
    def definitions(self) -> tuple[MetricDefinition, ...]:
        """What the metrics mean, the leading one first."""
        return tuple(DEFINITIONS[name] for name in self.metrics)


@dataclass(frozen=True)
class CaseScores:
    """What was measured of one case.

    Attributes:
        case, patient, site, scanner: as in the dataset.
        values: metric -> label -> value, of the labels that were annotated in the case.
        missed, hallucinated: of these labels.
        timing: of the prediction, end to end.
        failed: why the case could not be predicted (the code of the refusal), or "".
    """

    case: str
    patient: str
    site: str
    scanner: str
    values: Mapping[str, Mapping[str, float]]
    missed: frozenset[str]
    hallucinated: frozenset[str]
    timing: CaseTiming
    failed: str = ""

    @property
    def scored(self) -> bool:
        """Whether anything was annotated in the case."""
        return any(self.values.values())

    def mean(self, metric: str) -> float:
        """The mean over the labels that were annotated; at least one must be."""
        return float(np.mean(list(self.values[metric].values())))


Keep = Callable[[Case, CaseScores, NDArray[np.generic]], None]
"""Called with a case, its scores and the answer (I, J, K) while both are in memory."""


def measure(
    predict: Predictor,
    cases: Sequence[Case],
    *,
    scoring: Scoring,
    keep: Keep | None = None,
    progress: Progress = SILENT,
) -> tuple[CaseScores, ...]:
    """Predict and score every case, one in memory at a time.

    Args:
        predict: any predictor.
        cases: with a volume "label" of training ids each.
        scoring: what is measured.
        keep: called with every case, its scores and the answer.
        progress: told of every case.

    Raises:
        UsageError: there are no cases (NO_CASES), one has no mask (NO_LABEL), or nothing was annotated in any (NOT_ANNOTATED).
        InputRejected: LABEL_PARTIAL: a mask holds a structure that `task.partial` says was not annotated.
        BedsideError: a metric gave a number that is not finite, which is a defect of the metric.
    """
    if not len(cases):
        raise UsageError("There are no cases to evaluate on; choose another split.", code="NO_CASES")
    measured: list[CaseScores] = []
    progress.start("evaluate", float(len(cases)))
    for done, case in enumerate(cases, start=1):
        found, answer = _measure_case(predict, case, scoring)
        measured.append(found)
        if keep is not None:
            keep(case, found, answer)
        progress.advance(float(done), f"{case.id}: {_said(found, scoring.metrics[0])}")
    if not any(found.scored for found in measured):
        raise UsageError("In none of the cases anything was annotated; evaluate on cases that have masks.", code="NOT_ANNOTATED")
    return tuple(measured)


def _said(found: CaseScores, leading: str) -> str:
    if not found.scored:
        return "nothing annotated"
    return f"{leading} {found.mean(leading):.3f}{' (failed)' if found.failed else ''}"


def _annotated(mask: NDArray[np.generic], reference: NDArray[np.generic]) -> NDArray[np.generic]:
    """The mask with background where nobody annotated: what a model says there is neither right nor wrong."""
    unknown = reference == UNANNOTATED
    return np.where(unknown, mask.dtype.type(0), mask) if unknown.any() else mask


def _measure_case(predict: Predictor, case: Case, scoring: Scoring) -> tuple[CaseScores, NDArray[np.generic]]:
    if "label" not in case.volumes:
        raise UsageError(f"The case {case.id} has no mask to compare with; evaluate on cases that have one.", code="NO_LABEL")
    looked_for = annotated_in(case, scoring.partial, len(scoring.labels))
    labels = [label for number, label in enumerate(scoring.labels, start=1) if number in looked_for]
    reset_peak()
    begun = perf_counter()
    answer, failed = None, ""
    try:
        answer = predict(case).value
    except InputRejected as refusal:
        failed = refusal.code
    timing = CaseTiming(seconds=perf_counter() - begun, peak_memory_mb=peak_mb())
    reference = np.asarray(case.volumes["label"].array[0])
    truth = _annotated(reference, reference)
    scores = score(
        _no_answer(truth, len(scoring.structures)) if answer is None else _annotated(answer, reference),
        truth,
        structures=scoring.structures,
        spacing_mm=case.image.spacing_mm,
        tolerance_mm=scoring.tolerance_mm,
    )
    values = {metric: {label: scores.values[metric][label] for label in labels} for metric in scoring.metrics}
    _check_finite(values)
    missed = frozenset(labels) & frozenset(scores.missed)
    imaginary = frozenset(labels) & frozenset(scores.hallucinated if answer is not None else ())
    found = CaseScores(case.id, case.patient, case.site, case.scanner, values, missed, imaginary, timing, failed)
    return found, np.zeros_like(reference) if answer is None else answer


def _no_answer(reference: NDArray[np.generic], structures: int) -> NDArray[np.uint8]:
    """What a case without a prediction is scored as: nothing where there is a structure, one wrong voxel where there is none.

    The wrong voxel is there because "nothing found, rightly" would score full marks for a case that was never looked at.
    """
    answer = np.zeros(reference.shape, np.uint8)
    absent = [structure for structure in range(1, structures) if not (reference == structure).any()]
    answer.ravel()[: len(absent)] = absent
    return answer


def _check_finite(values: Mapping[str, Mapping[str, float]]) -> None:
    for metric, labels in values.items():
        if not np.isfinite(list(labels.values())).all():
            raise BedsideError(
                f"The metric {metric} gave a number that is not finite; a metric must charge instead.", code="METRIC"
            )


def patient_scores(measured: Iterable[CaseScores], scoring: Scoring) -> Table:
    """Average the cases of each patient: metric -> label -> patient -> value, in the order in which they were measured.

    A structure that was annotated in no case has an empty row.
    """
    found = {metric: {label: defaultdict[str, list[float]](list) for label in scoring.labels} for metric in scoring.metrics}
    for case in measured:
        for metric, labels in case.values.items():
            for label, value in labels.items():
                found[metric][label][case.patient].append(value)
    return {
        metric: {label: {patient: float(np.mean(v)) for patient, v in row.items()} for label, row in labels.items()}
        for metric, labels in found.items()
    }


def summarise(scores: Table, settings: Evaluate = DEFAULTS) -> dict[str, dict[str, Interval]]:
    """Mean over patients with its bootstrap interval: metric -> label, and the label "mean" -> interval.

    Each over the patients in whom it was annotated; a label that was annotated in none is left out.
    """

    def interval(patients: Mapping[str, float]) -> Interval:
        values = [patients[name] for name in sorted(patients)]
        return bootstrap_interval(values, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed)

    return {
        metric: {label: interval(row) for label, row in {**rows, MEAN: over_labels(rows)}.items() if row}
        for metric, rows in scores.items()
    }


def worst_first(evidence: Evidence) -> tuple[str, ...]:
    """Patients by their mean over labels of the leading metric, the worst first; ties by name."""
    leading = evidence.definitions[0]
    sign = 1.0 if leading.higher_is_better else -1.0
    means = over_labels(evidence.scores[leading.name])
    return tuple(sorted(means, key=lambda patient: (sign * means[patient], patient)))
