"""The steps of a training: forward, backward, average, and nothing that depends on what ran before."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torch.distributed.tensor import DTensor

from bedside.core.errors import IntegrityError, UsageError
from bedside.core.lesson import PLAIN, Lesson, Moment
from bedside.core.plan import Plan
from bedside.core.task import Task
from bedside.data.loader import Batch, Recipe
from bedside.data.patches import PatchSampler
from bedside.networks.deep import loss_of
from bedside.train.adapt import Layers
from bedside.train.device import CPU
from bedside.train.distributed import ALONE, Ranks, own_threads
from bedside.train.sharding import Sharded, full_tensor, load_full_state, local_shard, shard_like

Precision = str
LEAST_SCALE = 1.0
"""Gradients that are not finite in half precision are no fault as long as a smaller scale may help."""


def learning_rate(step: int, total: int, peak: float, *, warm_up: float = 0.05) -> float:
    """Linear warm-up over the first steps, a share of all, then half a cosine to zero at `total`."""
    warm = max(1, round(total * warm_up))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


@dataclass
class Learner:
    """Network, its average and its optimizer: everything that a step changes.

    Attributes:
        net: the network; ema: the exponential moving average of its weights, the one that is kept.
        precision: "bf16", "fp16" (with a gradient scaler) or "fp32".
        layers: which weights learn when and how fast; None: all, always, alike.
        ranks: the processes that compute together.
        lesson: what the task brings beside its loss; whole: what is trained, the network or what the lesson put around it.
        device: where all of it lives, and where batches are sent.
        bad_steps: how many steps in a row were skipped, because loss or gradient was not finite.
    """

    net: nn.Module
    task: Task
    sampler: PatchSampler
    plan: Plan
    precision: Precision
    layers: Layers | None = None
    ranks: Ranks = ALONE
    lesson: Lesson = PLAIN
    device: torch.device = CPU
    whole: nn.Module = field(init=False)
    ema: nn.Module = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    bad_steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # whoever divides weights or meets the others takes the current one
        self.ranks.begin(self.plan, self.net, precision=self.precision, layers=self.layers)
        layout = torch.contiguous_format if self.ranks.sharded else torch.channels_last_3d  # torch divides no other
        self.net = self.net.to(memory_format=layout)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.whole = self._wrapped()
        for part in (self.net, self.ema, self.whole):
            part.to(self.device)
        self._sharded = None
        if self.ranks.sharded:
            self._sharded = Sharded(self.net, self.ema, device=self.device, count=self.ranks.count)
        decay = self.plan.weight_decay
        self.optimizer = torch.optim.AdamW(
            self.net.parameters() if self.layers is None else self.layers.groups(self.net),
            lr=self.plan.learning_rate,
            weight_decay=decay,
            betas=(0.9, 0.999),
            fused=self.device.type in {"cpu", "cuda"} and self.precision != "fp16",  # it would unscale by itself, after clipping
        )
        if beside := [value for value in self._beside().values() if isinstance(value, nn.Parameter)]:
            self.optimizer.add_param_group({"params": beside})
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        fabric = self._fabric = self._make_fabric()
        with self.ranks.exchange():
            self._net, self._optimizer = fabric.setup(self.whole, self.optimizer, move_to_device=False)
        self._net.train()
        self.ema.eval()

    def _wrapped(self) -> nn.Module:
        """The network as the lesson wants it trained.

        Raises:
            UsageError: PROCESSES, when several processes compute.
        """
        if self.lesson is PLAIN:
            return self.net
        if not self.ranks.alone:
            raise UsageError("This task is learned in one process only; take --processes 1.", code="PROCESSES")
        sample = torch.zeros(1, self.sampler.examples[0].image.shape[0], *self.plan.patch)
        return self.lesson.wrap(self.net, sample)

    def _beside(self) -> dict[str, torch.Tensor]:
        """What is trained beside the network and not kept, by name."""
        own = {id(value) for value in (*self.net.parameters(), *self.net.buffers())}
        every = (*self.whole.named_parameters(), *self.whole.named_buffers())
        return {name: value for name, value in every if id(value) not in own}

    def _make_fabric(self) -> Fabric:
        """Alone, where it runs, as in a job of a cluster, changes nothing; with others each process is a node of its own."""
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        devices = 1 if self.device.index is None else [self.device.index]
        self.scaler = torch.amp.GradScaler(kind) if self.precision == "fp16" else None
        here, strategy, nodes = self.ranks.environment, self.ranks.fabric_strategy, self.ranks.fabric_nodes
        if self.scaler is not None:
            mixed = MixedPrecision("16-mixed", device=kind, scaler=self.scaler)
            fabric = Fabric(accelerator=kind, strategy=strategy, devices=devices, num_nodes=nodes, plugins=[here, mixed])
        else:
            reduced: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if self.precision == "bf16" else "32-true"
            given = {"accelerator": kind, "strategy": strategy, "devices": devices, "num_nodes": nodes}
            fabric = Fabric(**given, precision=reduced, plugins=[here])
        with own_threads():
            fabric.launch()
        return fabric

    def step(self, number: int, total: int, batch: Batch | None = None) -> float:
        """Do step `number` (from 0) of `total` with its batch (None: made here) and return its loss.

        A step whose loss or gradient is not finite changes nothing and is counted in `bad_steps`.
        """
        self.ranks.tell_step(number, total, timed=batch is None)
        images, labels = self.batch(number) if batch is None else self._sent(batch)
        moment = self._moment(number, total, len(images))
        images, labels = self.lesson.show(images, labels, moment)
        images = images.to(memory_format=torch.channels_last_3d)
        buffers = [buffer.clone() for buffer in self.net.buffers()]
        rate = learning_rate(number, total, self.plan.learning_rate, warm_up=self.plan.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        if self.layers is not None:
            self.layers.freeze(self.net, number / total)
        self._optimizer.zero_grad()
        with self.ranks.exchange():
            self.ranks.check_equal(self.net, number)
            try:
                value = self._gradients(images, labels, moment)
            except (MemoryError, RuntimeError):
                self._put_back(buffers)  # the step may be done again, in smaller pieces
                raise
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        with self.ranks.exchange():
            norm = full_tensor(nn.utils.clip_grad_norm_(self.whole.parameters(), self.plan.clip_norm))
        if not (math.isfinite(value) and (bool(torch.isfinite(norm)) or self._may_scale_down())):
            self.bad_steps += 1
            self._undo(buffers)
            return value
        self.bad_steps = 0
        self._optimizer.step()
        self._average(number)
        return value

    def _moment(self, number: int, total: int, count: int) -> Moment:
        names = ("",) * count if self.lesson is PLAIN else self.sampler.cases(number)
        return Moment(number, total, self.plan.seed, names, tuple(range(count)))

    def _gradients(self, images: torch.Tensor, labels: torch.Tensor, moment: Moment | None = None) -> float:
        """Add up the gradients of the batch, a micro-batch at a time, over all ranks, and return the mean loss."""
        ranks, share = self.ranks, self.ranks.share(self.plan)
        value, weight, left = 0.0, self.plan.micro_batch / self.plan.batch, len(share.pieces)
        moment, done = moment or self._moment(0, 1, len(images)), 0
        for some, truth in zip(torch.split(images, [*share.pieces]), torch.split(labels, [*share.pieces]), strict=True):
            left -= 1
            with self._exchanging(last=left == 0):
                output, target = ranks.whole(self._net(some), truth, share)
                loss = loss_of(self.task.loss, output, target)
                added = self.lesson.added(self.whole, moment.of(range(done, done + len(some))))
                loss = (loss if added is None else loss + added) * weight
                self._fabric.backward(loss if ranks.alone else loss * ranks.count)  # Fabric takes the mean over ranks
            done += len(some)
            value += float(loss.detach())
        return ranks.agreed(value, share)

    @contextmanager
    def _exchanging(self, *, last: bool) -> Iterator[None]:
        """Bring gradients together in the last backward pass of a step only."""
        if self._sharded is not None:
            self._sharded.before_pass(last=last)
            yield
            return
        with self._fabric.no_backward_sync(self._net, enabled=not last):
            yield

    def batch(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The augmented batch of a step: images (B, C, I, J, K) channels-last, labels (B, I, J, K)."""
        images, labels = self._sent(self.recipe.make(number))
        return images.to(memory_format=torch.channels_last_3d), labels

    def _sent(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch.images.to(self.device), batch.labels.to(self.device)

    @property
    def recipe(self) -> Recipe:
        """What makes the batches."""
        return Recipe(self.sampler, self.plan.augment, None if self.ranks.alone else self.ranks.share(self.plan).rows)

    def _may_scale_down(self) -> bool:
        """Whether the scaler, which skips the step itself, has room to try a smaller scale."""
        return self.scaler is not None and self.scaler.get_scale() > LEAST_SCALE

    def _undo(self, buffers: list[torch.Tensor]) -> None:
        """Put back what the forward pass of a skipped step changed (running means of a batch norm), and let the scaler know."""
        self._put_back(buffers)
        if self.scaler is not None:
            self.scaler.update()

    @torch.no_grad()
    def _put_back(self, buffers: list[torch.Tensor]) -> None:
        for buffer, before in zip(self.net.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def rehearse(self) -> None:
        """Compute the gradients of a step and forget them, so that what has to be compiled for it is compiled."""
        buffers = [buffer.clone() for buffer in self.net.buffers()]
        images, labels = self.batch(0)
        moment = self._moment(0, 1, len(images))
        images, labels = self.lesson.show(images, labels, moment)
        self._gradients(images.to(memory_format=torch.channels_last_3d), labels, moment)
        self._optimizer.zero_grad()
        self._put_back(buffers)

    @torch.no_grad()
    def _average(self, number: int) -> None:
        """Move the average towards the weights; early on it follows faster, so that it is not held back by the start."""
        keep = min(self.plan.ema, (1 + number) / (10 + number))
        means, values = ([*map(local_shard, net.state_dict().values())] for net in (self.ema, self.net))
        for mean, now in zip(means, values, strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1.0 - keep)
            else:
                mean.copy_(now)

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, all of them in this process."""
        if self._sharded is None:
            return self.ema
        with self.ranks.exchange():
            self.ranks.tell("gather", average=True)
            return self._sharded.averaged()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that the next step depends on, by name, whole."""
        if self._sharded is None:
            return self._parts()
        with self.ranks.exchange():
            self.ranks.tell("gather", average=False)
            return {name: full_tensor(value).cpu() for name, value in self._parts().items()}

    def gather(self, *, average: bool) -> None:
        """A follower's side of `averaged` and `tensors`: its part of each, in the same order."""
        for value in (self.ema.state_dict() if average else self._parts()).values():
            full_tensor(value)

    def _parts(self) -> dict[str, torch.Tensor]:
        found = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        found |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        found |= {f"beside.{name}": value.detach() for name, value in self._beside().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{index}.{name}": value for name, value in state.items()}
        return found

    def scaler_state(self) -> dict[str, float] | None:
        """The state of the gradient scaler, or None without one."""
        return None if self.scaler is None else dict(self.scaler.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor], scaler: Mapping[str, float] | None = None) -> None:
        """Take up the tensors of a checkpoint, and the state of its gradient scaler.

        Raises:
            IntegrityError: they are of another network.
        """
        try:
            for module, prefix in ((self.net, "net."), (self.ema, "ema.")):
                self._load(module, _under(tensors, prefix))
            self._restore_beside(_under(tensors, "beside."))
        except RuntimeError as error:
            raise IntegrityError(
                "The checkpoint belongs to another network; start again with --fresh.", code="CHECKPOINT_CONFIG"
            ) from error
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _under(tensors, "adam.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = _laid_out_as(parameters[int(index)], value)
        whole = self.optimizer.state_dict()
        whole["state"] = state
        self.optimizer.load_state_dict(whole)
        if self.scaler is not None and scaler is not None:
            self.scaler.load_state_dict(dict(scaler))
        kinds = ("net.", "adam.", "beside.", "ema.") if self._sharded is not None else ("net.", "adam.", "beside.")
        self.ranks.send({name: value for name, value in tensors.items() if name.startswith(kinds)}, scaler=self.scaler_state())

    def _load(self, module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
        if self._sharded is None:
            module.load_state_dict(tensors)
        else:
            load_full_state(module, tensors)

    @torch.no_grad()
    def _restore_beside(self, tensors: Mapping[str, torch.Tensor]) -> None:
        own = self._beside()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in tensors.items()}:
            raise RuntimeError("other weights beside the network")
        for name, value in own.items():
            value.copy_(tensors[name])


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _laid_out_as(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Copy `value` in the memory order of its parameter: the fused optimizer walks both as flat memory and checks nothing."""
    if value.shape != parameter.shape:
        return value.clone()
    if isinstance(parameter, DTensor):
        return shard_like(parameter, value)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def step_seconds(learner: Learner, *, warm_up: int = 2, timed: int = 5) -> list[float]:
    """Durations of a few steps of a throw-away learner, after a warm-up."""
    durations = []
    for number in range(warm_up + timed):
        start = time.perf_counter()
        learner.step(number, 10_000)
        durations.append(time.perf_counter() - start)
    return durations[warm_up:]


def fastest_precision(make: Callable[[Precision], Learner], wanted: str) -> tuple[Precision, float]:
    """Resolve "auto" by timing both precisions; return the precision and its median seconds per step.

    The choice goes by the quickest step of each, which other work on the machine disturbs least.
    """
    choices = ("fp32", "bf16") if wanted == "auto" else (wanted,)
    timed = {precision: step_seconds(make(precision)) for precision in choices}
    best = min(timed, key=lambda precision: min(timed[precision]))
    return best, median(timed[best])


def moments(total: int, count: int) -> frozenset[int]:
    """Steps after which the left-out fold is scored: `count` of them, evenly over the last two thirds, the last at the end."""
    first = total / 3
    return frozenset(max(1, round(first + (total - first) * (i + 1) / count)) for i in range(count))
