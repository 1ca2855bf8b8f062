"""Several processes that compute one training: rank 0 decides, keeps and writes; the others compute their share of each step.

Rank 0 is the training as it is without others. It tells the others what it does next (make a learner, take up a checkpoint, do
step N), through the store by which torch's processes find each other, and nothing but these messages and tensors is passed: no
pickle. A follower never decides, saves, scores or handles a signal, so all stop at the same step.

A step gives the gradient of its whole batch, whoever computes which patch. Where a piece of the batch that passes at once has a
patch for every rank, the piece is shared, and each rank takes the loss of the whole piece from the outputs of all, because a loss
may couple patches (batch Dice does): the gradients of the shares then add up to that of the piece. Otherwise whole pieces are
shared out. Sums are rounded in another order than in one process, so bits differ and a checkpoint belongs to its number of
processes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate, pairwise

import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from pydantic import JsonValue
from torch import distributed, nn
from torch.distributed import Store  # type: ignore[attr-defined]  # the stubs leave it out

from bedside.core.errors import IntegrityError, ResourceError, UsageError
from bedside.core.plan import Plan
from bedside.core.site import Strategy
from bedside.networks.deep import Output
from bedside.train.adapt import Layers
from bedside.train.memory import is_out_of_memory

CHECKED_EVERY = 50
"""Steps between two comparisons of the weights of all ranks."""
LOOK = timedelta(seconds=60)
_SAID_BY_TRANSPORT = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "socket")


class RankError(RuntimeError):
    """Another process of this training is gone or does not answer."""


@dataclass(frozen=True)
class Share:
    """What one rank computes of a batch.

    Attributes:
        rows: the patches, by their place in the batch; pieces: how many of them pass at once.
        sizes: of each piece that is shared, the patches of every rank; () where pieces are whole.
    """

    rows: tuple[int, ...]
    pieces: tuple[int, ...]
    sizes: tuple[int, ...] = ()


class _Place(LightningEnvironment):  # type: ignore[misc]  # it has no types
    """Tells Fabric that the processes are there: each is a node of its own with one device."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def node_rank(self) -> int:
        return self._rank

    def local_rank(self) -> int:
        return 0


