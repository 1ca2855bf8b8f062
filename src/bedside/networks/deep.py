"""What U-shaped networks share in training: heads at lower resolutions, and levels computed twice to save memory.

This module imports torch; parts import it inside `build`.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Output = torch.Tensor | tuple[torch.Tensor, ...]
"""(B, C, I, J, K), or in training with deep supervision several, the full resolution first."""


counted: ContextVar[Callable[..., torch.Tensor] | None] = ContextVar("counted", default=None)
"""Where it is set, calls a block that would be computed again, with its inputs, to see what that needs."""


class Recomputed(nn.Sequential):
    """A sequence that keeps no activations of its inside for the backward pass and computes them again there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the sequence."""
        return recomputed(super().forward, x, when=self.training)


def recomputed(block: Callable[..., torch.Tensor], *inputs: torch.Tensor | None, when: bool) -> torch.Tensor:
    """Call `block`; its activations are computed again in the backward pass if `when`. The gradients are the same bits."""
    if not when or not torch.is_grad_enabled():
        return block(*inputs)
    counting = None if torch.compiler.is_compiling() else counted.get()
    if counting is not None:
        return counting(block, *inputs)
    return cast("torch.Tensor", checkpoint(block, *inputs, use_reentrant=False))


class LevelNet(nn.Module):
    """The levels of MONAI's DynUNet under their own names, walked from here.

    MONAI enlarges the outputs of its deep-supervision heads to the full grid and stacks them; here each stays as large as its
    level, which costs a few per cent of a step instead of as much as the level itself. In evaluation there is one output.

    Args:
        net: MONAI's DynUNet, built without deep supervision.
        heads: one for each level below the first that is supervised, from the finest on.
        checkpointing: compute the activations of each level again in the backward pass.
    """

    def __init__(self, net: nn.Module, heads: nn.ModuleList, *, checkpointing: bool) -> None:
        super().__init__()
        self.output_block: Any = net.output_block
        self.skip_layers: Any = net.skip_layers
        self.checkpointing = checkpointing
        if len(heads):
            self.deep_supervision_heads = heads

    def forward(self, x: torch.Tensor) -> Output:
        """(B, in, I, J, K) to (B, out, I, J, K); in training with heads a tuple, the full resolution first."""
        levels, bottom = self._levels()
        again = self.checkpointing and self.training
        heads = cast("nn.ModuleList | None", getattr(self, "deep_supervision_heads", None)) if self.training else None
        skips = []
        for level in levels:
            x = recomputed(level.downsample, x, when=again)
            skips.append(x)
        x = recomputed(bottom, x, when=again)
        lower: list[torch.Tensor] = []
        for number in reversed(range(len(levels))):
            x = recomputed(levels[number].upsample, x, skips.pop(), when=again)
            if heads is not None and 1 <= number <= len(heads):
                lower.insert(0, heads[number - 1](x))
        whole: torch.Tensor = self.output_block(x)
        return (whole, *lower) if lower else whole

    def _levels(self) -> tuple[list[Any], Any]:
        """MONAI nests the levels in one another: each has `downsample`, `next_layer` and `upsample`, the last is a block."""
        levels, at = [], self.skip_layers
        while hasattr(at, "next_layer"):
            levels.append(at)
            at = at.next_layer
        return levels, at


def loss_of(loss: Loss, output: Output, target: torch.Tensor) -> torch.Tensor:
    """The loss of a network's output, or the weighted mean of the losses of its several outputs.

    A level of half the resolution counts half (1, 1/2, 1/4, ..., divided by their sum, as in nnU-Net, which however drops the
    coarsest), and is compared with every second voxel of the target: a strided convolution is centred on just these.

    Args:
        loss: of one output (B, C, I, J, K) against a target (B, ..., I, J, K), for example `Task.loss`.
        output: of the network in training.
        target: at full resolution.
    """
    if isinstance(output, torch.Tensor):
        return loss(output, target)
    weights = [0.5**level for level in range(len(output))]
    parts = [weight * loss(each, _coarse(target, each)) for weight, each in zip(weights, output, strict=True)]
    return torch.stack(parts).sum() / sum(weights)


def _coarse(target: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Every n-th voxel of the last three axes, so that the target is as large as the output."""
    i, j, k = (fine // coarse for fine, coarse in zip(target.shape[-3:], output.shape[-3:], strict=True))
    return target[..., ::i, ::j, ::k]
