"""Score a model on the cases of one split, patient by patient, and store what was measured.

A case that the model's contract refuses is not dropped. It is charged as if nothing had been found: every structure it has counts
as missed, a structure it does not have earns no credit either, and the case is named with its reason in `settings["failed"]`.
Where the model's task says that only some structures were annotated in a case, only these are scored there.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from pydantic import JsonValue

from bedside.adapters.machine import MEGABYTE, memory_bytes
from bedside.core.config import Evaluate
from bedside.core.dataset import CaseSequence
from bedside.core.digest import canonical_json, digest_bytes, digest_json
from bedside.core.errors import UsageError, disk_errors
from bedside.core.evidence import EVIDENCE_FILE, MEAN, Evidence
from bedside.core.labels import check_meeting
from bedside.core.ledger import Event, Ledger
from bedside.core.lesson import check_finds_structures
from bedside.core.model import Model
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import Predictor, Task
from bedside.core.workspace import Workspace
from bedside.evaluate.album import Album
from bedside.evaluate.measure import DEFAULTS, CaseScores, Scoring, measure, patient_scores, summarise
from bedside.tasks.annotation import partial_of


def evaluate(
    model: Model,
    cases: CaseSequence,
    *,
    settings: Evaluate = DEFAULTS,
    engine: Part | None = None,
    progress: Progress = SILENT,
) -> Evidence:
    """Predict and score every case, store the evidence and write it into the ledger.

    Args:
        model: to be judged.
        cases: of one split; `dataset.cases("test")` has written the reading of a locked split into the ledger.
        settings: tolerance, overlap of windows, intervals.
        engine: what computes; default: the engine that the model names.
        progress: told of every case.

    Raises:
        UsageError: there are no cases (NO_CASES), a case has no mask (NO_LABEL), nothing was annotated (NOT_ANNOTATED), or model
            and dataset name other structures (STRUCTURES) or mean others by them (LABEL_MAP).
        IntegrityError: the bytes of the model or of the dataset have changed.
        ResourceError: the disk is full, or a case needs more memory than there is (MEMORY); nothing half-written is left.
    """
    _check(model, cases)
    from bedside.engines.predict import open_model  # brings torch, which a refusal need not wait for

    predict = open_model(
        model,
        engine=engine,
        overlap=settings.overlap,
        mirror=settings.mirror or None,
        memory_mb=memory_bytes() / MEGABYTE,
    )
    return evaluate_predictor(predict, model, cases, settings=settings, engine=engine, progress=progress)


def evaluate_predictor(
    predict: Predictor,
    model: Model,
    cases: CaseSequence,
    *,
    settings: Evaluate = DEFAULTS,
    engine: Part | None = None,
    progress: Progress = SILENT,
) -> Evidence:
    """Do what `evaluate` does with a predictor that is already there, such as one wrapped around that of `model`."""
    _check(model, cases)
    scoring = _scoring(model, settings)
    workspace = cases.dataset.workspace
    with disk_errors("making room for pictures"):
        workspace.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=workspace.scratch, prefix="pictures-") as folder:
        album = Album(Path(folder), scoring)
        measured = measure(predict, cases, scoring=scoring, keep=album.keep, progress=progress)
        evidence = _evidence(model, cases, measured, scoring=scoring, settings=settings, engine=engine)
        digest = store_evidence(workspace, evidence)
        album.publish(workspace, digest, evidence, measured)
    _record(evidence, digest, cases)
    return evidence


def digest_of(evidence: Evidence) -> str:
    """The digest under which this evidence is, or will be, in the store: that of a folder with `evidence.json` in it."""
    return digest_json({EVIDENCE_FILE: digest_bytes(encoded(evidence))})


def store_evidence(workspace: Workspace, evidence: Evidence) -> str:
    """Put the evidence into the store as canonical JSON and return its digest."""
    return workspace.put_record(EVIDENCE_FILE, evidence, doing="storing the evidence")


def encoded(evidence: Evidence) -> bytes:
    """The evidence as canonical JSON: equal evidence gives equal bytes."""
    return canonical_json(evidence.model_dump(mode="json"))


def _check(model: Model, cases: CaseSequence) -> None:
    """Refuse what cannot be measured before anything costs time."""
    if not len(cases):
        raise UsageError("There are no cases to evaluate on; choose another split.", code="NO_CASES")
    check_finds_structures(model.spec)
    structures, wanted = model.spec.contract.structures, cases.dataset.contract.structures
    if structures != wanted:
        raise UsageError(
            f"The model knows the structures {', '.join(structures)}, the dataset {', '.join(wanted)}; evaluate on a dataset with"
            " the same ones in the same order.",
            code="STRUCTURES",
        )
    masks = (record.volumes["label"].labels for record in cases.records if "label" in record.volumes)
    check_meeting(model.spec.contract.label_map, cases.dataset.contract.label_map, masks)
    if MEAN in structures:
        raise UsageError(f"A structure is called {MEAN!r}, the name of the mean over structures; rename it.", code="STRUCTURES")


def _scoring(model: Model, settings: Evaluate) -> Scoring:
    of_task = {key: value for key, value in model.spec.task.items() if key != "name"}
    task = registry("task").resolve(str(model.spec.task.get("name"))).model_validate(of_task)
    metrics = cast("Task", task).metrics
    return Scoring(model.spec.contract.structures, metrics, settings.surface_tolerance_mm, partial_of(task))


def _evidence(
    model: Model,
    cases: CaseSequence,
    measured: Sequence[CaseScores],
    *,
    scoring: Scoring,
    settings: Evaluate,
    engine: Part | None,
) -> Evidence:
    scores = patient_scores(measured, scoring)
    rules, times_read = standing_rules(cases.dataset.workspace.ledger, cases.dataset.digest, cases.split)
    failed: dict[str, JsonValue] = {case.case: case.failed for case in measured if case.failed}
    how: dict[str, JsonValue] = {
        **settings.model_dump(mode="json"),
        "mirror": settings.mirror or model.spec.mirror,
        "study": model.spec.study,
        "structures": list(scoring.structures),
        "cases": len(measured),
        "test_split_reads": times_read,
        "failed": failed,
        "partial": [cast("JsonValue", rule.model_dump(mode="json")) for rule in scoring.partial],
        "unscored": [case.case for case in measured if not case.scored],
    }
    return Evidence(
        model=model.digest,
        dataset=cases.dataset.digest,
        split=cases.split,
        engine=cast("dict[str, JsonValue]", engine.settings()) if engine is not None else model.spec.engine,
        rules=rules,
        definitions=scoring.definitions,
        scores=scores,
        summaries=summarise(scores, settings),
        missed=_patients_of(measured, scoring.labels, lambda case: case.missed),
        hallucinated=_patients_of(measured, scoring.labels, lambda case: case.hallucinated),
        timings={case.case: case.timing for case in measured},
        groups=_groups([case for case in measured if case.scored]),
        settings=how,
    )


def standing_rules(ledger: Ledger, dataset: str, split: str) -> tuple[str, int]:
    """Digest of the promotion rules that bind this evaluation ("" if none), and how often the test split was read so far.

    For the test split these are the rules frozen before its newest reading; rules written after a look at it do not count.
    """
    newest, bound, reads = "", "", 0
    for event in ledger.events():
        if event.action == "rules_frozen":
            newest = event.outputs.get("rules", "")
        elif event.action == "test_split_read" and event.inputs.get("dataset") == dataset:
            bound, reads = newest, _times_read(event, reads)
    return (bound if split == "test" else newest), reads


def _times_read(event: Event, before: int) -> int:
    told = event.facts.get("times_read")
    return told if isinstance(told, int) else before + 1


def _patients_of(
    measured: Iterable[CaseScores], labels: Iterable[str], of: Callable[[CaseScores], frozenset[str]]
) -> dict[str, tuple[str, ...]]:
    cases = list(measured)
    return {label: tuple(sorted({case.patient for case in cases if label in of(case)})) for label in labels}


def _groups(measured: Sequence[CaseScores]) -> dict[str, dict[str, str]]:
    """Scanner and site of every patient who has a score, where any is known; a patient seen by several is a group of its own."""
    groups: dict[str, dict[str, str]] = {}
    for attribute in ("scanner", "site"):
        found: dict[str, set[str]] = {}
        for case in measured:
            found.setdefault(case.patient, set()).add(str(getattr(case, attribute)))
        if any(any(values) for values in found.values()):
            groups[attribute] = {patient: " + ".join(sorted(filter(None, values))) for patient, values in found.items()}
    return groups


def _record(evidence: Evidence, digest: str, cases: CaseSequence) -> None:
    leading = evidence.definitions[0].name
    summary = evidence.summaries[leading][MEAN]
    cases.dataset.workspace.ledger.append(
        "evaluated",
        inputs={"model": evidence.model, "dataset": evidence.dataset},
        outputs={"evidence": digest},
        facts={
            "split": evidence.split,
            "rules": evidence.rules,
            "engine": evidence.engine,
            "cases": len(evidence.timings),
            "patients": summary.n,
            "metric": leading,
            "mean": summary.mean,
            "low": summary.low,
            "high": summary.high,
            "missed": sum(map(len, evidence.missed.values())),
            "hallucinated": sum(map(len, evidence.hallucinated.values())),
            "failed": evidence.settings["failed"],
        },
    )
