"""Protocols for outside systems, each with a fake that behaves like it in memory (for tests of plug-in authors too)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from bedside.core.errors import InputRejected

In = TypeVar("In")
Out = TypeVar("Out")


class Store(Protocol):
    """Moves the bytes of stored values to and from a remote. It never decides: digests are checked again after a fetch."""

    def push(self, digest: str) -> None:
        """Take the value under version and copy it to the remote."""
        ...

    def push_all(self, digests: Sequence[str]) -> None:
        """Do the same for several values at once."""
        ...

    def pull(self, digest: str) -> None:
        """Bring the value's bytes back into the store."""
        ...

    def revision(self, digest: str) -> str:
        """The name by which this system knows the pushed value; "" where it has none."""
        ...


class Tracker(Protocol):
    """Mirrors runs for people to look at."""

    def log_run(
        self,
        name: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path] = (),
        training: str = "",
    ) -> str:
        """Record one run and return the tracker's id of it; `training`: what it was called while it was under way."""
        ...

    def log_live(self, training: str, *, step: int, metrics: Mapping[str, float]) -> None:
        """Add numbers to the run of a training that is under way; it is made with the first of them."""
        ...

    def leave(self, training: str) -> None:
        """Note that a training is not under way now, until it goes on or is recorded."""
        ...


class Scheduler(Protocol):
    """Starts commands somewhere else and says how they are doing."""

    def submit(self, command: Sequence[str], *, name: str) -> str:
        """Start a command and return its id."""
        ...

    def state(self, job: str) -> str:
        """Return "pending", "running", "done" or "failed"."""
        ...


@dataclass(frozen=True)
class Lost:
    """Stands where the result of an item would, when the process that worked on it gave none.

    Attributes:
        why: it "died" (a native decoder's fault, a kill), ran out of "memory", or took more than its "time".
    """

    why: Literal["died", "memory", "time"]

    @property
    def refusal(self) -> InputRejected:
        """Why the item is refused: LOST_DIED, LOST_MEMORY or LOST_TIME."""
        said = {
            "died": "The process that read it ended in the middle, as a damaged file can make a decoder do; fetch it again.",
            "memory": "Reading it needs more memory than a worker may use; raise site.worker_memory_gb, or fetch it again.",
            "time": "Reading it takes longer than a worker may take; raise site.worker_seconds, or fetch it again.",
        }
        return InputRejected(said[self.why], code=f"LOST_{self.why.upper()}")


@dataclass(frozen=True)
class Room(Generic[In]):
    """How much memory the items that are worked on at the same time may take together.

    Attributes:
        total_bytes: of all; an item that needs more is worked on alone.
        of: what one item takes.
    """

    total_bytes: int
    of: Callable[[In], int]


class Executor(Protocol):
    """Applies a function to many items, possibly in other processes or on other machines, keeping their order.

    Functions and items are pickled on the way by executors of other processes: pass functions of modules and frozen values.
    """

    def map(self, function: Callable[[In], Out], items: Iterable[In], *, room: Room[In] | None = None) -> Iterator[Out | Lost]:
        """Yield `function(item)` for every item, in order, with only a few items ahead of the consumer in memory.

        Workers of one machine keep to `room`; those of a cluster have memory of their own.

        A `BedsideError` that the function raises is raised here; a worker that dies, runs out of memory or takes too long costs
        its own item only, in whose place `Lost` is yielded.
        """
        ...


class MemoryStore:
    """Fake `Store`: copies between a folder and a dictionary of bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote: dict[str, dict[str, bytes]] = {}

    def push(self, digest: str) -> None:
        """Copy the files of a value into the dictionary."""
        root = self.folder / digest
        self.remote[digest] = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def push_all(self, digests: Sequence[str]) -> None:
        """Copy the files of several values."""
        for digest in digests:
            self.push(digest)

    def pull(self, digest: str) -> None:
        """Write the files of a value back."""
        for name, data in self.remote[digest].items():
            path = self.folder / digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def revision(self, digest: str) -> str:
        """A pushed value is known by its own digest."""
        return digest if digest in self.remote else ""


class MemoryTracker:
    """Fake `Tracker`: keeps runs in a list, and by their names those that are under way."""

    def __init__(self) -> None:
        self.runs: list[dict[str, object]] = []
        self.live: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.left: list[str] = []

    def log_run(
        self,
        name: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path] = (),
        training: str = "",
    ) -> str:
        """Keep the run."""
        missing = [path.name for path in files if not path.exists()]
        if missing:
            raise FileNotFoundError(", ".join(missing))
        self.runs.append(
            {"name": name, "parameters": dict(parameters), "metrics": dict(metrics), "tags": dict(tags), "files": tuple(files)}
        )
        self.live.pop(training, None)
        return str(len(self.runs) - 1)

    def log_live(self, training: str, *, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the numbers."""
        self.live.setdefault(training, []).append((step, dict(metrics)))

    def leave(self, training: str) -> None:
        """Keep the name."""
        self.left.append(training)


class InlineScheduler:
    """Fake `Scheduler`: keeps commands and finishes each when first asked."""

    def __init__(self) -> None:
        self.commands: dict[str, tuple[str, ...]] = {}
        self._asked: set[str] = set()

    def submit(self, command: Sequence[str], *, name: str) -> str:
        """Keep the command."""
        job = f"{name}-{len(self.commands)}"
        self.commands[job] = tuple(command)
        return job

    def state(self, job: str) -> str:
        """Say "running" once, then "done"."""
        if job not in self.commands:
            raise KeyError(job)
        first = job not in self._asked
        self._asked.add(job)
        return "running" if first else "done"


class InlineExecutor:
    """Fake `Executor`, and the honest choice for small work: this process, one item after the other."""

    def map(self, function: Callable[[In], Out], items: Iterable[In], *, room: Room[In] | None = None) -> Iterator[Out | Lost]:
        """Apply the function here."""
        return map(function, items)


class TrackerOff:
    """`tracking: off`: nothing is mirrored."""

    def log_run(
        self,
        name: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path] = (),
        training: str = "",
    ) -> str:
        """Mirror nothing."""
        return ""

    def log_live(self, training: str, *, step: int, metrics: Mapping[str, float]) -> None:
        """Mirror nothing."""

    def leave(self, training: str) -> None:
        """Mirror nothing."""


class StoreOff:
    """`versioning: off`: values stay in the store."""

    def push(self, digest: str) -> None:
        """Move nothing."""

    def push_all(self, digests: Sequence[str]) -> None:
        """Move nothing."""

    def pull(self, digest: str) -> None:
        """Move nothing; a missing value is reported by the store itself."""

    def revision(self, digest: str) -> str:
        """Know nothing."""
        return ""
