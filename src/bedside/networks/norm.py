"""Instance norm as fast as the processor allows. This module imports torch; parts import it inside `build`."""

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable


class ChannelNorm(nn.GroupNorm):
    """An instance norm: the group norm with one group per channel, under the same names.

    torch computes a group norm in channels-last memory as it lies, and copies for an instance norm. Its backward pass is slow
    there, in bfloat16 slower than the convolutions beside it, and that of a batch norm is not: so on a processor the gradient is
    that of a batch norm of each sample by itself, which is the same formula.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of each sample of (B, C, I, J, K)."""
        slow = input.requires_grad and input.device.type == "cpu" and self.affine
        if not slow or torch.compiler.is_compiling():
            return super().forward(input)
        normed: torch.Tensor = _Norm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normed


class _Norm(torch.autograd.Function):
    """The forward pass of a group norm, the backward pass of a batch norm."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        batch, channels = x.shape[:2]
        normed, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, x[0, 0].numel(), channels, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.eps = eps  # type: ignore[attr-defined]  # a context takes what it is given
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = torch.empty_like(x).copy_(grad) if grad.stride() != x.stride() else grad
        eps: float = ctx.eps  # type: ignore[attr-defined]
        found, weights, biases = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        for one in range(len(x)):
            some = slice(one, one + 1)
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                grad[some], x[some], weight, None, None, mean[one], rstd[one], True, eps, [True, True, True]
            )
            found[some] = of_x
            weights += of_weight
            biases += of_bias
        return found, weights, biases, None


def channel_norms(net: nn.Module) -> nn.Module:
    """Write each instance norm of a network as a `ChannelNorm`: the same function and the same weights."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm3d):
                same = ChannelNorm(child.num_features, child.num_features, eps=child.eps, affine=child.affine)
                setattr(module, name, same)
    return net
