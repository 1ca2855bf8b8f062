"""Every voxel gets one structure of the contract."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.record import Part

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]


class Segmentation(Part):
    """Semantic segmentation with Dice plus cross-entropy.

    Attributes:
        dice_weight: share of the Dice term in the loss; the rest is cross-entropy.
    """

    kind: ClassVar[str] = "task"
    part_name: ClassVar[Literal["segmentation"]] = "segmentation"

    dice_weight: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def metrics(self) -> tuple[str, ...]:
        """Dice leads."""
        return ("dice", "surface_dice", "hd95_mm", "mean_surface_distance_mm", "iou", "volume_error_ml")

    def out_channels(self, contract: Contract) -> int:
        """One channel per structure, background included."""
        return len(contract.structures)

    def target(self, case: Case) -> NDArray[np.generic]:
        """The training ids, (I, J, K)."""
        return np.asarray(case.volumes["label"].array[0])

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Soft Dice over the whole batch, foreground channels only, plus cross-entropy over all.

        Taking the Dice over the batch ("batch Dice", Isensee et al. 2021) keeps it smooth where a patch lacks a structure.

        Args:
            output: (B, C, I, J, K) raw network output.
            target: (B, I, J, K) training ids, integer.
        """
        import torch
        from torch.nn import functional

        output = output.float()
        entropy = functional.cross_entropy(output, target.long())
        probability = output.softmax(1)[:, 1:]
        truth = torch.stack([target == index for index in range(1, output.shape[1])], dim=1)
        overlap = (probability * truth).sum((0, 2, 3, 4))
        total = probability.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
        dice = 1.0 - ((2.0 * overlap + 1e-5) / (total + 1e-5)).mean()
        return self.dice_weight * dice + (1.0 - self.dice_weight) * entropy

    def activate(self, output: FloatArray) -> FloatArray:
        """Softmax over the first axis of (C, I, J, K), in place."""
        output -= output.max(axis=0)
        np.exp(output, out=output)
        output /= output.sum(axis=0)
        return output

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """Most probable structure, (I, J, K) uint8 (uint16 above 256), the first of equals; and 1 minus its probability."""
        highest = output[0].copy()
        best = np.zeros(highest.shape, dtype=np.uint8 if len(output) <= 256 else np.uint16)
        for number, probability in enumerate(output[1:], start=1):
            np.copyto(best, best.dtype.type(number), where=probability > highest)
            np.maximum(highest, probability, out=highest)
        np.subtract(np.float32(1.0), highest, out=highest)
        return best, np.clip(highest, 0.0, 1.0, out=highest)
