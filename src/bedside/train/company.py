"""How several processes of one training come together: rank 0 starts the others here, or SLURM started them all.

What rank 0 starts are interpreters of their own, like loader workers: signals that stop a training do not reach them, and they
end with it, whatever ended it (PR_SET_PDEATHSIG of prctl(2)). They meet on the loopback interface. Tasks of one SLURM step meet
at the first node's address and the port that Fabric derives from the job's number; the network between the nodes is trusted, as
with all of torch's processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, cast

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pydantic import JsonValue
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # the stubs leave it out

from bedside.core.config import Study
from bedside.core.errors import BedsideError, ResourceError
from bedside.core.heap import kept_heap
from bedside.core.plan import Plan
from bedside.core.site import Site
from bedside.core.task import Network, Task
from bedside.data.loader import Loader
from bedside.data.patches import Example, PatchSampler, open_example
from bedside.train import randomness
from bedside.train.adapt import Layers
from bedside.train.device import loaders_for, only_repeating, own_device
from bedside.train.distributed import ALONE, RankError, Ranks
from bedside.train.loop import Learner
from bedside.train.signals import STOPPING

LOOPBACK = "127.0.0.1"
MEET_HOURS = 2
"""Tasks of a SLURM step wait so long for the first, which prepares the cases."""
LOOK_SECONDS = 0.1
END_SECONDS, STATE_SECONDS = 5.0, 2.0
TRANSPORT = (distributed.DistError,)
_START = (
    "import ctypes, json, os, sys;"
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0);"
    "os.getppid() == int(sys.argv[2]) or os._exit(1);"
    "sys.path[:] = json.loads(sys.argv[1]);"
    "from bedside.train.company import serve; sys.exit(serve(*sys.argv[3:]))"
)


def slurm_ranks() -> tuple[int, int]:
    """Number of this task in its SLURM step, and how many there are: (0, 1) outside of `srun` with several tasks."""
    count = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return (int(os.environ["SLURM_PROCID"]), count) if count > 1 and "SLURM_PROCID" in os.environ else (0, 1)


def processes_here(site: Site) -> int:
    """How many processes of the training share this machine."""
    _, count = slurm_ranks()
    if count == 1:
        return site.training_processes
    return int(os.environ.get("SLURM_NTASKS_PER_NODE") or max(1, count // int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))))


def threads_here(site: Site, cores: int) -> int:
    """Threads of this process, of `cores` that it or all processes of the machine may use: SLURM counts for each task."""
    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm_ranks()[1] > 1 and own.isdigit() and int(own):
        return min(cores, int(own))
    return max(1, cores // processes_here(site))


@dataclass(eq=False)
class _Follower:
    """Rank 0's end of a process that it started."""

    rank: int
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]

    @classmethod
    def start(cls, rank: int, count: int, *, port: int, seconds: float) -> "_Follower":
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        told = [json.dumps(sys.path), str(os.getpid()), *map(str, (port, rank, count, seconds))]
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and our own text
                [sys.executable, "-P", "-c", _START, *told],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return cls(rank, process, log)

    def __str__(self) -> str:
        ended = self.process.poll()
        if ended is None:
            return f"rank {self.rank} is running and did not answer"
        how = f"was killed by {signal.Signals(-ended).name}" if ended < 0 else f"ended with {ended}"
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 2000))
        said = self.log.read().decode(errors="replace").strip().splitlines()
        return f"rank {self.rank} {how}" + (f": {said[-1]}" if said and ended > 0 else "")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@contextmanager
def company(study: Study, site: Site, examples: list[Example]) -> Iterator[Ranks]:
    """Rank 0 with its followers, told what is learned from; alone where one process is asked for.

    Raises:
        ResourceError: RANK: the others did not come.
    """
    tasks = slurm_ranks()[1]
    count = tasks if tasks > 1 else site.training_processes
    if count == 1:
        yield ALONE
        return
    by_slurm, seconds = tasks > 1, study.train.stall_seconds
    store = _slurm_store(0, count) if by_slurm else _own_store()
    crew = [] if by_slurm else [_Follower.start(rank, count, port=store.port, seconds=seconds) for rank in range(1, count)]
    ranks = Ranks(0, count, strategy=site.strategy, store=store, states=lambda: _ended(crew))
    told = {"study": study.model_dump(mode="json"), "site": site.model_dump(mode="json")}
    try:
        _await(ranks, crew)
        with _met(ranks, seconds, loopback=not by_slurm):
            ranks.tell("begin", **told, folders=[str(example.folder) for example in examples], threads=torch.get_num_threads())
            try:
                yield ranks
            except RankError as error:
                raise ranks.lost(error) from error
            finally:
                _part(ranks)
    finally:
        for one in crew:
            one.end()


def _await(ranks: Ranks, crew: Sequence[_Follower]) -> None:
    """Wait until the others have imported what they need, which takes a busy machine minutes; not for one that has ended.

    Raises:
        ResourceError: RANK.
    """
    assert ranks.store is not None
    until = time.monotonic() + 3600 * MEET_HOURS
    while not ranks.store.check([f"here/{rank}" for rank in range(1, ranks.count)]):
        if time.monotonic() > until or any(one.process.poll() is not None for one in crew):
            raise _not_met(ranks)
        time.sleep(LOOK_SECONDS)


def _not_met(ranks: Ranks) -> ResourceError:
    return ResourceError(
        f"The {ranks.count} processes of this training did not meet ({'; '.join(ranks.states()) or 'no answer'}); see whether"
        " memory is short, or take fewer.",
        code="RANK",
    )


