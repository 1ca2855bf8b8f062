"""Results for people: tables on stdout."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, JsonValue
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bedside.accelerate.compare import Acceleration, StageResult
    from bedside.core.custody import History
    from bedside.core.dataset import Dataset
    from bedside.core.evidence import Evidence, Interval, Verdict
    from bedside.core.plan import Plan
    from bedside.core.run import Run
    from bedside.mirror import Mirrored
    from bedside.promote.pipeline import Promotion


def console() -> Console:
    """Stdout; a fixed width where it is no terminal, so that a table in a file is not cut. Brackets in a path are no markup."""
    found = Console(highlight=False, markup=False, soft_wrap=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=120)


def as_json(value: BaseModel | Mapping[str, JsonValue] | list[JsonValue]) -> None:
    """Print a result for programs."""
    body = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    Console(highlight=False, soft_wrap=True).print_json(json.dumps(body), indent=2)


def nothing(text: str, *, json: bool) -> None:
    """What `--what-if` says of a verb that only reads."""
    return as_json({"would_change": 0, "sentence": text}) if json else print(text)  # noqa: T201


def plan(value: BaseModel, *, verb: str) -> None:
    """Say what a verb would do; what is empty is left out, and codes stand one a line."""
    title = f"bedside {verb} would do this (nothing was done)"
    table = Table(title=title, show_header=False, min_width=len(title) + 4)
    for key, item in value.model_dump(mode="json").items():
        if item == "":
            continue
        if isinstance(item, dict) and item:
            table.add_row(key.replace("_", " "), "")
            for name, inner in item.items():
                table.add_row(f"  {name}", _plain(inner))
        else:
            table.add_row(key.replace("_", " "), _plain(item))
    console().print(table)


def _plain(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return "none" if value is None else str(value)


def dataset(value: "Dataset") -> None:
    """Counts of an ingest and where the patients went."""
    manifest = value.manifest
    own = manifest.batch or manifest
    table = Table(title=f"dataset {value.digest[:12]}", show_header=False)
    rejected = sum(own.rejected.values())
    if manifest.parent:
        table.add_row("version of", manifest.parent[:12])
    table.add_row("files received", str(own.received))
    table.add_row("accepted / rejected / duplicate", f"{own.accepted} / {rejected} / {own.duplicates}")
    for code, count in sorted(own.rejected.items()):
        reason = manifest.reasons.get(code, "")
        table.add_row(f"  {code}", f"{count} in quarantine" + (f": {reason}" if reason else ""))
    table.add_row("cases", str(len(manifest.cases)))
    if manifest.parent and manifest.batch:
        change = manifest.batch
        table.add_row("  new / relabelled / dropped", f"{change.added} / {change.relabelled} / {change.dropped}")
    if manifest.clinical is not None:
        rows = manifest.clinical
        table.add_row("clinical rows: accepted / refused / repeated", f"{rows.accepted} / {rows.refused} / {rows.repeated}")
    folds = " + ".join(str(len(fold)) for fold in manifest.splits.folds)
    table.add_row("patients: locked test / folds", f"{len(manifest.splits.test)} / {folds}")
    console().print(table)
    _copies(value)


def _copies(value: "Dataset") -> None:
    """Say that scans may stand there twice, as series and as NIfTI files."""
    from bedside.ingest.copies import ADVICE, GRID_OF_A_SERIES

    cases = sum(GRID_OF_A_SERIES in case.notes for case in value.manifest.cases)
    if cases:
        console().print(f"{cases} of the cases: {ADVICE}", markup=False)


def training(value: "Plan") -> None:
    """The plan of a training: every number that was decided, and why."""
    table = Table(title=f"plan {value.digest()[:12]} for {value.machine.cores} cores, {value.machine.device}")
    for name in ("what", "value", "because"):
        table.add_column(name)
    for choice in value.choices:
        table.add_row(choice.what, choice.value, choice.because)
    console().print(table)
    budget = f"{value.steps} steps" if value.steps else f"{value.minutes:g} minutes"
    console().print(
        f"{budget}, precision {value.precision}, learning rate {value.learning_rate:g};"
        f" peak memory about {value.predicted_memory_mb or 0.0:.0f} of {value.memory_mb:.0f} MB"
    )


def run(value: "Run") -> None:
    """What a training did."""
    record = value.record
    table = Table(title=f"run {value.digest[:12]}", show_header=False)
    table.add_row("model", value.model[:12])
    table.add_row("steps", f"{record.steps} at {record.seconds_per_step:.2f} s")
    table.add_row("minutes", f"{record.minutes:.1f}" + (f", resumed {record.resumed} times" if record.resumed else ""))
    table.add_row("loss at the end", f"{record.curve[-1].loss:.4f}")
    scores = [point.score for point in record.curve if point.score is not None]
    if scores:
        table.add_row("best Dice on the left-out fold", f"{max(scores):.4f}")
    there = f", {record.device_peak_mb:.0f} MB on {record.device}" if record.device != "cpu" else ""
    table.add_row("peak memory", f"{record.peak_memory_mb:.0f} MB{there}")
    cost = record.cost
    if cost.wall_seconds:
        busy = f", {100 * cost.utilisation(record.threads):.0f} % of {record.threads} threads" if record.threads else ""
        table.add_row("waited for data", f"{100 * cost.data_wait_share:.1f} % of the steps{busy}")
        table.add_row("energy", f"{cost.joules / 3600:.2f} Wh" + ("" if cost.measured else " (estimate)"))
    for incident in record.incidents:
        cases = f" ({', '.join(incident.cases)})" if incident.cases else ""
        table.add_row(f"at step {incident.step}", incident.said + cases)
    console().print(table)


def evidence(value: "Evidence", digest: str) -> None:
    """Scores with their intervals; worst cases first."""
    from bedside.core.evidence import MEAN, over_labels

    units = {item.name: item.unit for item in value.definitions}
    table = Table(title=f"model {value.model[:12]} on {value.split}: mean [{_percent(value)} interval over patients]")
    lead = next(iter(value.scores))
    labels = list(value.summaries[lead])
    table.add_column("metric")
    for label in labels:
        table.add_column(label, justify="right")
    for metric, row in value.summaries.items():
        unit = "" if units.get(metric, "1") == "1" else f" ({units[metric]})"
        table.add_row(metric.removesuffix("_mm").removesuffix("_ml") + unit, *(_interval(row[label]) for label in labels))
    out = console()
    out.print(table)
    n = value.summaries[lead][MEAN].n
    missed, invented = (sum(map(len, group.values())) for group in (value.missed, value.hallucinated))
    out.print(f"n = {n} patients; missed structures: {missed}; hallucinated structures: {invented}; evidence {digest[:12]}")
    counts = {label: len(row) for label, row in value.scores[lead].items()}
    if set(counts.values()) != {n}:
        out.print(f"scored only where annotated: {', '.join(f'{label} n = {count}' for label, count in counts.items())}")
    mean = over_labels(value.scores[lead])
    worst = sorted(mean.items(), key=lambda item: item[1])[:3]
    out.print(f"worst by {lead}: " + ", ".join(f"{patient} {score:.3f}" for patient, score in worst))
    seconds = sorted(timing.seconds for timing in value.timings.values())
    memory = max(timing.peak_memory_mb for timing in value.timings.values())
    out.print(
        f"seconds per case: median {seconds[len(seconds) // 2]:.2f}, longest {seconds[-1]:.2f}; peak memory {memory:.0f} MB"
    )


def _percent(value: "Evidence") -> str:
    interval = next(iter(next(iter(value.summaries.values())).values()))
    return f"{100 * interval.confidence:g} %"


def _interval(value: "Interval") -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def verdicts(values: "tuple[Verdict, ...]", *, title: str) -> None:
    """Each gate, and why."""
    table = Table(title=title)
    table.add_column("gate")
    table.add_column("verdict")
    table.add_column("because")
    for verdict in values:
        table.add_row(verdict.gate, "pass" if verdict.passed else "REFUSED", verdict.because)
    console().print(table)


def promotion(value: "Promotion") -> None:
    """The decision, gate by gate."""
    outcome = "promoted: now in production" if value.passed else "refused"
    verdicts(value.verdicts, title=f"model {value.model[:12]} {outcome}")


def acceleration(value: "Acceleration") -> None:
    """Each stage against torch eager FP32."""
    table = Table(title=f"stages against {value.baseline}, end to end on {value.cases} real cases, {value.threads} threads")
    for name in ("stage", "max |diff|", "mean |diff|", "flips", "Dice change", "p50 s", "p95 s", "speed", "MB", "verdict"):
        table.add_column(name, justify="left" if name in {"stage", "verdict"} else "right", no_wrap=True)
    out = console()
    for stage in value.stages:
        verdict = "accepted" if stage.accepted else "REJECTED"
        table.add_row(stage.name, *_measured(stage), f"{stage.weights_bytes / 1e6:.1f}", verdict)
    out.print(table)
    for stage in value.stages:
        out.print(f"{stage.name} {stage.because}")


def _measured(stage: "StageResult") -> tuple[str, ...]:
    found = stage.measured
    if found is None:
        return ("",) * 7
    worst = max((abs(dice.difference) for dice in found.dice.values()), default=0.0)
    return (
        f"{found.max_difference:.1e}",
        f"{found.mean_difference:.1e}",
        f"{found.flips} ({100 * found.flip_share:.2g} %)",
        f"{worst:.4f}",
        f"{found.seconds_stage.p50:.3f}",
        f"{found.seconds_stage.p95:.3f}",
        f"{found.speed_ratio:.2f}x",
    )


def history(value: "History") -> None:
    """The chain, and how far back it goes."""
    out = console()
    for event in value.events if value.subject else ():
        if event.action != "case_accepted":
            made = ", ".join(f"{role} {digest[:12]}" for role, digest in event.outputs.items())
            out.print(f"  {event.seq:>5}  {event.time[:19]}  {event.action}" + (f" -> {made}" if made else ""))
    if value.subject:
        out.print(f"{value.subject[:12]} goes back to {len(value.scans)} received scans and masks")
    out.print(f"stored values hashed again: {value.checked} unchanged, {len(value.absent)} not here")
    out.print(f"head {value.chain.head}")
    out.print(value.chain.note)
    out.print(f"verify: {value.chain}")


def mirrored(value: "Mirrored") -> None:
    """What could not be mirrored goes to stderr; it is tried again next time."""
    for sentence in value.failed:
        Console(stderr=True, highlight=False, markup=False).print(f"bedside: not mirrored, tried again next time: {sentence}")
