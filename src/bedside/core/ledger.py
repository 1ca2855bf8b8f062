"""The chain of custody: an append-only file of JSON lines, each carrying the hash of the one before.

A line is acknowledged only after fsync. Writers exclude each other with a lock on the file, so two processes may append to
one ledger. A line that a crash left without its newline was never acknowledged; the next writer removes it and says so in an
event of its own.
"""

import fcntl
import getpass
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import JsonValue, ValidationError

from bedside.core.digest import canonical_json, digest_bytes
from bedside.core.errors import IntegrityError, disk_errors
from bedside.core.files import sync_folder
from bedside.core.record import Record

GENESIS = "0" * 64
_HEAD, _END = b'{"action":"', b"}\n"
"""How a line begins and ends; it is canonical JSON, and no other key comes before."""
TAIL_NOTE = (
    "A tail that was cut off leaves a valid shorter chain: to see it, compare with a head that was written down elsewhere"
    " (bedside verify --head SEQ:HASH)."
)


class Event(Record):
    """One line: `inputs` and `outputs` map a role ("dataset", "model") to a digest, `facts` holds plain values."""

    seq: int
    time: str
    actor: str
    action: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, JsonValue]
    prev: str
    hash: str


@dataclass(frozen=True)
class Entry:
    """What is to become an event."""

    action: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


class Verification(Record):
    """What `verify` found. `first_bad_line` counts from 1 and is None when the chain holds."""

    events: int
    head: str
    first_bad_line: int | None = None
    problem: str = ""
    note: str = TAIL_NOTE

    @property
    def intact(self) -> bool:
        """Whether every line is the one that was written, in its place."""
        return self.first_bad_line is None

    def __str__(self) -> str:
        if self.intact:
            return f"{self.events} events, chain intact"
        return f"line {self.first_bad_line}: {self.problem}"


class Ledger:
    """The ledger of one study folder.

    Args:
        path: the JSONL file; made at the first append.
        clock: returns the time of an event (a test passes its own).
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._clock = clock

    def append(
        self,
        action: str,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        facts: Mapping[str, JsonValue] | None = None,
    ) -> Event:
        """Add one event and return it once it is on disk.

        Raises:
            ResourceError: the disk is full; the ledger is as it was.
            IntegrityError: the last line is not a ledger line, so nothing may be chained to it.
        """
        return self.append_all([Entry(action, inputs or {}, outputs or {}, facts or {})])[0]

    def append_all(self, entries: Sequence["Entry"]) -> tuple[Event, ...]:
        """Add several events with one wait for the disk, and return them once all of them are on it.

        Raises:
            ResourceError: the disk is full; the ledger is as it was.
            IntegrityError: as `append`.
        """
        if not entries:
            return ()
        with disk_errors("writing the ledger"), self._locked() as stream:
            return self._write(stream, self._repair(stream), entries)

    def events(self, *, only: str = "", besides: str = "") -> Iterator[Event]:
        """Read the events in order, without checking the chain (`verify` does that).

        Args:
            only: an action; events of others are passed over by the first bytes of their lines.
            besides: an action whose events are passed over in the same way.
        """
        wanted, unwanted = (_head(action) if action else b"" for action in (only, besides))
        for number, line in self._lines():
            other = not line.startswith(wanted) or (unwanted and line.startswith(unwanted))
            if other and line.startswith(_HEAD) and line.endswith(_END):
                continue
            try:
                yield Event.model_validate_json(line)
            except ValidationError as error:
                raise IntegrityError(f"Ledger line {number} is not an event; run bedside verify.", code="LEDGER") from error

    def digests(self, action: str, role: str) -> Iterator[str]:
        """The digest that each event of an action put out, where it put out this one role; nothing else of a line is read."""
        wanted = re.compile(rb'.*"outputs":\{"%b":"([0-9a-f]{64})"\},"prev":' % re.escape(role.encode()))
        head = _head(action)
        for _, line in self._lines():
            found = wanted.match(line) if line.startswith(head) else None
            if found is not None:
                yield found[1].decode()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are complete, counted from 1."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                yield number, line

    def last(self, action: str, **facts: JsonValue) -> Event | None:
        """Return the newest event of an action whose facts hold all the given ones."""
        found = None
        for event in self.events(only=action):
            if all(event.facts.get(name) == value for name, value in facts.items()):
                found = event
        return found

    def verify(self, *, head: str | None = None) -> Verification:
        """Walk the chain and name the first line that is not the one that was written.

        Args:
            head: "SEQ:HASH" written down elsewhere; with it a cut tail, or a chain rewritten from the start, is seen too.
        """
        return verify_lines(self.path.read_bytes() if self.path.exists() else b"", head=head)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if new:
                sync_folder(self.path.parent)
            yield stream

    def _repair(self, stream: BinaryIO) -> tuple[int, str]:
        """Cut an unacknowledged last line off, record that, and return the last event's (seq, hash)."""
        complete, torn_bytes = _tail(stream)
        last = _seq_and_hash(complete)
        if torn_bytes:
            stream.truncate(stream.seek(0, os.SEEK_END) - torn_bytes)
            (event,) = self._write(stream, last, [Entry("repair", facts={"torn_bytes": torn_bytes})])
            last = event.seq, event.hash
        return last

    def _write(self, stream: BinaryIO, last: tuple[int, str], entries: Sequence["Entry"]) -> tuple[Event, ...]:
        events, lines = [], []
        actor = getpass.getuser()
        for entry in entries:
            first = {"action": entry.action, "actor": actor, "facts": dict(entry.facts)}
            second = {
                "inputs": dict(entry.inputs),
                "outputs": dict(entry.outputs),
                "prev": last[1],
                "seq": last[0] + 1,
                "time": self._clock().astimezone(UTC).isoformat(timespec="microseconds"),
            }
            # the line is canonical JSON with its hash, and what is hashed is the same without it: the hash stands between the two
            before, after = canonical_json(first)[:-1], canonical_json(second)[1:]
            last = last[0] + 1, digest_bytes(before + b"," + after)
            lines.append(before + f',"hash":"{last[1]}",'.encode() + after + b"\n")
            events.append(Event.model_validate_json(lines[-1]))
        start, content = stream.seek(0, os.SEEK_END), b"".join(lines)
        try:
            written = 0
            while written < len(content):
                written += stream.write(content[written:])
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):  # if even this fails, the next writer cuts the torn line off
                stream.truncate(start)
            raise
        return tuple(events)