def _part(ranks: Ranks) -> None:
    """Tell all that it is over, and wait a moment until they have heard it; one that is lost does not."""
    with suppress(RankError, *TRANSPORT):
        ranks.tell("end")
        assert ranks.store is not None
        ranks.store.wait([f"gone/{rank}" for rank in range(1, ranks.count)], timedelta(seconds=END_SECONDS))


def _ended(crew: list[_Follower]) -> list[str]:
    """What can be said of those that have ended; the last words of a connection come a little earlier than that."""
    until = time.monotonic() + STATE_SECONDS
    while time.monotonic() < until and all(one.process.poll() is None for one in crew):
        time.sleep(0.05)
    return [str(one) for one in crew if one.process.poll() is not None]


def _own_store() -> TCPStore:
    """A store that listens on the loopback interface only."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    return TCPStore(LOOPBACK, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach(), use_libuv=True)


def _slurm_store(rank: int, count: int) -> TCPStore:
    place = SLURMEnvironment()
    limit = timedelta(hours=MEET_HOURS)
    return TCPStore(place.main_address, place.main_port, count, rank == 0, limit, wait_for_workers=False)


@contextmanager
def _met(ranks: Ranks, seconds: float, *, loopback: bool) -> Iterator[None]:
    """Torch's process group of all ranks; an exchange that takes longer than `seconds` fails."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        try:
            limit = timedelta(seconds=seconds)
            both = torch.cuda.is_available() and distributed.is_nccl_available()
            if both:
                os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a lost process is an error here, not the end of this one
            backend = "cpu:gloo,cuda:nccl" if both else "gloo"
            distributed.init_process_group(backend, store=ranks.store, rank=ranks.rank, world_size=ranks.count, timeout=limit)
        except RuntimeError as error:
            raise _not_met(ranks) from error
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if loopback and before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)


def serve(port: str, rank: str, count: str, seconds: str) -> int:
    """What a started process does; returns its exit status."""
    store = TCPStore(LOOPBACK, int(port), is_master=False, wait_for_workers=False)
    return follow(Ranks(int(rank), int(count), store=store), float(seconds), loopback=True)


def follow_slurm(seconds: float) -> int:
    """What the tasks of a SLURM step other than the first do; returns the exit status."""
    rank, count = slurm_ranks()
    return follow(Ranks(rank, count, store=_slurm_store(rank, count)), seconds, loopback=False)


def follow(ranks: Ranks, seconds: float, *, loopback: bool) -> int:
    """Do what rank 0 says until it says that it is done."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    assert ranks.store is not None
    try:
        ranks.store.set(f"here/{ranks.rank}", "1")
        with kept_heap(), _met(ranks, seconds, loopback=loopback):
            _Followed(ranks).run()
            ranks.store.set(f"gone/{ranks.rank}", "1")
    except BedsideError as error:
        sys.stderr.write(f"{error.sentence}\n")
        return error.exit_code
    except RankError as error:
        sys.stderr.write(f"{error}\n")
        return ResourceError.exit_code
    return 0


class _Followed:
    """The learner of a follower and what it learns from."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        begun = ranks.hear()
        self.study = Study.model_validate(begun["study"])
        self.site = Site.model_validate(begun["site"])
        ranks.strategy = self.site.strategy
        only_repeating(wanted=self.study.train.deterministic)
        self.examples = [open_example(Path(folder)) for folder in cast("list[str]", begun["folders"])]
        torch.set_num_threads(cast("int", begun["threads"]))
        self.loader: Loader | None = None
        self.learner: Learner | None = None

    def run(self) -> None:
        """Follow until the end."""
        try:
            while (told := self.ranks.hear())["what"] != "end":
                with self.ranks.exchange():
                    self._do(told)
        finally:
            self._close()

    def _do(self, told: dict[str, JsonValue]) -> None:
        if told["what"] == "make":
            self._close()
            rates = cast("dict[str, float] | None", told["rates"])
            layers = None if rates is None else Layers(rates)
            self.learner = self._made(Plan.model_validate(told["plan"]), str(told["precision"]), layers)
            return
        learner = self.learner
        assert learner is not None
        if told["what"] == "restore":
            tensors = self.ranks.receive(told["tensors"])
            ema = {f"ema.{name[4:]}": value for name, value in tensors.items() if name.startswith("net.")}
            learner.restore(ema | tensors, cast("dict[str, float] | None", told["scaler"]))
            return
        if told["what"] == "gather":
            learner.gather(average=bool(told["average"]))
            return
        number, total, timed = self.ranks.hear_step(told)
        randomness.seed_all((learner.plan.seed * 1_000_003 + number) * self.ranks.count + self.ranks.rank)
        learner.step(number, total, None if timed else self._loaded(learner).take(number))

    def _made(self, plan: Plan, precision: str, layers: Layers | None) -> Learner:
        task, network = cast("Task", self.study.task), cast("Network", plan.network)
        net = network.build(self.examples[0].image.shape[0], task.out_channels(self.study.contract))
        sampler = PatchSampler(self.examples, plan.patch, plan.batch, plan.foreground, plan.seed)
        device = own_device(self.site, self.ranks.rank, plan.memory_mb)
        return Learner(net, task, sampler, plan, precision, layers, self.ranks, device=device)

    def _loaded(self, learner: Learner) -> Loader:
        if self.loader is None:
            seconds = self.study.train.stall_seconds
            workers = loaders_for(self.site, learner.plan)
            self.loader = Loader(learner.recipe, workers=workers, seconds=seconds)
        return self.loader

    def _close(self) -> None:
        if self.loader is not None:
            self.loader.close()
        self.loader = None
