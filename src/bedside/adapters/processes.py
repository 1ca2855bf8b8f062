"""Work spread over own processes with limits: what a hostile file does to one of them costs that file only."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Literal, Self, TypeVar, cast

from bedside.adapters.nursery import Item, Nursery, Worker, nursery_for
from bedside.adapters.process_worker import FUNCTION, ITEM, Answer
from bedside.core.ports import Lost, Room

In = TypeVar("In")
Out = TypeVar("Out")

_PREFETCH_BYTES = 1 << 16
"""Of items that wait in a worker's socket: less than its buffer, so that sending never blocks while the worker is busy."""
_WAITING_BYTES = 32 << 20
"""Of answers that wait for an earlier one: above this nothing new is started."""
_AHEAD_PER_WORKER = 64
_QUICK_SECONDS, _MOST_PREFETCHED = 0.005, 32


class LocalProcesses:
    """`Executor` over processes of this machine, each with a ceiling of memory and of time per item.

    Use it as a context manager; `map` may be called any number of times, one after the other. Functions and items travel by
    `multiprocessing`'s own pickling between this process and its children and are never written anywhere: functions must be
    importable by name (or a `functools.partial` of one). What children print goes nowhere: native decoders quote their input.

    A child dies with this process, whatever killed it. An item on which a child that had done other work died or ran out of
    memory is tried once more in a fresh one, so that the answer depends on the item and not on what came before it.

    Args:
        workers: how many children.
        memory_gb: address space of each beyond what it maps when it starts (RLIMIT_AS), in 2**30 bytes.
        seconds: for one item, by the clock on the wall.
        modules: where the functions are that will be mapped; they are imported for the workers meanwhile.
    """

    def __init__(self, workers: int, *, memory_gb: float, seconds: float, modules: Sequence[str] = ()) -> None:
        if workers < 1:
            raise ValueError("an executor needs at least one worker")
        self.workers = workers
        self.memory_gb = memory_gb
        self.seconds = seconds
        self.modules = tuple(modules)
        self._nursery: Nursery | None = None
        self._crew: list[Worker] = []
        self._mapping = False

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def open(self) -> Self:
        """Start the interpreter that workers come from; `with` does it."""
        self._nursery = nursery_for(self.modules)
        self._nursery.memory_bytes = int(self.memory_gb * (1 << 30))
        return self

    def close(self) -> None:
        """End every worker; leaving `with` does it."""
        if self._nursery is not None:
            self._nursery.close()
        for worker in self._crew:
            worker.connection.close()
        self._crew.clear()
        self._nursery = None

    def map(self, function: Callable[[In], Out], items: Iterable[In], *, room: Room[In] | None = None) -> Iterator[Out | Lost]:
        """Yield the function's results in the order of the items; see `core.ports.Executor`.

        Raises:
            ResourceError: NO_PROCESS: the machine allows no further process.
        """
        if self._nursery is None or self._mapping:
            raise RuntimeError("enter the executor with `with`, and finish one map before the next")
        self._mapping = True
        try:
            if self._nursery.learn(module_of(function)):
                for worker in list(self._crew):
                    self.retire(worker)
            yield from cast("Iterator[Out | Lost]", _Mapping(self, function, cast("Room[object] | None", room)).run(items))
        finally:
            self._mapping = False
            for worker in [worker for worker in self._crew if worker.pending]:
                self.retire(worker)

    @property
    def crew(self) -> tuple[Worker, ...]:
        """The workers there are."""
        return tuple(self._crew)

    def hire(self) -> Worker:
        """Start one more worker."""
        assert self._nursery is not None
        worker = self._nursery.fork()
        self._crew.append(worker)
        return worker

    def retire(self, worker: Worker) -> None:
        """Kill a worker and forget it."""
        assert self._nursery is not None
        self._crew.remove(worker)
        self._nursery.end(worker)


def module_of(function: object) -> str:
    """The module that a worker must import to find a function.

    Raises:
        ValueError: the function is of the script that was started, which a worker does not import.
    """
    while isinstance(function, partial):
        function = function.func
    module = getattr(function, "__module__", None) or type(function).__module__
    if module == "__main__":
        raise ValueError("a worker cannot import a function of the script that was started; put it into a module")
    return str(module)