def _head(action: str) -> bytes:
    """How the lines of an action begin."""
    return _HEAD + action.encode() + b'",'


def _tail(stream: BinaryIO) -> tuple[bytes, int]:
    """Return the last complete line, and how many bytes after it lack a newline."""
    size = stream.seek(0, os.SEEK_END)
    window = 1 << 16
    while True:
        start = max(0, size - window)
        stream.seek(start)
        data = stream.read(size - start)
        end = data.rfind(b"\n")
        begin = data.rfind(b"\n", 0, max(end, 0))
        if start == 0 or begin >= 0:
            return data[begin + 1 : end + 1], len(data) - end - 1
        window *= 2


def _seq_and_hash(line: bytes) -> tuple[int, str]:
    if not line:
        return 0, GENESIS
    try:
        value = json.loads(line)
        return int(value["seq"]), str(value["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("The ledger's last line is not an event; run bedside verify.", code="LEDGER") from error


def verify_lines(data: bytes, *, head: str | None = None) -> Verification:
    """Check the bytes of a ledger: see `Ledger.verify`."""
    previous, count = GENESIS, 0
    line_of: dict[str, int] = {}
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        problem, previous_next = _check_line(line, number, previous, line_of)
        if problem:
            return Verification(events=count, head=f"{count}:{previous}", first_bad_line=number, problem=problem)
        previous, count = previous_next, number
        line_of[previous] = number
    if head is not None:
        problem = _check_head(head, {number: name for name, number in line_of.items()})
        if problem:
            return Verification(events=count, head=f"{count}:{previous}", first_bad_line=count + 1, problem=problem)
    return Verification(events=count, head=f"{count}:{previous}")


def _check_line(line: bytes, number: int, previous: str, line_of: Mapping[str, int]) -> tuple[str, str]:
    if not line.endswith(b"\n"):
        return "the line is cut in the middle", previous
    try:
        value = json.loads(line)
        claimed, seq, prev = value["hash"], value["seq"], value["prev"]
        member = f',"hash":"{claimed}"'.encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the line is not a ledger event", previous
    # what was hashed is the line without its own hash, which stands before "inputs": no need to encode anything again
    at = line.find(member + b',"inputs":{')
    if at < 0 or digest_bytes(line[:at] + line[at + len(member) : -1]) != claimed:
        return "the line was edited: its content does not give its hash", previous
    if claimed in line_of:
        return f"the line is a duplicate of line {line_of[claimed]}", previous
    if prev != previous or seq != number:
        return f"the line is event {seq} and not event {number}: lines were deleted, inserted or reordered", previous
    return "", claimed


def _check_head(head: str, hashes: Mapping[int, str]) -> str:
    seq, _, expected = head.partition(":")
    if not seq.isdecimal() or len(expected) != 64:
        return f"the head to compare with is not SEQ:HASH (64 hexadecimal digits): {head[:20]!r}"
    if int(seq) not in hashes:
        return f"the tail was cut: event {seq} was written and is not there"
    if hashes[int(seq)] != expected:
        return f"the chain was rewritten: event {seq} had another hash"
    return ""
