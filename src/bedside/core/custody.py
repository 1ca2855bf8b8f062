"""Walking the ledger from a value back to the scans."""

from collections.abc import Iterable
from typing import Protocol

from bedside.core.errors import IntegrityError, UsageError
from bedside.core.ledger import Event, Verification
from bedside.core.record import Record
from bedside.core.workspace import Workspace

PARENT = "version before"
"""Role of the parent among the inputs of an `ingested` event; no case can have this name, for it has a space in it."""


class History(Record):
    """What `verify` gives back: the state of the chain, the events behind one value, and the stored bytes that were checked.

    Attributes:
        chain: state of the ledger.
        subject: digest of the value asked about, or "" for the whole study.
        events: those that led to it, oldest first.
        scans: digests of the received bytes at the far end.
        checked: how many stored values were hashed again and found unchanged.
        absent: digests the ledger knows whose bytes are not here (fetch them with `dvc pull`).
    """

    chain: Verification
    subject: str
    events: tuple[Event, ...]
    scans: tuple[str, ...]
    checked: int
    absent: tuple[str, ...]


def lineage(events: Iterable[Event], subject: str) -> tuple[Event, ...]:
    """Return the events that led to `subject`, oldest first, by following outputs back to inputs."""
    makers: dict[str, list[Event]] = {}
    for event in events:
        for digest in event.outputs.values():
            makers.setdefault(digest, []).append(event)
    wanted, seen, found = [subject], set[str](), dict[int, Event]()
    while wanted:
        digest = wanted.pop()
        if digest in seen:
            continue
        seen.add(digest)
        for event in makers.get(digest, []):
            found[event.seq] = event
            wanted.extend(event.inputs.values())
    return tuple(found[seq] for seq in sorted(found))


def versions(events: Iterable[Event], dataset: str) -> tuple[str, ...]:
    """A dataset and the versions that it was made from one after the other (`ingest --add`, `datasets --drop`), newest first."""
    before = {event.outputs.get("dataset", ""): event.inputs.get(PARENT, "") for event in events if event.action == "ingested"}
    found = [dataset]
    while (parent := before.get(found[-1], "")) and parent not in found:
        found.append(parent)
    return tuple(found)


class Value(Protocol):
    """A value of a store: a model, run or dataset."""

    @property
    def digest(self) -> str:
        """Its SHA-256."""
        ...

    @property
    def workspace(self) -> Workspace:
        """The study folder whose store holds it."""
        ...


def verify(what: Workspace | Value, subject: str = "", *, head: str | None = None) -> History:
    """Check the chain, hash every stored value again, and walk from a value back to the scans.

    Args:
        what: a model, run or dataset, which is its own subject; or a study folder.
        subject: digest of a value in that study folder; "" checks the whole study.
        head: "SEQ:HASH" written down elsewhere, which makes a cut tail visible.

    Raises:
        IntegrityError: the chain is broken (the sentence names the first bad line), stored bytes have changed, or nothing in the
            ledger made `subject`.
    """
    workspace, subject = (what, subject) if isinstance(what, Workspace) else (what.workspace, what.digest)
    chain = workspace.ledger.verify(head=head)
    if not chain.intact:
        raise IntegrityError(f"The ledger is broken at {chain}.", code="LEDGER")
    events = tuple(workspace.ledger.events())
    selected = lineage(events, subject) if subject else events
    if subject and not selected:
        raise IntegrityError(f"Nothing in the ledger made {subject[:12]}; it has no history here.", code="NO_HISTORY")
    stored, scans = _digests(selected)
    absent = sorted(digest for digest in stored if not (workspace.store / digest).is_dir())
    for digest in sorted(stored - set(absent)):
        workspace.get(digest)
    return History(
        chain=chain,
        subject=subject,
        events=selected,
        scans=tuple(sorted(scans)),
        checked=len(stored) - len(absent),
        absent=tuple(absent),
    )


def _digests(events: Iterable[Event]) -> tuple[set[str], set[str]]:
    """Digests of stored values, and of received scans, that events name as outputs."""
    stored: set[str] = set()
    scans: set[str] = set()
    for event in events:
        if event.action == "case_accepted":
            scans |= set(event.inputs.values())
        elif event.action in {"ingested", "trained", "evaluated", "accelerated", "deidentified", "ensembled", "adopted"}:
            stored |= set(event.outputs.values())
    return stored, scans


def newest(workspace: Workspace, action: str, role: str) -> str:
    """Return the digest that the newest event of an action put out under a role.

    Raises:
        UsageError: there is no such event yet; the sentence says which command makes one.
    """
    event = workspace.ledger.last(action)
    if event is None or role not in event.outputs:
        verbs = {"ingested": "ingest", "trained": "train", "evaluated": "evaluate", "accelerated": "accelerate"}
        verb = verbs.get(action, action)
        raise UsageError(f"There is no {role} in this study folder yet; run bedside {verb} first.", code="NOT_YET")
    return event.outputs[role]
