"""What a training step will need, known before it runs: its memory and its arithmetic."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from bedside.core.lesson import target_channels
from bedside.core.plan import Patch
from bedside.core.record import Part
from bedside.core.task import Network, Task
from bedside.networks.deep import counted, loss_of

MEGABYTE = 1e6
PROCESS_MB = 640.0
"""Resident memory of a training process without the tensors of its steps: interpreter, torch, kernels and their scratch memory
(measured on Linux x86-64 with the processor build of torch; `benchmarks/plan_memory.py` compares predictions with runs)."""
DEVICE_MB = 1200.0
"""What an accelerator holds beside tensors: its context, and room in which kernels of convolutions work. An estimate: never
measured, and where it is too small the training goes on in smaller pieces."""
COPIES_ON_DEVICE = 7
"""Weights, gradients, two moments of the optimizer, the average, the best so far, and one more while they are updated."""
COPIES_OF_WEIGHTS = 11
"""Weights, gradients, two moments of the optimizer, the average, the best so far; all but the gradients again in a checkpoint."""
PASSES = 3
"""A backward pass costs two forward passes: gradients of the input and of the weights."""
LEAST_SIDE = 8
REDUCED = 0.55
"""Share of the saved memory that is left in bfloat16: most activations halve, the loss does not (counted: 0.53 to 0.63)."""
TRANSIENT = 3.1
"""How many tensors of the largest activation live beside the saved ones when the backward pass begins, or lie free among them."""
COLUMNS = 2.3
"""How often a convolution's input is held as columns, one per voxel of its kernel, where torch computes it so."""
_MOST_FOR_COLUMNS = 20480
"""Of C x I x J: torch's rule for one patch in float32 (`use_mkldnn` of aten/src/ATen/native/Convolution.cpp)."""


@dataclass(frozen=True)
class Footprint:
    """One forward and backward pass.

    Attributes:
        parameters: of the network; saved_mb: kept between the passes, with what is computed again of the largest level where
            activations are; largest_mb: of one activation; columns_mb: of the inputs of convolutions that are held as columns.
        gigaflops: of both passes together, a multiplication and an addition counted as two.
    """

    parameters: int
    saved_mb: float
    largest_mb: float
    gigaflops: float
    columns_mb: float = 0.0

    @property
    def peak_mb(self) -> float:
        """Resident memory at the peak of a training on the processor."""
        weights = 4 * COPIES_OF_WEIGHTS * self.parameters / MEGABYTE
        return PROCESS_MB + weights + self.saved_mb + TRANSIENT * self.largest_mb + COLUMNS * self.columns_mb

    @property
    def device_peak_mb(self) -> float:
        """Memory of an accelerator at the peak of a training there; what convolutions hold as columns is the processor's way."""
        return DEVICE_MB + 4 * COPIES_ON_DEVICE * self.parameters / MEGABYTE + self.saved_mb + TRANSIENT * self.largest_mb


