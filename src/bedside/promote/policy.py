"""Rules of promotion are fixed before the test split is looked at, and the ledger shows it."""

from collections.abc import Iterable

from pydantic import JsonValue

from bedside.core.config import Promote
from bedside.core.ledger import Event, Ledger
from bedside.core.record import Record


def freeze(ledger: Ledger, rules: Promote) -> Event:
    """Write the rules down in the ledger, unless the newest that were written down are these; return that event."""
    digest = rules.digest()
    newest = ledger.last("rules_frozen")
    if newest is not None and newest.outputs.get("rules") == digest:
        return newest
    facts: dict[str, JsonValue] = {"rules": rules.model_dump(mode="json")}
    return ledger.append("rules_frozen", outputs={"rules": digest}, facts=facts)


class Freezing(Record):
    """Which rules stood when the test split was read for an evaluation; event numbers, None where there is no such event.

    Attributes:
        evaluated: the newest evaluation of the model on the split that named these rules.
        read: the last reading of the split before it.
        frozen: the last freezing of rules before that reading.
        in_time: whether that freezing was of these rules.
        reads: how often the split had been read by then.
    """

    evaluated: int | None
    read: int | None
    frozen: int | None
    in_time: bool
    reads: int


def freezing(history: Iterable[Event], *, rules: str, model: str, dataset: str) -> Freezing:
    """Find out which rules stood when the test split of `dataset` was read to evaluate `model` under `rules` (a digest)."""
    events = tuple(history)
    evaluated = [e.seq for e in events if e.action == "evaluated" and _is_of(e, model, dataset) and e.facts.get("rules") == rules]
    until = max(evaluated, default=0)
    reads = [e.seq for e in events if e.action == "test_split_read" and e.inputs.get("dataset") == dataset and e.seq < until]
    read = max(reads, default=0)
    frozen = [event for event in events if event.action == "rules_frozen" and event.seq < read]
    return Freezing(
        evaluated=until or None,
        read=read or None,
        frozen=frozen[-1].seq if frozen else None,
        in_time=bool(frozen) and frozen[-1].outputs.get("rules") == rules,
        reads=len(reads),
    )


def _is_of(event: Event, model: str, dataset: str) -> bool:
    return event.inputs.get("model") == model and event.inputs.get("dataset") == dataset and event.facts.get("split") == "test"
