"""Walking the ledger from a value back to the scans."""

from collections.abc import Iterable

from bedside.core.errors import IntegrityError
from bedside.core.ledger import Event, Verification
from bedside.core.record import Record
from bedside.core.workspace import Workspace


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


def verify(workspace: Workspace, subject: str = "", *, head: str | None = None) -> History:
    """Check the chain, hash every stored value again, and walk from `subject` back to the scans.

    Args:
        workspace: the study folder.
        subject: digest of a model, run, dataset or evidence; "" checks the whole study.
        head: "SEQ:HASH" written down elsewhere, which makes a cut tail visible.

    Raises:
        IntegrityError: the chain is broken (the sentence names the first bad line), stored bytes have changed, or nothing in the
            ledger made `subject`.
    """
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
        elif event.action in {"ingested", "trained", "evaluated", "accelerated"}:
            stored |= set(event.outputs.values())
    return stored, scans
