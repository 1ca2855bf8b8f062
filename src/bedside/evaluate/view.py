"""What the report says, as plain words and numbers: every choice of wording, order and rounding is made here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bedside.core.evidence import MEAN, Evidence, Interval, MetricDefinition, over_labels
from bedside.core.ledger import Event
from bedside.core.workspace import Workspace
from bedside.evaluate.figures import metric_title
from bedside.evaluate.images import Image, charged, distribution_image, failed, labels_of, number, overlay_images, words
from bedside.evaluate.measure import worst_first
from bedside.evaluate.pipeline import digest_of
from bedside.metrics.intervals import bootstrap_interval

SMALL_GROUP = 5
FEW_PATIENTS = 20
NOT_SCORED = "\N{EN DASH}"
SHOWN_FIRST = ("dice", "surface_dice", "hd95_mm")


@dataclass(frozen=True)
class SummaryRow:
    """One label of one metric."""

    label: str
    mean: str
    low: str
    high: str
    worst: str
    n: int
    is_mean: bool


@dataclass(frozen=True)
class MetricRows:
    """One metric of the table of scores."""

    title: str
    definition: MetricDefinition
    better: str
    unit: str
    rows: tuple[SummaryRow, ...]


@dataclass(frozen=True)
class LossRow:
    """Patients in whom a structure was missed or hallucinated."""

    label: str
    missed: tuple[str, ...]
    hallucinated: tuple[str, ...]


@dataclass(frozen=True)
class GroupRow:
    """One scanner or site."""

    value: str
    n: int
    cells: tuple[str, ...]
    small: bool


@dataclass(frozen=True)
class GroupTable:
    """Scores by scanner or by site."""

    attribute: str
    titles: tuple[str, ...]
    rows: tuple[GroupRow, ...]

    @property
    def has_small(self) -> bool:
        """Whether a group is too small for an interval."""
        return any(row.small for row in self.rows)


@dataclass(frozen=True)
class CostRow:
    """Seconds or memory over cases."""

    name: str
    unit: str
    p50: str
    p95: str
    largest: str
    n: int


@dataclass(frozen=True)
class Cell:
    """One number of one patient; `first` of its metric."""

    value: str
    charged: bool
    first: bool


@dataclass(frozen=True)
class PatientRow:
    """One patient of the table that has the worst first."""

    patient: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class View:
    """All that the template needs."""

    study: str
    digest: str
    json_name: str
    sentence: str
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    confidence: str
    small_group: int
    leading: str
    labels: tuple[str, ...]
    metrics: tuple[MetricRows, ...]
    losses: tuple[LossRow, ...]
    failed: tuple[tuple[str, str], ...]
    pictures: tuple[Image, ...]
    distribution: Image
    groups: tuple[GroupTable, ...]
    costs: tuple[CostRow, ...]
    patient_titles: tuple[str, ...]
    patients: tuple[PatientRow, ...]


def view(evidence: Evidence, workspace: Workspace) -> View:
    """Put the evidence into words; the workspace gives the ledger and the pictures."""
    digest = digest_of(evidence)
    leading = evidence.definitions[0]
    shown = _shown(evidence)
    return View(
        study=_study(evidence),
        digest=digest,
        json_name=f"evaluation-{digest[:12]}.json",
        sentence=_sentence(evidence),
        notes=_notes(evidence, workspace, digest),
        facts=_facts(evidence, workspace, digest),
        confidence=_confidence(evidence),
        small_group=SMALL_GROUP,
        leading=metric_title(leading),
        labels=tuple(words(label) for label in labels_of(evidence)),
        metrics=tuple(_metric(evidence, definition) for definition in evidence.definitions),
        losses=tuple(
            LossRow(words(label), evidence.missed.get(label, ()), evidence.hallucinated.get(label, ()))
            for label in labels_of(evidence)
        ),
        failed=tuple(sorted(failed(evidence).items())),
        pictures=overlay_images(evidence, workspace, digest),
        distribution=distribution_image(evidence),
        groups=tuple(_group(evidence, attribute, shown) for attribute in evidence.groups),
        costs=_costs(evidence),
        patient_titles=tuple(metric_title(definition) for definition in shown),
        patients=tuple(_patient(evidence, patient, shown) for patient in worst_first(evidence)),
    )


def _shown(evidence: Evidence) -> tuple[MetricDefinition, ...]:
    wanted = tuple(definition for definition in evidence.definitions if definition.name in SHOWN_FIRST)
    return wanted or evidence.definitions[:3]


def _study(evidence: Evidence) -> str:
    return str(evidence.settings.get("study", "")) or "evaluation"


def _confidence(evidence: Evidence) -> str:
    first = next(iter(evidence.summaries[evidence.definitions[0].name].values()))
    return f"{100 * first.confidence:g} %"


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _sentence(evidence: Evidence) -> str:
    leading = evidence.definitions[0]
    summary = evidence.summaries[leading.name][MEAN]
    missed, imaginary = (sum(map(len, rows.values())) for rows in (evidence.missed, evidence.hallucinated))
    split = "the locked test split" if evidence.split == "test" else f"the split {evidence.split}"
    return (
        f"On {_plural(summary.n, 'patient')} of {split} the mean {metric_title(leading)} was {number(summary.mean, leading)}"
        f" ({_confidence(evidence)} interval {number(summary.low, leading)} to {number(summary.high, leading)})."
        f" {_plural(missed, 'structure was', 'structures were')} missed and {imaginary} hallucinated."
    )


def _notes(evidence: Evidence, workspace: Workspace, digest: str) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    notes: list[str] = []
    patients = evidence.summaries[evidence.definitions[0].name][MEAN].n
    notes.extend(_annotation_notes(evidence, patients))
    reads = evidence.settings.get("test_split_reads")
    if failed(evidence):
        count = _plural(len(failed(evidence)), "case")
        notes.append(f"{count} could not be predicted and counted as if nothing had been found; see the list below.")
    if evidence.split != "test":
        notes.append(f"These are scores of the split {evidence.split}, not of the locked test split.")
    elif isinstance(reads, int) and reads > 1:
        notes.append(f"The test split had been read {reads} times; the more often it guides choices, the better it looks.")
    if evidence.split == "test" and not evidence.rules:
        notes.append("No promotion rules had been frozen when the test split was read.")
    if patients < FEW_PATIENTS:
        notes.append(f"There are only {_plural(patients, 'patient')}; intervals of so few are rough.")
    chain = workspace.ledger.verify()
    if not chain.intact:
        notes.append(f"The study's ledger is broken: {chain}.")
    elif _event(workspace, digest) is None:
        notes.append("This evidence is not in the ledger of the study it was reported in.")
    return tuple(notes)


def _annotation_notes(evidence: Evidence, patients: int) -> list[str]:
    """On how many patients each structure was scored, where these are not the same for all."""
    rows = evidence.scores[evidence.definitions[0].name]
    counts = {label: len(rows[label]) for label in labels_of(evidence)}
    notes = []
    if set(counts.values()) != {patients}:
        told = ", ".join(f"{words(label)} on {count}" for label, count in counts.items())
        notes.append(
            f"Not every structure was annotated in every patient: of {patients}, {told}. Each is scored only where it was"
            " annotated, and a patient's mean is over the structures that were."
        )
    unscored = evidence.settings.get("unscored")
    if isinstance(unscored, list) and unscored:
        notes.append(f"{_plural(len(unscored), 'case')} had no annotated voxel and no score.")
    return notes


def _event(workspace: Workspace, digest: str) -> Event | None:
    """The `evaluated` event of the evidence. An unreadable ledger has none; `_notes` says that it is broken."""
    if not workspace.ledger.verify().intact:
        return None
    events = (event for event in workspace.ledger.events() if event.outputs.get("evidence") == digest)
    return next(events, None)


def _facts(evidence: Evidence, workspace: Workspace, digest: str) -> tuple[tuple[str, str], ...]:
    event = _event(workspace, digest)
    settings = evidence.settings
    patients = evidence.summaries[evidence.definitions[0].name][MEAN].n
    engine = ", ".join(f"{words(key)} {value}" for key, value in evidence.engine.items() if key != "name" and value is not None)
    return (
        ("model", evidence.model),
        ("dataset", evidence.dataset),
        ("split", f"{evidence.split}, {_plural(patients, 'patient')}, {_plural(len(evidence.timings), 'case')}"),
        ("engine", f"{evidence.engine.get('name', 'unknown')}{f' ({engine})' if engine else ''}"),
        ("promotion rules", evidence.rules or "none frozen"),
        ("ledger head", f"{event.seq}:{event.hash}" if event else "not in the ledger"),
        ("evaluated", f"{event.time[:19].replace('T', ' ')} UTC" if event else "unknown"),
        ("evidence", digest),
        ("surface tolerance", f"{settings.get('surface_tolerance_mm', 'unknown')} mm"),
        ("overlap of windows", str(settings.get("overlap", "unknown"))),
        ("bootstrap", f"{settings.get('resamples', 'unknown')} resamples over patients, seed {settings.get('seed', 'unknown')}"),
    )


def _metric(evidence: Evidence, definition: MetricDefinition) -> MetricRows:
    rows = evidence.scores[definition.name]
    worst = min if definition.higher_is_better else max

    def row(label: str, shown: str, values: Mapping[str, float]) -> SummaryRow:
        if not values:
            return SummaryRow(shown, NOT_SCORED, NOT_SCORED, NOT_SCORED, NOT_SCORED, 0, label == MEAN)
        found = evidence.summaries[definition.name][label]
        mean, low, high, last = (number(v, definition) for v in (found.mean, found.low, found.high, worst(values.values())))
        return SummaryRow(shown, mean, low, high, last, found.n, label == MEAN)

    single = [row(label, words(label), rows[label]) for label in labels_of(evidence)]
    better = "Higher is better" if definition.higher_is_better else "Lower is better"
    unit = "ratio" if definition.unit == "1" else definition.unit
    return MetricRows(
        metric_title(definition).removesuffix(f" ({definition.unit})") + _tolerance(evidence, definition),
        definition,
        better,
        unit,
        (*single, row(MEAN, "all", over_labels(rows))),
    )


def _tolerance(evidence: Evidence, definition: MetricDefinition) -> str:
    tolerance = evidence.settings.get("surface_tolerance_mm")
    return f" at {tolerance:g} mm" if definition.name == "surface_dice" and isinstance(tolerance, int | float) else ""


def _group(evidence: Evidence, attribute: str, shown: Sequence[MetricDefinition]) -> GroupTable:
    members: dict[str, list[str]] = {}
    for patient, value in evidence.groups[attribute].items():
        members.setdefault(value, []).append(patient)
    means = {definition.name: over_labels(evidence.scores[definition.name]) for definition in shown}
    rows = [
        GroupRow(
            value or "not recorded",
            len(patients),
            tuple(
                _group_cell(evidence, definition, [means[definition.name][name] for name in sorted(patients)])
                for definition in shown
            ),
            len(patients) < SMALL_GROUP,
        )
        for value, patients in sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return GroupTable(attribute, tuple(metric_title(definition) for definition in shown), tuple(rows))


def _group_cell(evidence: Evidence, definition: MetricDefinition, values: Sequence[float]) -> str:
    if len(values) < SMALL_GROUP:
        return number(float(np.mean(values)), definition)
    found = _interval(evidence, values)
    return f"{number(found.mean, definition)} ({number(found.low, definition)} to {number(found.high, definition)})"


def _interval(evidence: Evidence, values: Sequence[float]) -> Interval:
    """With the confidence, resamples and seed of the evaluation."""
    settings = evidence.settings
    confidence = next(iter(evidence.summaries[evidence.definitions[0].name].values())).confidence
    resamples, seed = settings.get("resamples"), settings.get("seed")
    return bootstrap_interval(
        values,
        confidence=confidence,
        resamples=resamples if isinstance(resamples, int) else 2000,
        seed=seed if isinstance(seed, int) else 0,
    )


def _costs(evidence: Evidence) -> tuple[CostRow, ...]:
    timings = list(evidence.timings.values())

    def row(name: str, unit: str, values: Sequence[float], decimals: int) -> CostRow:
        p50, p95, largest = (f"{value:.{decimals}f}" for value in np.percentile(values, (50, 95, 100)))
        return CostRow(name, unit, p50, p95, largest, len(values))

    return (
        row("time", "s", [timing.seconds for timing in timings], 2),
        row("peak memory", "MB", [timing.peak_memory_mb for timing in timings], 0),
    )


def _patient(evidence: Evidence, patient: str, shown: Sequence[MetricDefinition]) -> PatientRow:
    def said(definition: MetricDefinition, label: str) -> str:
        row = evidence.scores[definition.name][label]
        return number(row[patient], definition) if patient in row else NOT_SCORED

    return PatientRow(
        patient,
        tuple(
            Cell(
                said(definition, label),
                patient in charged(evidence)[label],
                place == 0,
            )
            for definition in shown
            for place, label in enumerate(labels_of(evidence))
        ),
    )
