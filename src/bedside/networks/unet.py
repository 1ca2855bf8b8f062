"""U-Nets of MONAI, with the settings that matter as fields."""

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bedside.core.record import Part

if TYPE_CHECKING:
    import torch
    from monai.networks.nets.dynunet import DynUNet as DynUNetOfMonai

Levels = Annotated[int, Field(ge=2, le=7)]
Features = Annotated[int, Field(ge=1, le=512)]
Stride = Annotated[int, Field(ge=1, le=4)]
Kernel = Literal[1, 3, 5, 7]
Strides = tuple[tuple[Stride, Stride, Stride], ...]
Kernels = tuple[tuple[Kernel, Kernel, Kernel], ...]
MAX_FEATURES = 320

_FLAT: tuple[tuple[Kernel, Kernel, Kernel], tuple[Stride, Stride, Stride]] = (3, 3, 1), (2, 2, 1)
_SOLID: tuple[tuple[Kernel, Kernel, Kernel], tuple[Stride, Stride, Stride]] = (3, 3, 3), (2, 2, 2)


class DynUNet(Part):
    """The U-Net of nnU-Net (Isensee et al. 2021) as MONAI's DynUNet: instance norm, leaky ReLU, two convolutions a level.

    A 2-D network is a 3-D one that never looks across the third axis: kernels of (3, 3, 1) and strides of (2, 2, 1), on patches
    of (I, J, 1). So windows, augmentation and export are those of every other network. "2.5d" looks within the slice on the
    upper half of its levels and in three dimensions below, for slices that are some times thicker than a pixel.

    Attributes:
        features: channels of the first level; they double with each level up to 320.
        levels: resolutions.
        dimensions: "3d", "2d" or "2.5d": kernels and strides in short, for slices across the third axis.
        kernels: of each level along (i, j, k); None: as `dimensions` says.
        strides: on entering each level along (i, j, k), (1, 1, 1) for the first; None: as `dimensions` says.
        residual: residual blocks instead of plain ones in the encoder.
        blocks: residual blocks of each level of the encoder, as (1, 3, 4, 6) of nnU-Net's residual presets (Isensee et al.
            2024), whose decoder has one convolution a level where ours has two; None: one each.
        norm: "instance", or "batch" where a batch holds enough patches.
        deep_supervision: levels below the first that have an output of their own in training. The network that is evaluated,
            exported and used has one output; its heads lie unused beside the other weights.
        checkpointing: keep no activations inside a level and compute them again in the backward pass: the same gradients for
            less memory and about a third more time.
    """

    kind: ClassVar[str] = "network"
    part_name: ClassVar[Literal["dynunet"]] = "dynunet"

    features: Features = 16
    levels: Annotated[int, Field(ge=3, le=7)] = 4
    dimensions: Literal["3d", "2d", "2.5d"] = "3d"
    kernels: Kernels | None = None
    strides: Strides | None = None
    residual: bool = False
    blocks: tuple[Annotated[int, Field(ge=1, le=12)], ...] | None = None
    norm: Literal["instance", "batch"] = "instance"
    deep_supervision: Annotated[int, Field(ge=0, le=5)] = 0
    checkpointing: bool = False

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in ("kernels", "strides", "blocks"):
            given = getattr(self, name)
            if given is not None and len(given) != self.levels:
                raise ValueError(f"{name} has {len(given)} entries and levels is {self.levels}; give one for each level")
        if self.dimensions != "3d" and (self.kernels or self.strides):
            raise ValueError("give either dimensions or kernels and strides: the first is short for the others")
        if self.strides is not None and self.strides[0] != (1, 1, 1):
            raise ValueError("the first of strides must be (1, 1, 1): the output has the grid of the input")
        for kernel, stride in zip(self.kernels_used, self.strides_used, strict=True):
            if any(step > size + 1 for size, step in zip(kernel, stride, strict=True)):
                raise ValueError(f"a stride of {stride} steps over voxels with a kernel of {kernel}")
        if self.blocks is not None and not self.residual:
            raise ValueError("blocks counts residual blocks; set residual to true")
        if self.deep_supervision > self.levels - 2:
            raise ValueError(f"deep_supervision is {self.deep_supervision}; {self.levels} levels have {self.levels - 2} to give")
        if self.checkpointing and self.norm == "batch":
            raise ValueError("checkpointing would count each batch twice in a batch norm; take norm: instance")
        return self

    @property
    def kernels_used(self) -> tuple[tuple[int, int, int], ...]:
        """Kernel of each level."""
        return self.kernels or tuple(kernel for kernel, _ in self._shorthand())

    @property
    def strides_used(self) -> tuple[tuple[int, int, int], ...]:
        """Stride on entering each level."""
        return self.strides or ((1, 1, 1), *(stride for _, stride in self._shorthand()[1:]))

    def _shorthand(self) -> list[tuple[tuple[Kernel, Kernel, Kernel], tuple[Stride, Stride, Stride]]]:
        flat = {"3d": 0, "2.5d": self.levels // 2, "2d": self.levels}[self.dimensions]
        return [_FLAT] * flat + [_SOLID] * (self.levels - flat)

    @property
    def divisors(self) -> tuple[int, int, int]:
        """The sides of a patch must be multiples of these, axis by axis."""
        i, j, k = (prod(steps) for steps in zip(*self.strides_used, strict=True))
        return i, j, k

    @property
    def divisor(self) -> int:
        """A patch whose sides are all multiples of this fits."""
        return max(self.divisors)

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network: (B, in, I, J, K) to (B, out, I, J, K); see `networks.deep.LevelNet` for deep supervision."""
        from monai.networks.nets.dynunet import DynUNet as Net
        from torch import nn

        from bedside.networks.deep import LevelNet
        from bedside.networks.norm import channel_norms

        widths = [min(MAX_FEATURES, self.features * 2**level) for level in range(self.levels)]
        net = Net(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=self.kernels_used,
            strides=self.strides_used,
            upsample_kernel_size=self.strides_used[1:],
            filters=widths,
            norm_name=("INSTANCE", {"affine": True}) if self.norm == "instance" else "BATCH",
            res_block=self.residual,
        )
        if self.blocks is not None:
            self._deepen(net, widths)
        heads = nn.ModuleList(net.get_output_block(number) for number in range(1, self.deep_supervision + 1))
        heads.apply(net.initialize_weights)
        return channel_norms(LevelNet(net, heads, checkpointing=self.checkpointing))

    def _deepen(self, net: "DynUNetOfMonai", widths: list[int]) -> None:
        """Put the further residual blocks of a level behind its first."""
        from monai.networks.blocks.dynunet_block import UnetResBlock
        from torch import nn

        level: Any = net.skip_layers
        above: Any = net
        for count, kernel, width in zip(self.blocks or (), self.kernels_used, widths, strict=True):
            more = [UnetResBlock(3, width, width, kernel, 1, net.norm_name, net.act_name) for _ in range(count - 1)]
            for block in more:
                block.apply(net.initialize_weights)
            bottom = not hasattr(level, "next_layer")
            first = level if bottom else level.downsample
            deeper = nn.Sequential(first, *more) if more else first
            if bottom:
                above.next_layer = deeper
            else:
                level.downsample = deeper
                level, above = level.next_layer, level


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

    @property
    def divisors(self) -> tuple[int, int, int]:
        """The sides of a patch must be multiples of these, axis by axis."""
        return self.divisor, self.divisor, self.divisor

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
