"""U-Nets of MONAI, with the settings that matter as fields."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from bedside.core.record import Part

if TYPE_CHECKING:
    import torch

Levels = Annotated[int, Field(ge=2, le=7)]
Features = Annotated[int, Field(ge=1, le=512)]
MAX_FEATURES = 320


class DynUNet(Part):
    """The plain U-Net of nnU-Net (Isensee et al. 2021) as MONAI's DynUNet: 3 x 3 x 3 kernels, instance norm, leaky ReLU.

    Attributes:
        features: channels of the first level; they double with each level up to 320.
        levels: resolutions, so the patch must divide by 2 to the power of levels - 1.
        residual: residual blocks instead of plain ones.
        norm: "instance", or "batch" where a batch holds enough patches.
    """

    kind: ClassVar[str] = "network"
    part_name: ClassVar[Literal["dynunet"]] = "dynunet"

    features: Features = 16
    levels: Annotated[int, Field(ge=3, le=7)] = 4
    residual: bool = False
    norm: Literal["instance", "batch"] = "instance"

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this."""
        return int(2 ** (self.levels - 1))

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network: (B, in, I, J, K) to (B, out, I, J, K)."""
        from monai.networks.nets.dynunet import DynUNet as Net

        strides = [1] + [2] * (self.levels - 1)
        net: torch.nn.Module = Net(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * self.levels,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=[min(MAX_FEATURES, self.features * 2**level) for level in range(self.levels)],
            norm_name=("INSTANCE", {"affine": True}) if self.norm == "instance" else "BATCH",
            res_block=self.residual,
        )
        _forget_second_names(net)
        return _group_norms(net)


def _forget_second_names(net: "torch.nn.Module") -> None:
    """MONAI registers each block under two names and runs only `skip_layers`; keep one name for each weight.

    With two, an average over the state would move every weight twice, and safetensors refuses to store shared tensors.
    """
    for name in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(net, name)


def _group_norms(net: "torch.nn.Module") -> "torch.nn.Module":
    """Write each instance norm as a group norm with one group per channel: the same function and the same weights.

    torch computes a group norm in channels-last memory as it lies, and copies for an instance norm.
    """
    from torch import nn

    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm3d):
                setattr(module, name, nn.GroupNorm(child.num_features, child.num_features, eps=child.eps))
    return net


class UNet(Part):
    """MONAI's UNet: strided convolutions, batch norm, leaky ReLU; small, quick, and quick in ONNX Runtime too.

    Attributes:
        features: channels of the first level; they double with each level up to 320.
        levels: resolutions, so the patch must divide by 2 to the power of levels - 1.
        residual_units: convolutions per residual unit; 0 makes plain blocks.
    """

    kind: ClassVar[str] = "network"
    part_name: ClassVar[Literal["unet"]] = "unet"

    features: Features = 16
    levels: Levels = 4
    residual_units: Annotated[int, Field(ge=0, le=4)] = 2

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this."""
        return int(2 ** (self.levels - 1))

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network: (B, in, I, J, K) to (B, out, I, J, K)."""
        from monai.networks.nets.unet import UNet as Net

        net: torch.nn.Module = Net(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=[min(MAX_FEATURES, self.features * 2**level) for level in range(self.levels)],
            strides=[2] * (self.levels - 1),
            num_res_units=self.residual_units,
            # the last level is as narrow as the output: a plain ReLU there can switch a structure off for good
            act=("LEAKYRELU", {"negative_slope": 0.1, "inplace": True}),
            norm="BATCH",
        )
        return net
