"""Attention layers whose activations are computed again in the backward pass.

This module imports MONAI; parts import it inside `build`.
"""

from typing import cast

import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn

from bedside.networks.deep import recomputed


class RecomputedBlock(SwinTransformerBlock):  # type: ignore[misc]  # MONAI has no types
    """MONAI's block with `recomputed` in the place of its own checkpointing, so that what it needs can be counted."""

    def forward_part1(self, x: torch.Tensor, mask_matrix: torch.Tensor | None) -> torch.Tensor:
        """Attention within windows of (B, I, J, K, C)."""
        return recomputed(super().forward_part1, x, mask_matrix, when=self.training)

    def forward_part2(self, x: torch.Tensor) -> torch.Tensor:
        """The layers behind it."""
        return recomputed(super().forward_part2, x, when=self.training)


def recompute_attention(net: nn.Module) -> nn.Module:
    """Let every attention layer of a network compute its inside again."""
    for block in net.modules():
        if isinstance(block, SwinTransformerBlock):
            cast("nn.Module", block).__class__ = RecomputedBlock
    return net
