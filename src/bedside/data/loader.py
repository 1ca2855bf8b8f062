"""Batches made ahead by worker processes: the same bytes however many there are, because a batch depends on seed and step alone.

A worker is an own interpreter that knows nothing of the training: it is told a recipe and steps, and answers with arrays over a
socket. It holds one finished batch back until it is taken, so what is made ahead is bounded. Signals that stop a training do not
reach it (they are blocked before it starts); it ends with its parent, whatever ended that (PR_SET_PDEATHSIG of prctl(2)).
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, overload

import numpy as np
import torch
from numpy.typing import NDArray

from bedside.core.config import Augmentation
from bedside.core.errors import ResourceError
from bedside.data.patches import Example, PatchSampler, augment, draw_changes, open_example

AHEAD = 2
"""Batches that each worker is asked for before they are needed."""
LOOKS = 4
"""A wait is given up after this many looks in a row, so that time in which everything was suspended counts once."""
DUMP = signal.SIGUSR2
_KEPT_FROM_WORKERS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
_DUMP_SECONDS = 0.5
_START = (
    "import ctypes, json, os, sys;"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0);"
    "os.getppid() == int(sys.argv[2]) or os._exit(1);"
    "sys.path[:] = json.loads(sys.argv[1]);"
    "from bedside.data.loader import serve; serve(int(sys.argv[3]))"
)
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")


class NoBatchError(TimeoutError):
    """A batch did not come in time."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from: images (B, C, I, J, K) float32, labels (B, I, J, K) uint8; seconds that making it took."""

    images: torch.Tensor
    labels: torch.Tensor
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """All that decides the batch of a step; with `rows` only these patches of it are made, with the same bytes."""

    sampler: PatchSampler
    augment: Augmentation
    rows: tuple[int, ...] | None = None

    def make(self, step: int) -> Batch:
        """Cut and augment the batch of a step (counted from 0)."""
        started = time.perf_counter()
        sampler = self.sampler
        images, labels = sampler.draw(step)
        rng = np.random.default_rng((sampler.seed, step, 3))
        changes = draw_changes(self.augment, sampler.batch, sampler.patch, rng)
        if self.rows is not None:
            rows = list(self.rows)
            images, labels, changes = images[rows], labels[rows], changes.of(rows)
        images, labels = augment(images, labels, changes)
        return Batch(images, labels, time.perf_counter() - started)

    def cases(self, step: int) -> tuple[str, ...]:
        """The pseudonyms of the cases in what is made for a step, patch by patch."""
        names = self.sampler.cases(step)
        return names if self.rows is None else tuple(names[row] for row in self.rows)

    def told(self) -> bytes:
        """The recipe as a worker is told it."""
        sampler = self.sampler
        folders = [example.folder for example in sampler.examples]
        if None in folders:
            raise ValueError("workers open prepared cases from disk; cases in memory need a loader without workers")
        drawn = {"patch": sampler.patch, "batch": sampler.batch, "foreground": sampler.foreground, "seed": sampler.seed}
        changed = self.augment.model_dump(mode="json")
        return json.dumps({"folders": [*map(str, folders)], "drawn": drawn, "augment": changed, "rows": self.rows}).encode()

    @classmethod
    def heard(cls, data: bytes) -> "Recipe":
        """The recipe that a worker was told."""
        told = json.loads(data)
        drawn = told["drawn"]
        examples = _Opened(tuple(map(Path, told["folders"])))
        sampler = PatchSampler(examples, tuple(drawn["patch"]), drawn["batch"], drawn["foreground"], drawn["seed"])
        rows = told["rows"]
        return cls(sampler, Augmentation.model_validate(told["augment"]), None if rows is None else tuple(rows))


@dataclass(frozen=True)
class _Opened(Sequence[Example]):
    """Prepared cases, opened when they are looked at."""

    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.folders)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "_Opened": ...
    def __getitem__(self, index: int | slice) -> "Example | _Opened":
        return _Opened(self.folders[index]) if isinstance(index, slice) else open_example(self.folders[index])


@dataclass(frozen=True)
class WorkerState:
    """What can be said of a worker from outside.

    Attributes:
        pid: its process; exit: None while it runs, else its exit status, negative for a signal.
        resident_mb: its memory, 0 when it has ended; waits_for: the step it works on, or None.
        stacks: of its threads, as far as it answered; empty if it was not asked.
    """

    pid: int
    exit: int | None
    resident_mb: float
    waits_for: int | None
    stacks: str = ""

    def __str__(self) -> str:
        if self.exit is None:
            return f"worker {self.pid}: running, {self.resident_mb:.0f} MB, at step {self.waits_for}"
        how = f"killed by {signal.Signals(-self.exit).name}" if self.exit < 0 else f"ended with {self.exit}"
        return f"worker {self.pid}: {how}, at step {self.waits_for}"


