"""The residual encoder and light decoder of Myronenko (2018), as MONAI's SegResNetDS."""

from math import floor, log2, prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bedside.core.contract import PositiveMm
from bedside.core.record import Part
from bedside.networks.unet import Features

if TYPE_CHECKING:
    import torch

Blocks = Annotated[int, Field(ge=1, le=12)]


class SegResNet(Part):
    """Residual blocks before each halving, one after each doubling, sums instead of concatenations: MONAI's SegResNetDS.

    Attributes:
        features: channels of the first level; they double with each level.
        blocks: residual blocks of each level of the encoder; their number is that of the levels.
        norm: "instance", or "batch" where a batch holds enough patches.
        spacing_mm: of the patch along (i, j, k), where it is not isotropic: the axes of finer spacing are halved first, with
            kernels within the slice, until the voxels are about cubes; None: every axis alike.
        deep_supervision: levels below the first that have an output of their own in training.
        checkpointing: keep no activations inside the blocks of a level and compute them again in the backward pass.
    """

    kind: ClassVar[str] = "network"
    part_name: ClassVar[Literal["segresnet"]] = "segresnet"

    features: Features = 16
    blocks: Annotated[tuple[Blocks, ...], Field(min_length=2, max_length=7)] = (1, 2, 2, 4)
    norm: Literal["instance", "batch"] = "instance"
    spacing_mm: tuple[PositiveMm, PositiveMm, PositiveMm] | None = None
    deep_supervision: Annotated[int, Field(ge=0, le=5)] = 0
    checkpointing: bool = False

    @model_validator(mode="after")
    def _agree(self) -> Self:
        most = len(self.blocks) - 2
        if self.deep_supervision > most:
            raise ValueError(f"deep_supervision is {self.deep_supervision}; {len(self.blocks)} levels have {most} to give")
        if self.checkpointing and self.norm == "batch":
            raise ValueError("checkpointing would count each batch twice in a batch norm; take norm: instance")
        return self

    @property
    def divisors(self) -> tuple[int, int, int]:
        """The sides of a patch must be multiples of these, axis by axis."""
        halvings = len(self.blocks) - 1
        spacing = self.spacing_mm or (1.0, 1.0, 1.0)
        waits = [floor(log2(max(spacing) / side)) for side in spacing]
        i, j, k = (prod(2 if 2**level >= 2 ** (max(waits) - wait) else 1 for level in range(halvings)) for wait in waits)
        return i, j, k

    @property
    def divisor(self) -> int:
        """A patch whose sides are all multiples of this fits."""
        return max(self.divisors)

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network: (B, in, I, J, K) to (B, out, I, J, K), in training with deep supervision several."""
        from monai.networks.nets.segresnet_ds import SegResNetDS as Net

        from bedside.networks.deep import Recomputed
        from bedside.networks.norm import channel_norms

        net: Any = Net(
            spatial_dims=3,
            init_filters=self.features,
            in_channels=in_channels,
            out_channels=out_channels,
            norm=self.norm,
            blocks_down=self.blocks,
            dsdepth=1 + self.deep_supervision,
            resolution=self.spacing_mm,
        )
        if self.checkpointing:
            for level in (*net.encoder.layers, *net.up_layers):
                level["blocks"] = Recomputed(*level["blocks"])
        built: torch.nn.Module = channel_norms(net)
        return built