@dataclass(eq=False)
class Ranks:
    """This process among those of one training.

    Attributes:
        rank: its number; count: of all; strategy: as Fabric calls it.
        store: by which messages are passed; None alone.
        states: says how followers on this machine ended.
    """

    rank: int = 0
    count: int = 1
    strategy: Strategy = "ddp"
    store: Store | None = None
    states: Callable[[], list[str]] = list
    _told: int = field(default=0, init=False)
    _compared: bool = field(default=False, init=False)

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    @property
    def sharded(self) -> bool:
        """Whether the weights are divided among the processes."""
        return not self.alone and self.strategy == "fsdp"

    @property
    def environment(self) -> LightningEnvironment:
        """Where Fabric runs; alone nothing changes it, a job of a cluster neither."""
        return _Place(self.rank) if self.fabric_nodes > 1 else LightningEnvironment()

    @property
    def fabric_strategy(self) -> str:
        """The strategy by its name; divided weights are not Fabric's business (`train/sharding.py`)."""
        return self.strategy if self.fabric_nodes > 1 else "auto"

    @property
    def fabric_nodes(self) -> int:
        """As Fabric counts processes."""
        return 1 if self.sharded else self.count

    def begin(self, plan: Plan, net: nn.Module, *, precision: str, layers: Layers | None) -> None:
        """Let followers make the learner that rank 0 makes.

        Raises:
            UsageError: PROCESSES, when several processes cannot share this training.
        """
        if self.alone:
            return
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):  # noqa: SLF001 - the common type
            raise UsageError(
                "A batch norm needs all patches of a batch in one process; take a network with instance norms, or --processes 1.",
                code="PROCESSES",
            )
        if layers is not None and layers.stages:
            raise UsageError(
                "train.unfreeze is for one process: the others expect a gradient of every weight; take --processes 1.",
                code="PROCESSES",
            )
        if self.sharded and precision == "fp16":
            raise UsageError(
                "site.strategy fsdp trains in bf16 or fp32: the scaler of fp16 gradients sees one part of them only.",
                code="STRATEGY",
            )
        self.share(plan)
        rates: dict[str, JsonValue] | None = None if layers is None else {**layers.rates}
        self.tell("make", plan=plan.model_dump(mode="json"), precision=precision, rates=rates)

    def check_count(self, processes: int) -> None:
        """Refuse to go on with another number of processes: sums of gradients would be rounded in another order.

        Raises:
            UsageError: PROCESSES.
        """
        if processes != self.count:
            raise UsageError(
                f"The checkpoint was made with {processes} processes and now there are {self.count}; bits would differ. Go on"
                f" with --processes {processes}, which one machine can run too, or start again with --fresh.",
                code="PROCESSES",
            )

    def check_alone_for_less_memory(self) -> None:
        """Refuse to take smaller pieces in the middle of a step that others are in.

        Raises:
            ResourceError: OUT_OF_MEMORY.
        """
        if not self.alone:
            raise ResourceError(
                f"Memory ran out with {self.count} processes; set train.micro_batch or train.patch smaller. The last checkpoint"
                " is intact.",
                code="OUT_OF_MEMORY",
            )

    def lost(self, error: RankError) -> ResourceError:
        """What the end of a training says when a process was lost."""
        states = self.states()
        kept = "its part of the weights with it, and the same command goes on from the last checkpoint"
        if not self.sharded:
            kept = "what was done is saved, and the same command goes on from there"
        found = ResourceError(
            f"Another process of this training was lost ({'; '.join(states) or 'it does not answer'}); {kept}.",
            code="RANK",
        )
        found.add_note(str(error))
        return found

    def share(self, plan: Plan) -> Share:
        """The share of this rank in each batch of a plan, as even as patches allow.

        Raises:
            UsageError: PROCESSES, when a rank would have nothing to do.
        """
        return shares(plan.batch, plan.micro_batch, self.count)[self.rank]

    def whole(self, output: Output, truth: torch.Tensor, share: Share) -> tuple[Output, torch.Tensor]:
        """The outputs and targets of a piece from all ranks, in the order of the batch; the own part keeps its graph."""
        if not share.sizes:
            return output, truth
        if isinstance(output, tuple):
            return tuple(self._gathered(each, share.sizes) for each in output), self._gathered(truth, share.sizes)
        return self._gathered(output, share.sizes), self._gathered(truth, share.sizes)

    def _gathered(self, mine: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        parts = []
        for rank, size in enumerate(sizes):
            own = rank == self.rank
            part = mine.detach().contiguous() if own else mine.new_empty((size, *mine.shape[1:]))
            distributed.broadcast(part, src=rank)
            parts.append(mine if own else part)
        return torch.cat(parts)

    def agreed(self, value: float, share: Share) -> float:
        """The loss of the whole batch: what rank 0 has of shared pieces, the sum of whole ones."""
        if self.alone:
            return value
        total = torch.tensor([value if not share.sizes or self.rank == 0 else 0.0], dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total)

    def check_equal(self, net: nn.Module, step: int) -> None:
        """Compare the weights of all ranks by their hash, in steps for which rank 0 has said so.

        Raises:
            IntegrityError: RANKS_DIFFER.
        """
        if self.alone or self.sharded or not self._compared:
            return  # of divided weights no two processes have the same
        digest = hashlib.sha256()
        for value in net.state_dict().values():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        mine = torch.tensor(list(digest.digest()), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(found, mine)
        different = [rank for rank, one in enumerate(found) if not torch.equal(one, found[0])]
        if different:
            named = ", ".join(map(str, different))
            raise IntegrityError(
                f"Before step {step} the weights of rank {named} are not those of rank 0; the same command goes on from the last"
                " checkpoint. If it happens again, a machine computes wrongly.",
                code="RANKS_DIFFER",
            )

    def tell(self, what: str, **said: JsonValue) -> None:
        """Rank 0 says what it does next; followers do nothing here."""
        if self.alone or self.rank:
            return
        assert self.store is not None
        with self.exchange():
            self.store.set(f"told/{self._told}", json.dumps({"what": what, **said}))
            if self._told > 1:
                self.store.delete_key(f"told/{self._told - 2}")  # whatever was told before the last is done by all
        self._told += 1

    def tell_step(self, number: int, total: int, *, timed: bool) -> None:
        """Rank 0 says that a step is next, and whether weights are compared before it: every `CHECKED_EVERY` steps."""
        if not self.rank:
            self._compared = number % CHECKED_EVERY == 0
        self.tell("step", number=number, total=total, timed=timed, compared=self._compared)

    def hear_step(self, told: Mapping[str, JsonValue]) -> tuple[int, int, bool]:
        """A follower's side of `tell_step`: number, total, whether it is timed."""
        self._compared = bool(told["compared"])
        return int(str(told["number"])), int(str(told["total"])), bool(told["timed"])

    def hear(self) -> dict[str, JsonValue]:
        """The next thing that rank 0 says, whenever it comes.

        Raises:
            RankError: rank 0 is gone.
        """
        assert self.store is not None
        key = f"told/{self._told}"
        while True:
            try:
                self.store.wait([key], LOOK)
                break
            except distributed.DistNetworkError as error:
                raise RankError("rank 0 is gone") from error
            except distributed.DistStoreError:
                continue  # rank 0 prepares or scores cases; its end is another error
        self._told += 1
        heard: dict[str, JsonValue] = json.loads(self.store.get(key))
        return heard

    def send(self, tensors: Mapping[str, torch.Tensor], *, scaler: Mapping[str, float] | None) -> None:
        """Rank 0 hands tensors to all, by name."""
        if self.alone or self.rank:
            return
        kinds: list[JsonValue] = [[name, str(each.dtype).removeprefix("torch."), [*each.shape]] for name, each in tensors.items()]
        self.tell("restore", tensors=kinds, scaler=None if scaler is None else {**scaler})
        with self.exchange():
            for each in tensors.values():
                distributed.broadcast(each.detach().cpu().clone(memory_format=torch.contiguous_format), src=0)

    def receive(self, kinds: JsonValue) -> dict[str, torch.Tensor]:
        """A follower takes the tensors that `send` described."""
        found = {}
        assert isinstance(kinds, list)
        for name, kind, shape in kinds:  # type: ignore[misc, str-unpack]
            found[str(name)] = torch.empty(tuple(shape), dtype=getattr(torch, str(kind)))  # type: ignore[arg-type]
            distributed.broadcast(found[str(name)], src=0)
        return found

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Turn what the transport says of a lost or silent process into a `RankError`."""
        try:
            yield
        except RuntimeError as error:
            if self.alone or isinstance(error, RankError) or is_out_of_memory(error):
                raise
            said = str(error).lower()
            if isinstance(error, distributed.DistError) or any(words in said for words in _SAID_BY_TRANSPORT):
                raise RankError(str(error)) from error
            raise


ALONE = Ranks()


@contextmanager
def own_threads() -> Iterator[None]:
    """Keep the number of threads: Fabric takes all cores for every node, and leaves that in the environment for the next."""
    told = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = told or str(torch.get_num_threads())
    try:
        yield
    finally:
        if told is None:
            del os.environ["OMP_NUM_THREADS"]


def shares(batch: int, micro_batch: int, count: int) -> list[Share]:
    """Share a batch, made of pieces of `micro_batch` patches, out to `count` ranks.

    Raises:
        UsageError: PROCESSES, when a rank would have nothing to do.
    """
    starts = range(0, batch, micro_batch)
    if micro_batch >= count:
        sizes = _even(micro_batch, count)
        bounds = list(pairwise(accumulate(sizes, initial=0)))
        coupled = sizes if count > 1 else ()
        return [
            Share(tuple(at + row for at in starts for row in range(*bound)), (size,) * len(starts), coupled)
            for size, bound in zip(sizes, bounds, strict=True)
        ]
    if len(starts) < count:
        raise UsageError(
            f"A step has {len(starts)} passes of {micro_batch} patches, too few for {count} processes; lower --processes, or set"
            " train.batch higher.",
            code="PROCESSES",
        )
    found = []
    for first, end in pairwise(accumulate(_even(len(starts), count), initial=0)):
        found.append(Share(tuple(range(first * micro_batch, end * micro_batch)), (micro_batch,) * (end - first)))
    return found


def _even(number: int, count: int) -> tuple[int, ...]:
    """Divide a number into `count` parts that differ by one at most, larger ones first."""
    return tuple(number // count + (rank < number % count) for rank in range(count))
