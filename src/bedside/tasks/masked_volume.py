"""An image is filled in again where cubes of it were hidden: what a network learns of images that nobody has annotated."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.errors import UsageError
from bedside.core.lesson import Classroom, Lesson, Moment
from bedside.core.record import Part

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]


class MaskedVolume(Part):
    """Self-supervised pre-training (masked images: He et al. 2022; in volumes: Chen et al. 2023) on cases without masks.

    Random cubes of each patch are set to 0, which is the mean of a z-scored image, and the network learns to say what was there.
    Its weights but the last layer are what a training with labels begins with (`train.from`). It finds no structures, so its
    model is neither evaluated nor promoted.

    Attributes:
        channels: of the images.
        ratio: share of the cubes that is hidden.
        cube: side of a cube in voxels; along an axis with fewer voxels it reaches across.
        norm: "l1" is the mean absolute error of the hidden voxels, "l2" the mean squared one.
    """

    kind: ClassVar[str] = "task"
    part_name: ClassVar[Literal["masked_volume"]] = "masked_volume"
    needs_labels: ClassVar[bool] = False

    channels: Annotated[int, Field(ge=1, le=64)] = 1
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    cube: Annotated[int, Field(ge=1, le=128)] = 8
    norm: Literal["l1", "l2"] = "l1"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the training itself goes by."""
        return ("masked_error",)

    def out_channels(self, contract: Contract) -> int:
        """As many as the image has."""
        del contract
        return self.channels

    def target_channels(self, out_channels: int) -> int:
        """The image, and what of it is hidden."""
        del out_channels
        return self.channels + 1

    def target(self, case: Case) -> NDArray[np.generic]:
        """1 where the image is above its mean, (I, J, K): not what is learned, but where a patch holds something to learn."""
        image = np.asarray(case.image.array[0])
        return np.asarray(image > image.mean(dtype=np.float64), dtype=np.uint8)

    def target_settings(self, case: Case) -> dict[str, JsonValue]:
        """No setting changes it."""
        del case
        return {"target": "above the mean"}

    def lesson(self, classroom: Classroom) -> Lesson:
        """Hide cubes.

        Raises:
            UsageError: CHANNELS: the images have another number of channels.
        """
        found = sorted({record.volumes["image"].shape[0] for record in classroom.records})
        if found and found != [self.channels]:
            raise UsageError(
                f"The images have {', '.join(map(str, found))} channels and task.channels is {self.channels}; set it to theirs.",
                code="CHANNELS",
            )
        return _Hidden(self)

    def hidden(self, shape: tuple[int, int, int], chance: np.random.Generator) -> NDArray[np.bool_]:
        """Draw the hidden voxels of one patch, (I, J, K): a share of the cubes of a grid that begins anywhere."""
        sides = [min(self.cube, size) for size in shape]
        counts = [-(-size // side) + 1 for size, side in zip(shape, sides, strict=True)]
        number = int(np.prod(counts))
        chosen = np.zeros(number, dtype=bool)
        chosen[chance.permutation(number)[: max(1, round(self.ratio * number))]] = True
        grid = chosen.reshape(counts)
        for axis, side in enumerate(sides):
            grid = np.repeat(grid, side, axis=axis)
        starts = [int(chance.integers(side)) for side in sides]
        cut = grid[tuple(slice(at, at + size) for at, size in zip(starts, shape, strict=True))]
        return np.ascontiguousarray(cut)

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Mean error of the hidden voxels.

        Args:
            output: (B, C, I, J, K) raw network output.
            target: (B, C + 1, I, J, K): the image, and 1 where it was hidden.
        """
        hidden = target[:, -1:]
        error = output.float() - target[:, :-1]
        error = error.abs() if self.norm == "l1" else error.square()
        return (error * hidden).sum() / (hidden.sum() * self.channels).clamp_min(1.0)

    def activate(self, output: FloatArray) -> FloatArray:
        """The values as they are."""
        return output

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """The first channel, (I, J, K) float32, in units of the normalised image; nothing is said of its uncertainty."""
        return output[0].copy(), np.zeros(output.shape[1:], dtype=np.float32)


class _Hidden(Lesson):
    """Shows patches with hidden cubes; the target is the patch, and what is hidden of it."""

    def __init__(self, task: MaskedVolume) -> None:
        self.task = task

    def show(self, images: "torch.Tensor", labels: "torch.Tensor", moment: Moment) -> "tuple[torch.Tensor, torch.Tensor]":
        """Hide cubes of each patch, others for each."""
        import torch

        del labels
        i, j, k = images.shape[2:]
        drawn = np.stack([self.task.hidden((i, j, k), moment.chance(index)) for index in range(len(images))])
        hidden = torch.from_numpy(drawn)[:, None].to(images.device)
        return images.masked_fill(hidden, 0.0), torch.cat([images, hidden.to(images.dtype)], dim=1)
