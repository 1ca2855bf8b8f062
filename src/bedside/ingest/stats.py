"""What a folder's files looked like when they were hashed, so that a folder that did not change is not read again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bedside.core.digest import canonical_json
from bedside.core.errors import disk_errors
from bedside.core.files import write_atomic
from bedside.core.record import Record

_SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was hashed may change again within the clock tick of its disk: it is not remembered."""

_Stat = tuple[int, int, int, int]


class _Remembered(Record):
    """`scratch/received/seen-*.json`: keyed hash of a name to ((size, mtime_ns, inode, ctime_ns), SHA-256)."""

    files: dict[str, tuple[_Stat, str]]


@dataclass(frozen=True)
class Stats:
    """A memory of digests in scratch, for recognising a folder that was ingested before and for nothing else.

    A digest from here is never used for a value that is loaded: every file is hashed again when its pixels are read. No program
    can set a status time (ctime), so a file with the same four numbers has the same bytes, unless the disk's clock was turned
    back; deleting the memory only costs time.

    Args:
        path: of the memory.
    """

    path: Path

    def recall(self, files: Mapping[str, Path]) -> dict[str, str] | None:
        """Digests of all files by their (hidden) names, or None where one is new or changed."""
        try:
            known = _Remembered.model_validate_json(self.path.read_bytes()).files
        except (OSError, ValidationError):
            return None
        digests = {}
        for name, path in files.items():
            seen = known.get(name)
            if seen is None or seen[0] != _stat(path):
                return None
            digests[name] = seen[1]
        return digests

    def remember(self, looks: "Looks", digests: Mapping[str, str]) -> None:
        """Write down what files looked like before they were hashed, and their digests; what a kill cut short is removed.

        The memory's folder holds memories only, and one process at a time writes to them.
        """
        with disk_errors("remembering what was received"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for unfinished in self.path.parent.glob(".writing-*"):
                unfinished.unlink()
        rows = {name: (stat, digests.get(name, "")) for name, stat in looks.stats.items() if looks.settled(stat)}
        write_atomic(self.path, canonical_json({"files": rows}), doing="remembering what was received")


@dataclass(frozen=True)
class Looks:
    """What files look like, and when that was, by the clock of the wall; 0 for files that nobody else writes."""

    stats: Mapping[str, _Stat]
    at_ns: int

    @classmethod
    def now(cls, files: Mapping[str, Path], *, ours: bool = False) -> "Looks":
        """Look at files by their names."""
        at_ns = 0 if ours else time.time_ns()
        return cls({name: _stat(path) for name, path in files.items()}, at_ns)

    def settled(self, stat: _Stat) -> bool:
        """Whether a file cannot change any more without looking different."""
        return not self.at_ns or max(stat[1], stat[3]) < self.at_ns - _SETTLED_NS


def _stat(path: Path) -> _Stat:
    try:
        found = path.lstat()
    except OSError:
        return 0, 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns
