"""Who is in production, who was, and the way back. The ledger is the only source.

Production is a stack: a promotion puts a model on top, a rollback takes the top one off, so that the one below serves again. A
model that was rolled back is not the one that a second rollback returns to.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from bedside.core.errors import IntegrityError, UsageError
from bedside.core.ledger import Event
from bedside.core.record import Record
from bedside.core.workspace import Workspace


class Release(Record):
    """One stretch of time in which one model was in production.

    Attributes:
        model: its digest.
        since: when it went into production; `until`: when another took its place, None while it is there.
        seq: number of the ledger event that put it there; `promoted`: of its promotion, the same one unless it came back.
        actor: who did that.
        how: by "promoted" or "rolled_back".
        evidence: digest of the evidence that it was promoted with.
        rules: digest of the rules that it was promoted under.
        reason: stated for a rollback, "" for a promotion.
    """

    model: str
    since: datetime
    until: datetime | None = None
    seq: int
    promoted: int
    actor: str
    how: Literal["promoted", "rolled_back"]
    evidence: str
    rules: str
    reason: str = ""


def releases(workspace: Workspace) -> tuple[Release, ...]:
    """Every stretch of production, oldest first.

    Raises:
        IntegrityError: a rollback in the ledger does not name the model that was below.
    """
    return _replay(workspace.ledger.events())[0]


def standing(workspace: Workspace) -> tuple[Release, ...]:
    """The promotions that were not rolled back, oldest first: the last is in production, a rollback returns to the one before."""
    return _replay(workspace.ledger.events())[1]


def production_now(workspace: Workspace) -> Release | None:
    """The model in production, or None."""
    found = releases(workspace)
    return found[-1] if found else None


def production_at(workspace: Workspace, when: datetime) -> Release | None:
    """The model that was in production at a moment, or None before the first promotion.

    The order of events is that of their numbers: where a clock was turned back, the later event wins.

    Raises:
        UsageError: the moment has no time zone.
    """
    if when.utcoffset() is None:
        raise UsageError("Give the moment with its time zone, for example 2026-05-01T12:00:00+00:00.", code="TIME")
    started = [release for release in releases(workspace) if release.since <= when]
    return started[-1] if started else None


def rollback(workspace: Workspace, *, reason: str = "not stated") -> Event:
    """Put the model before the present one back into production and return the event.

    Its bytes are hashed again first: what goes into production is what was promoted.

    Raises:
        UsageError: nothing is in production, or nothing was before it.
        IntegrityError: the ledger is broken, or the earlier model's bytes are missing or have changed.
    """
    chain = workspace.ledger.verify()
    if not chain.intact:
        raise IntegrityError(f"The ledger is broken at {chain}, so it does not say what to roll back to.", code="LEDGER")
    stack = standing(workspace)
    if len(stack) < 2:
        found = "only one model was ever promoted and not rolled back" if stack else "no model is in production"
        raise UsageError(f"There is nothing to roll back to: {found}.", code="NO_EARLIER")
    replaced, earlier = stack[-1], stack[-2]
    workspace.get(earlier.model)
    return workspace.ledger.append(
        "rolled_back",
        inputs={"model": earlier.model, "replaced": replaced.model},
        facts={"reason": reason, "promoted": earlier.seq},
    )


def _replay(events: Iterable[Event]) -> tuple[tuple[Release, ...], tuple[Release, ...]]:
    """Return every stretch of production, and the stack of promotions that stand."""
    stretches: list[Release] = []
    stack: list[Release] = []
    for event in events:
        if event.action == "promoted":
            stack.append(_promotion(event))
            started = stack[-1]
        elif event.action == "rolled_back":
            started = _return(event, stack)
        else:
            continue
        if stretches:
            stretches[-1] = stretches[-1].model_copy(update={"until": started.since})
        stretches.append(started)
    return tuple(stretches), tuple(stack)


def _promotion(event: Event) -> Release:
    return Release(
        model=event.inputs.get("model", ""),
        since=datetime.fromisoformat(event.time),
        seq=event.seq,
        promoted=event.seq,
        actor=event.actor,
        how="promoted",
        evidence=event.inputs.get("evidence", ""),
        rules=str(event.facts.get("rules", "")),
    )


def _return(event: Event, stack: list[Release]) -> Release:
    """Take the top off the stack and return the new stretch of the one below."""
    named = event.inputs.get("replaced"), event.inputs.get("model")
    if len(stack) < 2 or (stack[-1].model, stack[-2].model) != named:
        raise IntegrityError(
            f"The rollback of event {event.seq} does not name the models that were in production; run bedside verify.",
            code="LEDGER",
        )
    stack.pop()
    return stack[-1].model_copy(
        update={
            "since": datetime.fromisoformat(event.time),
            "seq": event.seq,
            "actor": event.actor,
            "how": "rolled_back",
            "reason": str(event.facts.get("reason", "")),
        }
    )
