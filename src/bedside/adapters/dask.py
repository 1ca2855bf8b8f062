"""Work spread over a Dask cluster: the same limits, the same answers in the same order, on other machines.

A Dask worker cannot end a task that swells or hangs, and dies with one that crashes. So each of them hands its items to a limited
child of its own (`LocalProcesses` with one worker), and a hostile file costs there what it costs here.

What is sent is pickled by Dask: whoever reaches the scheduler's port can run code on every worker. Use `tls://` with Dask's
certificates, or a network that is yours. Files are not sent: the received folder must be mounted at the same path everywhere.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar, cast

from dask_jobqueue import SLURMCluster
from distributed import Client, Future
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from bedside.adapters.processes import LocalProcesses, module_of
from bedside.core.errors import BedsideError, ResourceError, UsageError
from bedside.core.ports import Lost, Room

In = TypeVar("In")
Out = TypeVar("Out")

_QUICK_SECONDS, _MOST_TOGETHER = 0.05, 64
_POLL_SECONDS, _WAIT_SECONDS, _ANSWER_SECONDS, _QUEUE_SECONDS = 1.0, 0.1, 10.0, 86_400.0
_WORKER_GB = 2.0
"""What a Dask worker and the libraries that its child starts with take, beside what an item may."""
_IDLE: list[LocalProcesses] = []
"""Children of this Dask worker that wait for items: one for each of its threads at most."""


@dataclass(frozen=True)
class Limits:
    """What one item may take: 2**30 bytes beyond what a child maps when it starts, and seconds."""

    memory_gb: float
    seconds: float


@dataclass(frozen=True)
class Batch:
    """Items that travel together. Its repr names none of them, because Dask writes arguments into logs.

    Attributes:
        function: importable by name where the batch arrives.
        items: what it is applied to.
        limits: of each item.
        sender: version of bedside that sends them.
    """

    function: Callable[[object], object] = field(repr=False)
    items: tuple[object, ...] = field(repr=False)
    limits: Limits
    sender: str


@dataclass(frozen=True)
class Answers:
    """What came of a batch: the answers up to the first refusal, that refusal, and how long it took."""

    values: tuple[object, ...] = field(repr=False)
    refusal: BedsideError | None
    seconds: float


def limited(batch: Batch) -> Answers:
    """Work on a batch, in a limited child of the Dask worker that this runs in.

    Raises:
        UsageError: CLUSTER_VERSION: another version of bedside is installed here.
    """
    here = version("bedside")
    if batch.sender != here:
        raise UsageError(
            f"A Dask worker has bedside {here}, and {batch.sender} sent it work; install one version everywhere.",
            code="CLUSTER_VERSION",
        )
    began = time.monotonic()
    child = _child(batch.limits)
    values: list[object] = []
    refusal = None
    try:
        for value in child.map(batch.function, batch.items):
            values.append(value)  # noqa: PERF402 - what came before a refusal is kept
    except BedsideError as error:
        refusal = error
    finally:
        if isinstance(refusal, ResourceError):
            child.close()
        else:
            _IDLE.append(child)
    return Answers(tuple(values), refusal, time.monotonic() - began)


def _child(limits: Limits) -> LocalProcesses:
    """A child with these limits that nobody else uses."""
    while _IDLE:
        child = _IDLE.pop()
        if (child.memory_gb, child.seconds) == (limits.memory_gb, limits.seconds):
            return child
        child.close()
    return LocalProcesses(1, memory_gb=limits.memory_gb, seconds=limits.seconds).open()


class DaskExecutor:
    """`Executor` over the workers of a Dask scheduler, to be used as a context manager.

    Args:
        address: of the scheduler, "tcp://host:8786" or "tls://host:8786".
        limits: of each item.
        patience_seconds: how long the cluster may be without any worker.
    """

    def __init__(self, address: str, *, limits: Limits, patience_seconds: float = 60.0) -> None:
        self.address = address
        self.limits = limits
        self.patience_seconds = patience_seconds
        self._client: Client | None = None

    def __enter__(self) -> Self:
        try:
            self._client = Client(self.address, timeout=_ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise _no_cluster("No Dask scheduler answers at the address in site.executor") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def map(self, function: Callable[[In], Out], items: Iterable[In], *, room: Room[In] | None = None) -> Iterator[Out | Lost]:
        """Yield the function's results in the order of the items; see `core.ports.Executor`.

        Each worker keeps to the limits of its own machine, so nothing is made of `room`.

        Raises:
            ResourceError: NO_CLUSTER: the scheduler or all workers are gone.
            UsageError: CLUSTER_VERSION.
        """
        if self._client is None:
            raise RuntimeError("enter the executor with `with`")
        module_of(function)
        return cast(
            "Iterator[Out | Lost]", self._results(self._client, cast("Callable[[object], object]", function), iter(items))
        )

    def _results(self, client: Client, function: Callable[[object], object], source: Iterator[object]) -> Iterator[object]:
        whole = Batch(function, (), self.limits, version("bedside"))
        sent: deque[tuple[Future, Batch]] = deque()
        answered: Iterator[Answers | None]
        together, ahead = 1, 2 * max(1, sum(client.nthreads().values()))
        try:
            while True:
                while len(sent) < ahead and (items := tuple(islice(source, together))):
                    sent.append(_sent(client, replace(whole, items=items)))
                if not sent:
                    return
                answers = self._answers(client, sent[0][0])
                _, batch = sent.popleft()
                if answers is None:
                    self._wait(client, [future for future, _ in sent])
                    parts = [replace(batch, items=(item,)) for item in batch.items]
                    answered = (self._answers(client, _sent(client, part)[0]) for part in parts)
                else:
                    answered = iter([answers])
                    together = min(2 * together, _MOST_TOGETHER) if answers.seconds < _QUICK_SECONDS else 1
                for part in answered:
                    yield from (Lost("died"),) if part is None else part.values
                    if part is not None and part.refusal is not None:
                        raise part.refusal
        finally:
            for future, _ in sent:
                future.cancel()

    def _answers(self, client: Client, future: Future) -> Answers | None:
        """What came of a batch; None when every worker that tried it died."""
        patience = _Patience(client, self.patience_seconds)
        while True:
            try:
                answers = future.result(timeout=_POLL_SECONDS)
            except TimeoutError:
                if future.done():
                    raise
                patience.check()
            except KilledWorker:
                return None
            except FutureCancelledError as error:
                raise _no_cluster("The Dask scheduler went away") from error
            else:
                assert isinstance(answers, Answers)
                return answers

    def _wait(self, client: Client, futures: Sequence[Future]) -> None:
        """Wait until nothing of ours runs: what is tried alone then can blame no other item for the end of a worker."""
        patience = _Patience(client, self.patience_seconds)
        while not all(future.done() for future in futures):
            time.sleep(_WAIT_SECONDS)
            patience.check()


class _Patience:
    """Counts how long a cluster has been without any worker."""

    def __init__(self, client: Client, seconds: float) -> None:
        self._client, self._seconds, self._since = client, seconds, time.monotonic()

    def check(self) -> None:
        """Raise when it has been too long."""
        if self._client.nthreads():
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._seconds:
            raise _no_cluster("The Dask cluster has no worker")


def _sent(client: Client, batch: Batch) -> tuple[Future, Batch]:
    return client.submit(limited, batch, pure=False), batch


def _no_cluster(found: str) -> ResourceError:
    return ResourceError(f"{found}; start it, or say executor: processes, and repeat the command.", code="NO_CLUSTER")


def slurm_cluster(workers: int, limits: Limits) -> SLURMCluster:
    """A scheduler in this process and one SLURM job for each worker.

    Partition, account, wall time and network interface are the site's own: they come from Dask's configuration
    (`jobqueue.slurm` in ~/.config/dask/jobqueue.yaml), where dask-jobqueue's guide explains them.
    """
    memory = f"{limits.memory_gb + _WORKER_GB:g}GiB"
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    cluster = SLURMCluster(cores=1, processes=1, memory=memory, job_name="bedside", scheduler_options=quiet)
    cluster.scale(jobs=workers)
    return cluster


@contextmanager
def slurm(workers: int, limits: Limits) -> Iterator[DaskExecutor]:
    """An executor over SLURM jobs, which end with it."""
    with (
        slurm_cluster(workers, limits) as cluster,
        DaskExecutor(cluster.scheduler_address, limits=limits, patience_seconds=_QUEUE_SECONDS) as executor,
    ):
        yield executor