class _Mapping:
    """One `map`: which items are where, and what has come back."""

    def __init__(self, house: LocalProcesses, function: object, room: Room[object] | None) -> None:
        self._house = house
        self._allowed = room
        self._function = FUNCTION + bytes(ForkingPickler.dumps(function))
        self._told: set[Worker] = set()
        self._queue: deque[Item] = deque()
        self._answers: dict[int, tuple[Answer | Lost, int]] = {}
        self._waiting_bytes = 0
        self._taken = self._given = 0
        self._exhausted = False
        self._seconds = _QUICK_SECONDS
        self._answer_bytes = 0.0
        """Both of the items so far, the latest weighing most."""

    def run(self, items: Iterable[object]) -> Iterator[object]:
        """Yield results in order."""
        source = iter(items)
        while True:
            while self._given in self._answers:
                answer, size = self._answers.pop(self._given)
                self._waiting_bytes -= size
                self._given += 1
                yield _result(answer)
            self._fill(source)
            if not any(worker.pending for worker in self._house.crew):
                return
            self._collect()

    def _fill(self, source: Iterator[object]) -> None:
        """Hand out items while a worker has room."""
        while (item := self._first(source)) is not None and (worker := self._room(item)) is not None:
            if not worker.pending:
                worker.since = time.monotonic()
            worker.pending.append(self._queue.popleft())
            try:
                if worker not in self._told:
                    self._told.add(worker)
                    worker.connection.send_bytes(self._function)
                worker.connection.send_bytes(ITEM + item.data)
            except ConnectionError:
                worker.broken = True

    @property
    def _quick(self) -> bool:
        """Whether items take so little time that they should wait at the workers, and their answers little enough memory."""
        waiting_bytes = self._answer_bytes * self._house.workers * _AHEAD_PER_WORKER
        return self._seconds < _QUICK_SECONDS and waiting_bytes <= _WAITING_BYTES

    def _first(self, source: Iterator[object]) -> Item | None:
        """The next item to hand out; None when there is none, or enough are on their way."""
        ahead = self._house.workers * (_AHEAD_PER_WORKER if self._quick else 2)
        full = self._waiting_bytes > _WAITING_BYTES or self._taken - self._given >= ahead
        if not self._queue and not self._exhausted and not full:
            try:
                item = next(source)
            except StopIteration:
                self._exhausted = True
            else:
                held_bytes = self._allowed.of(item) if self._allowed else 0
                self._queue.append(Item(self._taken, bytes(ForkingPickler.dumps(item)), held_bytes=held_bytes))
                self._taken += 1
        return self._queue[0] if self._queue else None

    def _room(self, item: Item) -> Worker | None:
        """Which worker takes an item now: an idle one, a new one, or one that works on quick items and has few before it."""
        crew = [worker for worker in self._house.crew if not worker.broken]
        idle = [worker for worker in crew if not worker.pending]
        fresh = [worker for worker in idle if not worker.answered]
        if self._fits(item):
            if item.again and idle and not fresh:
                self._house.retire(idle[0])
                return self._house.hire()
            if fresh or (idle and not item.again):
                return (fresh or idle)[0]
            if len(self._house.crew) < self._house.workers:
                return self._house.hire()
        crew = [worker for worker in crew if worker.pending and worker.held_bytes >= item.held_bytes]
        if not crew or item.again or not self._quick:
            return None
        worker = min(crew, key=lambda one: len(one.pending))
        waiting = sum(len(other.data) for other in worker.pending)
        return worker if len(worker.pending) < _MOST_PREFETCHED and waiting + len(item.data) <= _PREFETCH_BYTES else None

    def _fits(self, item: Item) -> bool:
        """Whether one more worker may begin with an item now; alone, any item may be begun."""
        held_bytes = sum(worker.held_bytes for worker in self._house.crew)
        idle = not any(worker.pending for worker in self._house.crew)
        return self._allowed is None or idle or held_bytes + item.held_bytes <= self._allowed.total_bytes

    def _collect(self) -> None:
        """Wait until a worker answers, dies, or has taken too long."""
        busy = {worker.connection: worker for worker in self._house.crew if worker.pending}
        end = min(worker.since for worker in busy.values()) + self._house.seconds
        ready = {busy[cast("Connection[object, object]", one)] for one in wait(list(busy), max(0.0, end - time.monotonic()))}
        for worker in ready:
            self._hear(worker)
        now = time.monotonic()
        for worker in set(busy.values()) - ready:
            if now - worker.since > self._house.seconds:
                self._lose(worker, "time")

    def _hear(self, worker: Worker) -> None:
        try:
            data = worker.connection.recv_bytes()
        except (EOFError, OSError):  # before an answer, or in the middle of one
            self._lose(worker, "died")
            return
        answer = ForkingPickler.loads(data)
        assert isinstance(answer, Answer)
        if answer.kind == "memory":
            self._lose(worker, "memory")
            return
        self._answers[worker.pending.popleft().number] = answer, len(data)
        self._waiting_bytes += len(data)
        self._seconds += 0.2 * (answer.seconds - self._seconds)
        self._answer_bytes += 0.2 * (len(data) - self._answer_bytes)
        worker.answered += 1
        worker.since = time.monotonic()

    def _lose(self, worker: Worker, why: Literal["died", "memory", "time"]) -> None:
        """Give a worker up. Its current item is lost, unless older work may be to blame; those behind it go to others."""
        item, *behind = worker.pending
        worker.pending.clear()
        self._house.retire(worker)
        self._queue.extendleft(reversed(behind))
        if worker.answered and not item.again and why != "time":
            self._queue.appendleft(replace(item, again=True))
        else:
            self._answers[item.number] = Lost(why), 0


def _result(answer: Answer | Lost) -> object:
    if isinstance(answer, Lost):
        return answer
    if isinstance(answer.value, BaseException) and answer.kind != "done":
        if answer.trace:
            answer.value.add_note(f"in a worker:\n{answer.trace}")
        raise answer.value
    return answer.value