@dataclass(eq=False)
class _Worker:
    """The loader's end of a worker; `asked` are the steps it owes, oldest first."""

    process: "subprocess.Popen[bytes]"
    connection: "Connection[bytes, bytes]"
    log: IO[bytes]
    asked: deque[int] = field(default_factory=deque)

    @classmethod
    def start(cls, recipe: bytes) -> "_Worker":
        ours, theirs = _pair()
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEPT_FROM_WORKERS)
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and our own text
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(os.getpid()), str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(theirs,),
                env={**os.environ, **_ENVIRONMENT},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs)
        worker = cls(process, Connection(ours), log)
        worker.send(recipe)
        return worker

    def send(self, data: bytes) -> None:
        """Send; that a worker is dead is noticed when its answer is read."""
        try:
            self.connection.send_bytes(data)
        except ConnectionError:
            return

    def ask(self, step: int) -> None:
        self.asked.append(step)
        self.send(b"%d" % step)

    def state(self, *, stacks: bool = False) -> WorkerState:
        ended = self.process.poll()
        said = self._stacks() if stacks and ended is None else self.said()
        resident = _resident_mb(self.process.pid) if ended is None else 0.0
        return WorkerState(self.process.pid, ended, resident, self.asked[0] if self.asked else None, said)

    def _stacks(self) -> str:
        self.process.send_signal(DUMP)
        time.sleep(_DUMP_SECONDS)
        return self.said()

    def said(self) -> str:
        """What it wrote to its standard error, the last part."""
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 20_000))
        return self.log.read().decode(errors="replace")

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.log.close()


class Loader:
    """Gives the batches of steps, in any order, fastest one after the other.

    Args:
        recipe: what makes them.
        workers: processes that make them ahead; 0: this process, when asked.
        seconds: how long to wait for one before giving up.
    """

    def __init__(self, recipe: Recipe, *, workers: int = 0, seconds: float = 600.0) -> None:
        self.recipe = recipe
        self.workers = workers
        self.seconds = seconds
        self.replaced: list[WorkerState] = []
        self._told = recipe.told() if workers else b""
        self._failed_at = -1
        self._crew = [_Worker.start(self._told) for _ in range(workers)]

    def take(self, step: int) -> Batch:
        """Return the batch of a step.

        Raises:
            NoBatchError: it did not come in time.
            ResourceError: WORKER, when two workers in turn died over it.
        """
        if not self._crew:
            return self.recipe.make(step)
        count = len(self._crew)
        for ahead in range(step, step + AHEAD * count):
            worker = self._crew[ahead % count]
            if ahead not in worker.asked:
                worker.ask(ahead)
        while True:
            worker = self._crew[step % count]
            try:
                found, batch = self._receive(worker)
            except (EOFError, ConnectionError):
                self._replace(step % count)
                continue
            if found == step:
                return batch

    def _receive(self, worker: _Worker) -> tuple[int, Batch]:
        if not any(worker.connection.poll(self.seconds / LOOKS) for _ in range(LOOKS)):
            raise NoBatchError(f"no batch for step {worker.asked[0]}")
        told = json.loads(worker.connection.recv_bytes())
        if "failed" in told:
            raise RuntimeError(f"a worker failed at step {told['step']}:\n{told['failed']}")
        images = _received(worker.connection, told["images"], np.dtype(np.float32))
        labels = _received(worker.connection, told["labels"], np.dtype(np.uint8))
        worker.asked.popleft()
        return told["step"], Batch(torch.from_numpy(images), torch.from_numpy(labels), told["seconds"])

    def _replace(self, number: int) -> None:
        """Start a worker in the place of one that died, and ask it for what that owed."""
        dead = self._crew[number]
        dead.process.wait()
        state = dead.state()
        if self._failed_at == state.waits_for:
            found = ResourceError(
                f"Two loader workers in a row died while making the batch of step {state.waits_for} ({state}); see whether memory"
                " is short, or set site.loader_workers to 0.",
                code="WORKER",
            )
            found.add_note(state.stacks)
            raise found
        self._failed_at = -1 if state.waits_for is None else state.waits_for
        self.replaced.append(state)
        dead.end()
        fresh = _Worker.start(self._told)
        self._crew[number] = fresh
        for step in dead.asked:
            fresh.ask(step)

    def states(self, *, stacks: bool = False) -> tuple[WorkerState, ...]:
        """What the workers do; with `stacks` each is asked where its threads are."""
        return tuple(worker.state(stacks=stacks) for worker in self._crew)

    def close(self) -> None:
        """End the workers."""
        for worker in self._crew:
            worker.end()
        self._crew.clear()


def _pair() -> tuple[int, int]:
    import socket

    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _received(connection: "Connection[bytes, bytes]", shape: list[int], kind: np.dtype[np.generic]) -> NDArray[np.generic]:
    array = np.empty(shape, dtype=kind)
    connection.recv_bytes_into(array.data.cast("B"))
    return array


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def serve(descriptor: int) -> None:
    """What a worker does: hear a recipe, then make the batch of each step it is asked for, until nobody listens."""
    import traceback

    faulthandler.enable()
    faulthandler.register(DUMP, all_threads=True)
    torch.set_num_threads(1)
    connection: Connection[bytes, bytes] = Connection(descriptor)
    try:
        recipe = Recipe.heard(connection.recv_bytes())
        while True:
            step = int(connection.recv_bytes())
            try:
                batch = recipe.make(step)
            except (OSError, ValueError, RuntimeError, MemoryError):
                connection.send_bytes(json.dumps({"step": step, "failed": traceback.format_exc()}).encode())
                continue
            shapes = {"images": [*batch.images.shape], "labels": [*batch.labels.shape]}
            connection.send_bytes(json.dumps({"step": step, "seconds": batch.seconds, **shapes}).encode())
            for tensor in (batch.images, batch.labels):
                connection.send_bytes(tensor.contiguous().numpy().data.cast("B"))
    except (EOFError, ConnectionError):
        return
