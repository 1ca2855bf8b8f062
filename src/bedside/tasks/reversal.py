"""A head that tells domains apart, behind a gradient that is turned round. This module imports torch; tasks import it inside."""

import math
from typing import cast

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable


def strength(progress: float, steepness: float) -> float:
    """2 / (1 + exp(-steepness * progress)) - 1: 0 at the start, towards 1 at the end (Ganin et al. 2016, section 5.2.2)."""
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale  # type: ignore[attr-defined]  # a context takes what it is given
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        scale: float = ctx.scale  # type: ignore[attr-defined]
        return -scale * grad, None


def reversed_gradient(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Return `x`; on the way back its gradient is multiplied by -scale."""
    return cast("torch.Tensor", _Reversed.apply(x, scale))  # type: ignore[no-untyped-call]


class DomainNet(nn.Module):
    """A network with a head that tells domains from its deepest feature maps, averaged over the voxels.

    The head is an own small network: two layers on (B, F) features. What it sees is caught on the way, so that the network's
    output, names and weights stay what they are without it.

    Args:
        net: any network for (B, C, I, J, K).
        sample: (1, C, I, J, K), on which the deepest module is looked for.
        domains: how many.
        hidden: width of the head.
    """

    def __init__(self, net: nn.Module, sample: torch.Tensor, *, domains: int, hidden: int) -> None:
        super().__init__()
        self.net = net
        module, features = deepest(net, sample)
        self.head = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, domains))
        self._caught: torch.Tensor | None = None
        module.register_forward_hook(self._catch)

    def _catch(self, module: nn.Module, given: object, output: torch.Tensor) -> None:
        del module, given
        if self.training and torch.is_grad_enabled() and self._caught is None:
            self._caught = output.float().mean((2, 3, 4))

    def forward(self, images: torch.Tensor) -> object:
        """What the network gives."""
        self._caught = None
        return self.net(images)

    def said(self, scale: float) -> torch.Tensor:
        """Raw output (B, domains) for the images that were computed last, and forget them.

        Args:
            scale: of the gradient that reaches the network, turned round.
        """
        assert self._caught is not None, "no images were computed in training mode"
        pooled, self._caught = self._caught, None
        return cast("torch.Tensor", self.head(reversed_gradient(pooled, scale)))


def deepest(net: nn.Module, sample: torch.Tensor) -> tuple[nn.Module, int]:
    """Return the module inside a network that finishes last among those of the fewest voxels, and its channels."""
    found: list[tuple[int, nn.Module, int]] = []

    def look(module: nn.Module, given: object, output: object) -> None:
        del given
        if isinstance(output, torch.Tensor) and output.ndim == sample.ndim:
            found.append((math.prod(output.shape[2:]), module, int(output.shape[1])))

    hooks = [module.register_forward_hook(look) for module in net.modules() if module is not net]
    before = net.training
    try:
        with torch.no_grad():
            net.eval()(sample)
    finally:
        net.train(before)
        for hook in hooks:
            hook.remove()
    fewest = min(voxels for voxels, _, _ in found)
    _, module, features = next(each for each in reversed(found) if each[0] == fewest)
    return module, features
