"""`bedside runs`: what was trained, how it scored, and who was in production when."""

from datetime import datetime

from pydantic import JsonValue
from rich.table import Table

from bedside.cli import show
from bedside.core.errors import UsageError
from bedside.core.record import Record
from bedside.core.workspace import Workspace
from bedside.promote.release import production_at, production_now


class RunRow(Record):
    """One trained or accelerated model."""

    time: str
    made_by: str
    model: str
    dataset: str
    minutes: float | None
    evaluated_on: str
    score: float | None
    in_production: bool


def list_runs(workspace: Workspace) -> list[RunRow]:
    """Every model of the ledger, newest first."""
    events = list(workspace.ledger.events())
    now = production_now(workspace)
    scored = {event.inputs["model"]: event for event in events if event.action == "evaluated"}
    rows = []
    for event in events:
        model = event.outputs.get("model")
        if event.action not in {"trained", "accelerated", "ensembled"} or model is None:
            continue
        judged = scored.get(model)
        rows.append(
            RunRow(
                time=event.time,
                made_by=event.action,
                model=model,
                dataset=event.inputs.get("dataset", ""),
                minutes=_number(event.facts.get("minutes")),
                evaluated_on=str(judged.facts.get("split", "")) if judged else "",
                score=_number(judged.facts.get("mean")) if judged else None,
                in_production=now is not None and now.model == model,
            )
        )
    return rows[::-1]


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def show_runs(rows: list[RunRow]) -> None:
    """Print the list."""
    if not rows:
        raise UsageError("Nothing was trained in this study folder yet; run bedside train.", code="NOT_YET")
    table = Table(title="runs, newest first")
    for name in ("time (UTC)", "made by", "model", "dataset", "minutes", "evaluated on", "Dice", "production"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            row.time[:19],
            row.made_by,
            row.model[:12],
            row.dataset[:12],
            "" if row.minutes is None else f"{row.minutes:.1f}",
            row.evaluated_on,
            "" if row.score is None else f"{row.score:.4f}",
            "in production" if row.in_production else "",
        )
    show.console().print(table)


def show_production(workspace: Workspace, when: datetime, *, json: bool) -> None:
    """Say which model was in production at a moment."""
    release = production_at(workspace, when)
    if release is None:
        body: dict[str, JsonValue] = {"at": when.isoformat(), "model": None}
        return show.as_json(body) if json else show.console().print(f"no model was in production at {when.isoformat()}")
    if json:
        return show.as_json({"at": when.isoformat(), **release.model_dump(mode="json")})
    return show.console().print(
        f"at {when.isoformat()} model {release.model[:12]} was in production"
        f" (ledger event {release.seq}, {release.since.isoformat()[:19]} UTC, by {release.actor})"
    )
