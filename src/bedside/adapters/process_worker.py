"""The child's side of `LocalProcesses`: a nursery that forks limited workers, and what a worker does.

The nursery is an own interpreter, or a fork of the parent from before anything received was opened. It imports what the workers
will need once, then forks a worker in milliseconds whenever the parent asks. It ends, with every worker, as soon as the parent's
end of its socket is closed, for example because the parent was killed; a worker whose nursery is killed is killed by the kernel.

Function, items and answers are pickled by `multiprocessing` on their way between the parent and its own children, over sockets
that nobody else can open. This keeps a fault, a bomb or an endless loop in one child; it is no wall against code that runs there.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Literal, NamedTuple, NoReturn

from bedside.core.errors import BedsideError
from bedside.core.heap import collect_seldom, keep_small_pieces

MESSAGE_BYTES = 1 << 16
"""Of one question to the nursery, or its answer."""
FUNCTION, ITEM = b"F", b"I"
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


class Answer(NamedTuple):
    """What a worker says of one item.

    Attributes:
        kind: "done" with the result; "refused" with the `BedsideError` that was raised; "memory"; or "defect".
        value: the result, or the exception; of a defect whose exception cannot travel, a `RuntimeError` in its place.
        trace: a defect's traceback.
        seconds: how long it took.
    """

    kind: Literal["done", "refused", "memory", "defect"]
    value: object = None
    trace: str = ""
    seconds: float = 0.0


def serve(descriptor: int, modules: Sequence[str] = ()) -> None:
    """Be the nursery of the parent at the other end of a socket; `modules` are imported before it is listened to."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        importlib.import_module(module)
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
        if not message:
            break
        question = json.loads(message)
        answer: Mapping[str, str | int] = {}
        if "import" in question:
            answer = _import(question["import"], question["path"])
        elif "fork" in question:
            started = _fork(control, descriptors[0], question["fork"])
            children.update(started.values())
            answer = started
        else:
            _end(question["end"])
            children.discard(question["end"])
        control.send(json.dumps(answer).encode())
    for pid in children:
        _end(pid)


def descend(descriptor: int) -> NoReturn:
    """Be a nursery that was forked: let go of all that is the parent's, and end without its farewells."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        gc.freeze()
        serve(descriptor)
    finally:
        os._exit(0)


def _import(module: str, path: list[str]) -> dict[str, str]:
    """Import what workers will run, with the parent's search path, so that each of them starts with it."""
    sys.path[:] = path
    try:
        importlib.import_module(module)
    except (ImportError, SyntaxError):
        return {"error": traceback.format_exc()[-MESSAGE_BYTES // 8 :]}
    return {}


def _end(pid: int) -> None:
    """Kill a worker; it was not waited for before, so its number is still its own."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _fork(control: socket.socket, descriptor: int, memory_bytes: int) -> dict[str, int]:
    """Start a worker and give its number; nothing, when the machine allows no further process."""
    nursery = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(descriptor)
        return {}
    if pid:
        os.close(descriptor)
        return {"pid": pid}
    _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(1)
    control.close()
    gc.freeze()
    collect_seldom()
    keep_small_pieces()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        work(Connection(descriptor))
    finally:
        os._exit(0)


def _address_space_bytes() -> int:
    """What this process has mapped already: the interpreter and its libraries."""
    with open("/proc/self/statm", "rb") as stream:  # noqa: PTH123 - one line of the kernel, no file
        return int(stream.read().split()[0]) * resource.getpagesize()


def work(parent: "Connection[object, object]") -> None:
    """Answer until the parent hangs up. A message that begins with `FUNCTION` names what to do, one with `ITEM` is an item."""
    function = Answer("defect", RuntimeError("an item came before its function"))
    while True:
        try:
            data = parent.recv_bytes()
        except EOFError:
            return
        kind, content = data[:1], memoryview(data)[1:]
        if kind == FUNCTION:
            function = _attempt(partial(ForkingPickler.loads, content))
            continue
        began = time.monotonic()
        answer = _attempt(partial(_apply, function.value, content)) if function.kind == "done" else function
        parent.send_bytes(_sealed(answer._replace(seconds=time.monotonic() - began)))
        while answer.kind == "memory":
            signal.pause()  # what is left of this process is not to be trusted; the parent ends it when it has read the answer


def _apply(function: object, content: memoryview) -> object:
    assert callable(function)
    return function(ForkingPickler.loads(content))


def _attempt(action: Callable[[], object]) -> Answer:
    """Do something and say what came of it."""
    try:
        return Answer("done", action())
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the parent
        if isinstance(error, MemoryError):
            return Answer("memory")
        if isinstance(error, BedsideError):
            return Answer("refused", error)
        return Answer("defect", error, traceback.format_exc())


def _sealed(answer: Answer) -> bytes | memoryview:
    """The answer as bytes; what cannot travel becomes an answer that can."""
    if isinstance(answer.value, Exception) and _attempt(partial(_there_and_back, answer.value)).kind != "done":
        answer = Answer("defect", RuntimeError(f"{type(answer.value).__name__} in a worker"), answer.trace)
    sealed = _attempt(partial(ForkingPickler.dumps, answer))
    if isinstance(sealed.value, bytes | memoryview):
        return sealed.value
    instead = Answer("memory") if sealed.kind == "memory" else Answer("defect", RuntimeError("no answer"), sealed.trace)
    return bytes(ForkingPickler.dumps(instead))


def _there_and_back(error: Exception) -> None:
    ForkingPickler.loads(ForkingPickler.dumps(error))
