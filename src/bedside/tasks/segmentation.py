"""Every voxel gets one structure of the contract."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.record import Part
from bedside.tasks.annotation import MAX_PARTIAL, Partial, possible, target_of, target_settings_of

if TYPE_CHECKING:
    import torch

    from bedside.tasks.losses import Terms

FloatArray = NDArray[np.float32]
Objective = Literal["dice_ce", "dice_focal", "tversky"]


class Segmentation(Part):
    """Semantic segmentation: each voxel is one structure.

    Attributes:
        dice_weight: share of the Dice (or Tversky) term in the loss; the rest is cross-entropy (or focal loss).
        objective: "dice_ce"; "dice_focal" counts sure voxels less, with `focal_gamma`; "tversky" weighs what is invented by
            `tversky_alpha` and what is missed by the rest, beside cross-entropy.
        focal_gamma: of "dice_focal".
        tversky_alpha: of "tversky"; below 0.5 it finds more of small structures, and invents more.
        partial: cases in which only some structures were annotated.
    """

    kind: ClassVar[str] = "task"
    part_name: ClassVar[Literal["segmentation"]] = "segmentation"

    dice_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    objective: Objective = "dice_ce"
    focal_gamma: Annotated[float, Field(gt=0, le=5)] = 2.0
    tversky_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.3
    partial: tuple[Partial, ...] = Field(default=(), max_length=MAX_PARTIAL)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Dice leads."""
        return ("dice", "surface_dice", "hd95_mm", "mean_surface_distance_mm", "iou", "volume_error_ml")

    def out_channels(self, contract: Contract) -> int:
        """One channel per structure, background included."""
        return len(contract.structures)

    def target(self, case: Case) -> NDArray[np.generic]:
        """The training ids, (I, J, K), with the codes of `tasks.annotation` where not every structure was annotated."""
        return target_of(case, self.partial)

    def target_settings(self, case: Case) -> dict[str, JsonValue]:
        """The rule of `partial` that holds for the case; nothing of the loss."""
        return target_settings_of(case, self.partial)

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Soft Dice over the whole batch, foreground channels only, plus cross-entropy over all; see `losses.exclusive`.

        Args:
            output: (B, C, I, J, K) raw network output.
            target: (B, I, J, K) as from `target`, integer.
        """
        from bedside.tasks.losses import exclusive

        return exclusive(output, target, self._terms(), possible(output.shape[1], self.partial))

    def _terms(self) -> "Terms":
        from bedside.tasks.losses import Terms

        if self.objective == "tversky":
            return Terms(self.dice_weight, self.tversky_alpha, 1 - self.tversky_alpha)
        return Terms(self.dice_weight, gamma=self.focal_gamma if self.objective == "dice_focal" else 0.0)

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
