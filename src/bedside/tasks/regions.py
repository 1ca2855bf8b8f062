"""Every voxel gets one structure, by way of regions that contain one another."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, model_validator

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.errors import UsageError
from bedside.core.record import Part, Record
from bedside.tasks.annotation import MAX_PARTIAL, Partial, Structure, possible, target_of, target_settings_of

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]


class Region(Record):
    """A union of structures, as training ids."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    structures: tuple[Structure, ...] = Field(min_length=1)


class RegionSegmentation(Part):
    """Segmentation that learns unions of structures, as the whole tumour, its core and what enhances (Isensee et al. 2021).

    The network has one sigmoid output per region and learns each by soft Dice plus binary cross-entropy. The answer is still one
    structure per voxel: regions are written in their order, each as the one of its structures that no later region has, over
    what earlier ones wrote.

    Attributes:
        regions: outer ones first.
        dice_weight: share of the Dice term in the loss.
        partial: cases in which only some structures were annotated.
    """

    kind: ClassVar[str] = "task"
    part_name: ClassVar[Literal["region_segmentation"]] = "region_segmentation"

    regions: tuple[Region, ...] = Field(min_length=1, max_length=64)
    dice_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    partial: tuple[Partial, ...] = Field(default=(), max_length=MAX_PARTIAL)

    @model_validator(mode="after")
    def _each_writes_one(self) -> Self:
        for region, own in zip(self.regions, self._own(), strict=True):
            if len(own) != 1:
                raise ValueError(
                    f"the region {region.name} has {len(own)} structures that no later region has, and must have one to write"
                )
        return self

    def _own(self) -> list[set[int]]:
        """Of each region, the structures that no later one has."""
        later = [{id for after in self.regions[number + 1 :] for id in after.structures} for number in range(len(self.regions))]
        return [set(region.structures) - others for region, others in zip(self.regions, later, strict=True)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of segmentation, structure by structure; Dice leads."""
        return ("dice", "surface_dice", "hd95_mm", "mean_surface_distance_mm", "iou", "volume_error_ml")

    @property
    def channels(self) -> int:
        """One per region."""
        return len(self.regions)

    def out_channels(self, contract: Contract) -> int:
        """One channel per region.

        Raises:
            UsageError: REGIONS: a structure of the contract is in no region, or the other way round.
        """
        listed = {id for region in self.regions for id in region.structures}
        if listed != set(range(1, len(contract.structures))):
            raise UsageError(
                f"The regions hold the structures {sorted(listed)}; the contract has {len(contract.structures) - 1} besides the"
                " background, counted from 1, and each must be in a region.",
                code="REGIONS",
            )
        return len(self.regions)

    def target(self, case: Case) -> NDArray[np.generic]:
        """The training ids, (I, J, K), with the codes of `tasks.annotation` where not every structure was annotated."""
        return target_of(case, self.partial)

    def target_settings(self, case: Case) -> dict[str, JsonValue]:
        """The rule of `partial` that holds for the case; nothing of the loss."""
        return target_settings_of(case, self.partial)

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Soft Dice of each region over the whole batch, plus binary cross-entropy; see `losses.overlapping`.

        Args:
            output: (B, R, I, J, K) raw network output.
            target: (B, I, J, K) as from `target`, integer.
        """
        from bedside.tasks.losses import Terms, overlapping

        return overlapping(output, target, Terms(self.dice_weight), self.members())

    def members(self) -> NDArray[np.int8]:
        """For each code of a voxel and each region, (256, R): 1 inside, 0 outside, -1 unknown."""
        most = max(id for region in self.regions for id in region.structures)
        table = possible(most + 1, self.partial)
        columns = []
        for region in self.regions:
            inside = np.zeros(most + 1, dtype=bool)
            inside[list(region.structures)] = True
            some, every = (table & inside).any(1), ~(table & ~inside).any(1)
            columns.append(np.where(every, 1, np.where(some, -1, 0)))
        return np.stack(columns, axis=1).astype(np.int8)

    def activate(self, output: FloatArray) -> FloatArray:
        """Sigmoid of (R, I, J, K), in place."""
        np.clip(output, -80.0, 80.0, out=output)
        np.negative(output, out=output)
        np.exp(output, out=output)
        output += 1.0
        np.reciprocal(output, out=output)
        return output

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """The structure that the last region above a half writes, (I, J, K) uint8; and the chance that any region is wrong."""
        answer = np.zeros(output.shape[1:], dtype=np.uint8)
        sure = np.ones(output.shape[1:], dtype=np.float32)
        for own, probability in zip(self._own(), output, strict=True):
            np.copyto(answer, np.uint8(min(own)), where=probability > 0.5)
            sure *= np.maximum(probability, np.float32(1.0) - probability)
        return answer, np.clip(np.float32(1.0) - sure, 0.0, 1.0)
