"""A transformer for volumes: attention within shifted windows, and a convolutional decoder."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from bedside.core.record import Part

if TYPE_CHECKING:
    import torch

Depth = Annotated[int, Field(ge=2, le=18, multiple_of=2)]


class SwinUNETR(Part):
    """MONAI's SwinUNETR (Hatamizadeh et al. 2022). It wants more data and more time than a U-Net of the same accuracy.

    Attributes:
        features: channels of the first level, a multiple of 12.
        depths: attention layers of each of the four stages.
        window: side of an attention window in tokens of two voxels.
        checkpointing: keep no activations inside an attention layer and compute them again in the backward pass.
    """

    kind: ClassVar[str] = "network"
    part_name: ClassVar[Literal["swin_unetr"]] = "swin_unetr"

    features: Annotated[int, Field(ge=12, le=192, multiple_of=12)] = 24
    depths: tuple[Annotated[int, Field(ge=2, le=18, multiple_of=2)], ...] = Field(
        default=(2, 2, 2, 2), min_length=4, max_length=4
    )
    window: Annotated[int, Field(ge=2, le=12)] = 7
    checkpointing: bool = False

    @property
    def divisors(self) -> tuple[int, int, int]:
        """The sides of a patch must be multiples of these: tokens of two voxels, merged four times."""
        return 32, 32, 32

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this."""
        return 32

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network: (B, in, I, J, K) to (B, out, I, J, K)."""
        from monai.networks.nets.swin_unetr import SwinUNETR as Net

        from bedside.networks.norm import channel_norms
        from bedside.networks.swin_blocks import recompute_attention

        net = Net(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=self.features,
            depths=self.depths,
            window_size=self.window,
            norm_name=("INSTANCE", {"affine": True}),
        )
        return channel_norms(recompute_attention(net) if self.checkpointing else net)
