"""Where workers come from: a process that has imported what they need, and forks one in milliseconds whenever it is asked."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from bedside.adapters.process_worker import MESSAGE_BYTES, descend
from bedside.core.errors import ResourceError

_PATIENCE_SECONDS, _BLINK_SECONDS = 5.0, 0.001
_FOREIGN = frozenset({"torch", "onnxruntime", "tensorrt", "distributed", "IPython"})
"""Libraries with threads of their own; a process that has one of them is never forked from."""
_NURSERY = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from bedside.adapters.process_worker import serve; serve(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
"""One thread each: the processes are the parallelism, and a thread's stack and heap count as memory."""


@dataclass
class Item:
    """One item on its way: its place in the order, its bytes, whether it cost a worker before, and what it will take."""

    number: int
    data: bytes
    again: bool = False
    held_bytes: int = 0


@dataclass(eq=False)
class Worker:
    """The parent's end of one child.

    Attributes:
        connection: to the child.
        pid: of the child.
        pending: items that were sent and not answered, oldest first; the first is what the child works on.
        since: when it began with that, in seconds of the monotonic clock.
        answered: how many items it has survived.
        broken: nothing can be sent to it any more; what it said before can still be read.
    """

    connection: "Connection[object, object]"
    pid: int
    pending: deque[Item] = field(default_factory=deque)
    since: float = 0.0
    answered: int = 0
    broken: bool = False

    @property
    def held_bytes(self) -> int:
        """The most that any of its items takes: it works on one after the other."""
        return max((one.held_bytes for one in self.pending), default=0)


class _Forked:
    """A child that was forked here, with what `Popen` has for one that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status; raises `TimeoutExpired` when it does not end in time."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, 0 if end is None else os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("nursery", seconds or 0.0)
            else:
                time.sleep(_BLINK_SECONDS)
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """A process that forks workers: an own interpreter, started once, or a fork of this one from before it had work.

    Args:
        modules: that the workers need; an own interpreter imports them by itself.
        forked: be a fork of this process, which has imported them.
    """

    memory_bytes = 0

    def __init__(self, modules: Sequence[str], *, forked: bool = False) -> None:
        self._learned = set(modules)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = self._fork_here(theirs.fileno()) if forked else self._start(theirs.fileno(), modules)

    @staticmethod
    def _fork_here(descriptor: int) -> _Forked:
        pid = os.fork()
        if not pid:
            descend(descriptor)
        return _Forked(pid)

    @staticmethod
    def _start(descriptor: int, modules: Sequence[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - this interpreter and our own text
            [sys.executable, "-P", "-c", _NURSERY, json.dumps(sys.path), str(descriptor), json.dumps([*modules])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children
        )

    def _ask(self, question: dict[str, object], descriptors: Sequence[int] = ()) -> dict[str, object]:
        try:
            socket.send_fds(self._control, [json.dumps(question).encode()], descriptors)
            answer = self._control.recv(MESSAGE_BYTES)
        except ConnectionError:
            answer = b""
        if not answer:
            raise ResourceError(
                "The process that starts workers was killed, perhaps for want of memory; repeat with fewer processes.",
                code="NO_PROCESS",
            )
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def learn(self, module: str) -> bool:
        """Import a module for the workers to come; say whether it was new."""
        if module in self._learned:
            return False
        failed = self._ask({"import": module, "path": sys.path})
        if failed:
            raise ImportError(f"a worker cannot import {module}:\n{failed['error']}")
        self._learned.add(module)
        return True

    def fork(self) -> Worker:
        """Start a worker."""
        ours, theirs = socket.socketpair()
        with theirs:
            pid = self._ask({"fork": self.memory_bytes}, [theirs.fileno()]).get("pid")
        if not isinstance(pid, int):
            ours.close()
            raise ResourceError(
                "The machine allows no further process; give site.processes a smaller number, or end others.", code="NO_PROCESS"
            )
        return Worker(Connection(ours.detach()), pid)

    def end(self, worker: Worker) -> None:
        """Kill a worker, whatever it does."""
        worker.connection.close()
        self._ask({"end": worker.pid})

    def close(self) -> None:
        """End the nursery and with it every worker."""
        self._control.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_ahead: list[Nursery] = []


def fork_ahead(*modules: str) -> bool:
    """Fork the process that the next executor's workers come from, so that it need not import again what is imported here.

    For programs of our own that have opened nothing yet: a fork has all that this process knows. Call it once.

    Args:
        modules: where the functions are that will be mapped; they are imported here first.

    Returns:
        Whether it was done. It is not where a thread runs beside this one, whose locks a fork would find locked for ever;
        workers are then started as always. (numpy's linear algebra, with a thread per processor at most, puts those to sleep
        around a fork by itself.)
    """
    for module in modules:
        import_module(module)
    native = sum(1 for _ in Path("/proc/self/task").iterdir())
    if _ahead or threading.active_count() > 1 or native > (os.cpu_count() or 1) or not _FOREIGN.isdisjoint(sys.modules):
        return False
    _ahead.append(Nursery(modules, forked=True))
    return True


def nursery_for(modules: Sequence[str]) -> Nursery:
    """The one that was forked ahead, or a new one."""
    return _ahead.pop() if _ahead else Nursery(modules)
