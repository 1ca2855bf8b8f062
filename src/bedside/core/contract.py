"""What a scan must look like. The same object checks it at ingest, at training and at the bedside."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_serializer, field_validator

from bedside.core.case import Case
from bedside.core.errors import InputRejected
from bedside.core.record import Record
from bedside.core.volume import Volume, farthest_corner_mm

Modality = Literal["CT", "MR"]
CORNER_TOLERANCE_MM = 0.1

PositiveMm = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Contract(Record):
    """Limits that every accepted case keeps.

    Attributes:
        modality: DICOM modality. A NIfTI file names none and is taken at the study's word.
        spacing_mm: smallest and largest distance between neighbouring voxels, along every axis.
        value_range: smallest and largest voxel value allowed; None: any finite value (MR has no unit).
        unit: of the voxel values: "HU" or "arbitrary".
        labels: structure name to the code it has in the source's masks; the first is the background. Training ids are the
            positions in this order.
        min_extent_voxels: smallest number of voxels along each axis.
        max_voxels: largest number of voxels in one volume.
    """

    modality: Modality
    spacing_mm: tuple[PositiveMm, PositiveMm]
    value_range: tuple[Finite, Finite] | None = None
    unit: Literal["HU", "arbitrary"] = "arbitrary"
    labels: dict[str, Annotated[int, Field(ge=0, le=65535)]] = Field(min_length=2)
    min_extent_voxels: int = Field(default=4, ge=1)
    max_voxels: int = Field(default=1 << 30, ge=1)

    @field_validator("spacing_mm", "value_range")
    @classmethod
    def _ordered(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError(f"the lower limit {limits[0]:g} is not below the upper limit {limits[1]:g}")
        return limits

    @field_validator("labels", mode="before")
    @classmethod
    def _from_pairs(cls, labels: object) -> object:
        if not isinstance(labels, list | tuple):
            return labels
        found: dict[str, object] = {}
        for pair in labels:
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                return labels
            if pair[0] in found:
                raise ValueError("two structures share one name")
            found[pair[0]] = pair[1]
        return found

    @field_serializer("labels", when_used="json")
    def _as_pairs(self, labels: dict[str, int]) -> list[tuple[str, int]]:
        """Pairs, because canonical JSON sorts the keys of an object and the order here is the training ids."""
        return list(labels.items())

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: dict[str, int]) -> dict[str, int]:
        if len(set(labels.values())) != len(labels):
            raise ValueError("two structures share one code")
        return labels

    @property
    def structures(self) -> tuple[str, ...]:
        """Names in training-id order, background first."""
        return tuple(self.labels)

    def check_image(self, image: Volume) -> None:
        """Refuse an image outside the limits.

        Raises:
            InputRejected: with code EXTENT, SPACING, NOT_FINITE, CONSTANT or VALUE_RANGE.
        """
        _check_extent(image, self.min_extent_voxels, self.max_voxels)
        low, high = self.spacing_mm
        if not all(low - 1e-6 <= spacing <= high + 1e-6 for spacing in image.spacing_mm):
            found = " x ".join(f"{spacing:.4g}" for spacing in image.spacing_mm)
            raise InputRejected(f"The spacing is {found} mm; the contract allows {low:g} to {high:g} mm.", code="SPACING")
        array = image.array
        if not np.isfinite(array).all():
            bad = int(np.size(array) - np.isfinite(array).sum())
            raise InputRejected(f"{bad} voxels are NaN or infinite; every voxel must be a finite number.", code="NOT_FINITE")
        smallest, largest = float(array.min()), float(array.max())
        if smallest == largest:
            raise InputRejected("Every voxel has the same value; there is no image to learn from.", code="CONSTANT")
        if self.value_range is not None and not (self.value_range[0] <= smallest and largest <= self.value_range[1]):
            raise InputRejected(
                f"Values run from {smallest:g} to {largest:g}; the contract allows {self.value_range[0]:g} to"
                f" {self.value_range[1]:g} ({self.unit}).",
                code="VALUE_RANGE",
            )

    def check_label(self, image: Volume, label: Volume) -> float:
        """Refuse a mask (with the source's codes) that is not on the image's grid or holds an unknown code.

        Returns:
            How far apart the grids are at the farthest corner, in mm (at most `CORNER_TOLERANCE_MM`).

        Raises:
            InputRejected: with code LABEL_SHAPE, LABEL_GEOMETRY, LABEL_VALUES.
        """
        if label.shape[1:] != image.shape[1:] or label.shape[0] != 1:
            raise InputRejected(
                f"The mask has {label.shape[1:]} voxels, the image {image.shape[1:]}; they must be equal.", code="LABEL_SHAPE"
            )
        apart_mm = farthest_corner_mm(image, label)
        if apart_mm > CORNER_TOLERANCE_MM:
            raise InputRejected(
                f"Mask and image are {apart_mm:.2f} mm apart at the farthest corner; at most {CORNER_TOLERANCE_MM} mm is"
                " allowed.",
                code="LABEL_GEOMETRY",
            )
        codes, counts = np.unique(label.array, return_counts=True)
        unknown = [(float(c), int(n)) for c, n in zip(codes, counts, strict=True) if float(c) not in self.labels.values()]
        if unknown:
            listed = ", ".join(f"{code:g} ({count} voxels)" for code, count in unknown[:5])
            raise InputRejected(
                f"The mask holds unknown label values: {listed}; the contract knows {sorted(self.labels.values())}.",
                code="LABEL_VALUES",
            )
        return apart_mm

    def check(self, case: Case) -> None:
        """Check a case that a model is about to see; only its image counts."""
        if "image" not in case.volumes:
            raise InputRejected("The case has no image.", code="NO_IMAGE")
        self.check_image(case.image)


def _check_extent(image: Volume, smallest: int, largest_voxels: int) -> None:
    spatial = image.shape[1:]
    if min(spatial) < smallest:
        raise InputRejected(f"The image has {spatial} voxels; at least {smallest} are needed along each axis.", code="EXTENT")
    if int(np.prod(spatial)) > largest_voxels:
        raise InputRejected(f"The image has {int(np.prod(spatial))} voxels; at most {largest_voxels} are allowed.", code="EXTENT")