def footprint(
    network: Part, task: Part, *, channels: tuple[int, int], patch: Patch, micro_batch: int, reduced: bool = False
) -> Footprint:
    """Say what one training step of a network needs, from a forward pass on a patch a few voxels wide.

    Everything that is kept between the passes grows with the number of voxels, so a small patch tells of a large one.

    Args:
        network: what is trained.
        task: gives the loss.
        channels: of input and output.
        patch: (I, J, K) voxels.
        micro_batch: patches that pass at once.
        reduced: in bfloat16 where autocast allows it.

    Raises:
        RuntimeError: the network does not take such patches.
    """
    asked = cast("Task", task)
    small = _small(network, patch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = cast("Network", network).build(*channels).train()
        flops = _Flops(net)
        again = _Again(net, kept := _Kept(), flops)
        token = counted.set(again)
        try:
            with torch.autograd.graph.saved_tensors_hooks(*kept.hooks):
                loss_of(asked.loss, net(torch.zeros(1, channels[0], *small)), _no_target(task, channels[1], small))
        finally:
            counted.reset(token)
    sizes = kept.sizes(net)
    inside = max(again.insides, key=sum, default=[])
    scale = micro_batch * math.prod(patch) / math.prod(small) * (REDUCED if reduced else 1.0) / MEGABYTE
    parameters = sum(parameter.numel() for parameter in net.parameters())
    work = (PASSES * flops.counted + again.flops) * micro_batch * math.prod(patch) / math.prod(small)
    columns = 0.0 if reduced or micro_batch > 1 else _columns_mb(flops.columns, patch, small)
    largest = max((*sizes, *(size for sizes in again.insides for size in sizes)), default=0)
    return Footprint(parameters, scale * (sum(sizes) + sum(inside)), scale * largest, work / 1e9, columns)


def _columns_mb(columns: Sequence[tuple[int, int]], patch: Patch, small: Patch) -> float:
    """What convolutions of a single patch hold as columns, of pairs that were counted on the small patch."""
    i, j, k = (side / least for side, least in zip(patch, small, strict=True))
    return sum(4 * numbers * i * j * k for face, numbers in columns if face * i * j <= _MOST_FOR_COLUMNS) / MEGABYTE


def _no_target(task: Part, out_channels: int, patch: Patch) -> torch.Tensor:
    """A target of the right shape in which there is nothing."""
    count = target_channels(task, out_channels)
    return torch.zeros(1, *patch, dtype=torch.uint8) if count is None else torch.zeros(1, count, *patch)


def _small(network: Part, patch: Patch) -> Patch:
    """A patch of two voxels at the network's lowest level, where the patch has as many."""
    steps = getattr(network, "divisors", (1, 1, 1))
    i, j, k = (min(side, max(2 * step, LEAST_SIDE)) if side > 1 else 1 for side, step in zip(patch, steps, strict=True))
    return i, j, k


def _nothing_kept(_: None) -> torch.Tensor:
    raise AssertionError("a forward pass that was only counted has no backward pass")


class _Kept:
    """Collects what autograd keeps between the passes, each piece of memory once.

    Autograd is given nothing to keep, as no backward pass follows: given the tensor itself, an output that is saved would hold
    the graph that holds it, and none of it would ever be freed.
    """

    def __init__(self) -> None:
        self.tensors: dict[int, torch.Tensor] = {}

    @property
    def hooks(self) -> tuple[Callable[[torch.Tensor], None], Callable[[None], torch.Tensor]]:
        return self._keep, _nothing_kept

    def _keep(self, tensor: torch.Tensor) -> None:
        self.tensors[tensor.untyped_storage().data_ptr()] = tensor.detach()

    def sizes(self, net: nn.Module) -> list[int]:
        """Bytes of each piece that is no weight."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
        return [tensor.untyped_storage().nbytes() for at, tensor in self.tensors.items() if at not in weights]


class _Again:
    """Sees what blocks need that are computed again in the backward pass: beside their inputs nothing of them is kept."""

    def __init__(self, net: nn.Module, kept: _Kept, flops: "_Flops") -> None:
        self._net, self._kept, self._flops = net, kept, flops
        self.insides: list[list[int]] = []
        self.flops = 0.0

    def __call__(self, block: Callable[..., torch.Tensor], *inputs: torch.Tensor | None) -> torch.Tensor:
        before = self._flops.counted
        for each in inputs:
            if each is not None:
                self._kept.hooks[0](each)
        with torch.autograd.graph.saved_tensors_hooks(*(inside := _Kept()).hooks):
            output = block(*inputs)
        held = self._kept.tensors.keys()
        inside.tensors = {at: each for at, each in inside.tensors.items() if at not in held}
        self.insides.append(inside.sizes(self._net))
        self.flops += self._flops.counted - before
        return output


class _Flops:
    """Counts multiplications and additions of convolutions and linear layers in a forward pass."""

    def __init__(self, net: nn.Module) -> None:
        self.counted = 0.0
        self.columns: list[tuple[int, int]] = []
        """Of plain convolutions with more than one voxel: C x I x J of the input, and how many numbers its columns are."""
        for module in net.modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):  # noqa: SLF001 - the common type has no public name
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = cast("torch.Tensor", module.weight).numel()
        if isinstance(module, nn.Linear):
            self.counted += 2.0 * weights * output.numel() / module.out_features
            return
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)  # noqa: SLF001 - the common type has no public name
        kernel = math.prod(cast("tuple[int, ...]", module.kernel_size))
        if kernel > 1 and not transposed and given[0].ndim == 5:
            _, channels, i, j, _ = given[0].shape
            self.columns.append((channels * i * j, kernel * channels * math.prod(output.shape[2:])))
        reached = given[0] if transposed else output
        self.counted += 2.0 * weights * reached.numel() / reached.shape[1]
