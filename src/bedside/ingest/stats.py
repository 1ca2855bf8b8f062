"""What a folder's files looked like when they were hashed, so that a folder that did not change is not read again."""

import os
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from bedside.core.errors import disk_errors
from bedside.core.files import write_atomic

_SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was hashed may change again within the clock tick of its disk: it is not remembered."""
_DIGEST_BYTES = 32
_NUMBERS = 4
_Stat = tuple[int, int, int, int]
Hidden = Iterable[tuple[str, str | Path]]
"""Files, always in one order: keyed hash of the name, and path."""


@dataclass(frozen=True)
class Stats:
    """A memory of digests in scratch, for recognising a folder that was ingested before and for nothing else.

    A digest from here is never used for a value that is loaded: voxels come from files that were hashed in the same ingest, see
    `gate.unchanged_part`. No program can set a status time (ctime), so a file with the same four numbers has the same bytes,
    unless the disk's clock was turned back; deleting the memory only costs time. A part of it, as a power cut may
    leave, is not believed.

    Args:
        path: of the memory: one line per file, `hidden name, size, mtime_ns, inode, ctime_ns, SHA-256 or -`, or `?`.
    """

    path: Path

    def recall(self, files: Hidden) -> bytearray | None:
        """Digests of all files, 32 bytes each, zeros for what was not opened; None where one is new, gone or changed."""
        digests = bytearray()
        try:
            with self.path.open(encoding="ascii") as lines:
                for line, file in zip_longest(lines, files):
                    if line is None or file is None:
                        return None
                    start, _, digest = line.rstrip("\n").rpartition(" ")
                    if start != _line(file[0], _stat(file[1])):
                        return None
                    if digest != "-" and len(digest) != 2 * _DIGEST_BYTES:
                        return None
                    digests += bytes(_DIGEST_BYTES) if digest == "-" else bytes.fromhex(digest)
        except (OSError, ValueError):
            return None
        return digests

    def remember(self, looks: "Looks", digests: bytearray) -> None:
        """Write down what files looked like before they were hashed, and their digests; what a kill cut short is removed.

        The memory's folder holds memories only, and one process at a time writes to them.
        """
        with disk_errors("remembering what was received"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for unfinished in self.path.parent.glob(".writing-*"):
                unfinished.unlink()
        lines = bytearray()
        for number, (name, stat) in enumerate(looks):
            digest = digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]
            known = f"{_line(name, stat)} {digest.hex() if any(digest) else '-'}" if looks.settled(stat) else "?"
            lines += known.encode("ascii") + b"\n"
        write_atomic(self.path, lines, doing="remembering what was received", wait=False)


class Looks:
    """What files look like, and when that was, by the clock of the wall; 0 for files that nobody else writes."""

    def __init__(self, files: Hidden, *, ours: bool = False) -> None:
        self._at_ns = 0 if ours else time.time_ns()
        self._names = bytearray()
        self._stats = array("q")
        for name, path in files:
            self._names += bytes.fromhex(name)
            self._stats.extend(_stat(path))

    def __iter__(self) -> Iterator[tuple[str, _Stat]]:
        for number in range(len(self._stats) // _NUMBERS):
            size, mtime, inode, ctime = self._stats[_NUMBERS * number : _NUMBERS * (number + 1)]
            yield self._names[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)].hex(), (size, mtime, inode, ctime)

    def settled(self, stat: _Stat) -> bool:
        """Whether a file cannot change any more without looking different."""
        return not self._at_ns or max(stat[1], stat[3]) < self._at_ns - _SETTLED_NS


def _line(name: str, stat: _Stat) -> str:
    return f"{name} {stat[0]} {stat[1]} {stat[2]} {stat[3]}"


def _stat(path: str | Path) -> _Stat:
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino & (1 << 63) - 1, found.st_ctime_ns
