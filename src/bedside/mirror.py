"""After a step: hand its bytes to the store's remote and its numbers to the tracker. Nothing here decides anything.

The ledger says what there is to mirror; a small file in scratch says how far the mirror is, so that a mirror that was down, or
switched on later, catches up.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from bedside.adapters.site import store_for, tracker_for
from bedside.core.config import Config
from bedside.core.custody import lineage
from bedside.core.errors import BedsideError
from bedside.core.evidence import load_evidence
from bedside.core.files import write_atomic
from bedside.core.ledger import Event
from bedside.core.ports import Store, Tracker
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.run import Run, training_name
from bedside.core.workspace import read_json

STORED = frozenset({"adopted", "ingested", "trained", "evaluated", "accelerated"})


class Mirrored(Record):
    """What `mirror` did.

    Attributes:
        pushed: values handed to the store's remote; logged: runs handed to the tracker.
        failed: sentences of what could not be mirrored; all of it is tried again next time.
    """

    pushed: int
    logged: int
    failed: tuple[str, ...]


class _Position(Record):
    seq: int = 0


def mirror(config: Config, *, progress: Progress = SILENT) -> Mirrored:
    """Push the values and log the runs of every ledger event since the last call.

    A remote or tracker that is down never fails the work that is already done: the sentence is returned, and the next call
    tries again from the same event.
    """
    path = config.workspace.scratch / "mirrored.json"
    done = _Position.model_validate(read_json(path)) if path.exists() else _Position()
    waiting = [event for event in config.workspace.ledger.events() if event.seq > done.seq and event.action in STORED]
    if not waiting:
        return Mirrored(pushed=0, logged=0, failed=())
    digests = tuple(dict.fromkeys(digest for event in waiting for digest in event.outputs.values()))
    progress.start("mirroring to the remote and the tracker", len(waiting))
    logged = 0
    try:
        store = store_for(config)
        store.push_all(digests)
        _note_revisions(config, store, [event.outputs["dataset"] for event in waiting if event.action == "ingested"])
        tracker = tracker_for(config)
        for number, event in enumerate(waiting, start=1):
            logged += _log(config, tracker, event)
            progress.advance(number)
    except BedsideError as error:
        return Mirrored(pushed=0, logged=logged, failed=(error.sentence,))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _Position(seq=waiting[-1].seq).model_dump_json().encode(), doing="noting what was mirrored")
    return Mirrored(pushed=len(digests) if config.site.versioning != "off" else 0, logged=logged, failed=())


def _note_revisions(config: Config, store: Store, datasets: Sequence[str]) -> None:
    """Write into the ledger under which name the version store knows each dataset, once."""
    ledger = config.workspace.ledger
    noted = {(e.inputs.get("dataset"), e.facts.get("revision")) for e in ledger.events() if e.action == "versioned"}
    for digest in dict.fromkeys(datasets):
        revision = store.revision(digest)
        if revision and (digest, revision) not in noted:
            ledger.append("versioned", inputs={"dataset": digest}, facts={"revision": revision})


def _log(config: Config, tracker: Tracker, event: Event) -> int:
    if config.site.tracking == "off":
        return 0
    if event.action == "trained":
        _log_training(config, tracker, event)
    elif event.action == "evaluated":
        _log_evaluation(config, tracker, event)
    else:
        return 0
    return 1


def _log_training(config: Config, tracker: Tracker, event: Event) -> None:
    run = Run(event.outputs["run"], event.outputs["model"], config.workspace)
    record = run.record
    metrics = {
        "minutes": record.minutes,
        "steps": float(record.steps),
        "seconds_per_step": record.seconds_per_step,
        "peak_memory_mb": record.peak_memory_mb,
        "loss": record.curve[-1].loss,
        "wall_seconds": record.cost.wall_seconds,
        "cpu_seconds": record.cost.cpu_seconds,
        "data_wait_share": record.cost.data_wait_share,
        "energy_joules": record.cost.joules,
        "incidents": float(len(record.incidents)),
    }
    if record.threads:
        metrics["utilisation"] = record.cost.utilisation(record.threads)
    scores = [point.score for point in record.curve if point.score is not None]
    if scores:
        metrics["validation_dice"] = max(scores)
    tags = {
        "commit": record.commit,
        "dataset": record.dataset,
        "environment": record.environment_digest,
        "model": run.model,
        "run": run.digest,
        "energy": "measured" if record.cost.measured else "estimate",
        "ledger": f"{event.seq}:{event.hash}",
    }
    training = training_name(str(event.facts.get("key", "")))
    tracker.log_run(f"train-{run.model[:12]}", parameters=flat(record.study), metrics=metrics, tags=tags, training=training)


def _log_evaluation(config: Config, tracker: Tracker, event: Event) -> None:
    digest = event.outputs["evidence"]
    evidence = load_evidence(config.workspace, digest)
    metrics = {
        f"{evidence.split}.{metric}.{label}": interval.mean
        for metric, row in evidence.summaries.items()
        for label, interval in row.items()
    }
    history = lineage(config.workspace.ledger.events(), evidence.model)
    trained = next((made for made in reversed(history) if made.action == "trained"), None)
    commit = str(trained.facts.get("commit", "")) if trained else ""
    environment = str(trained.facts.get("environment", "")) if trained else ""
    tags = {
        "commit": commit,
        "environment": environment,
        "dataset": evidence.dataset,
        "model": evidence.model,
        "evidence": digest,
        "ledger": f"{event.seq}:{event.hash}",
    }
    parameters = {"split": evidence.split, **flat(evidence.engine, "engine"), **flat(evidence.settings, "settings")}
    tracker.log_run(
        f"evaluate-{evidence.model[:12]}", parameters=parameters, metrics=metrics, tags=tags, files=_reports(config, digest)
    )


def _reports(config: Config, digest: str) -> tuple[Path, ...]:
    names = (f"evaluation-{digest[:12]}.html", f"evaluation-{digest[:12]}.json")
    return tuple(path for path in (config.workspace.reports / name for name in names) if path.exists())


def flat(tree: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str]:
    """Flatten a tree to "a.b.0" -> text, as trackers want parameters."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            found |= flat(value, name)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            found |= flat({str(index): item for index, item in enumerate(value)}, name)
        else:
            found[name] = str(value)
    return found
