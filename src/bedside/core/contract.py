"""What a scan must look like. The same object checks it at ingest, at training and at the bedside."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_serializer, field_validator

from bedside.core.case import Case, ClinicalValue
from bedside.core.clinical import Column
from bedside.core.errors import InputRejected
from bedside.core.hounsfield import check_hounsfield
from bedside.core.labels import LabelMap, Labels, Term, distinct, from_pairs, of_structures
from bedside.core.record import Record
from bedside.core.volume import Reorientation, Volume, farthest_corner_mm

Modality = Literal["CT", "MR"]
CORNER_TOLERANCE_MM = 0.1
TILT_TOLERANCE_DEGREES = 0.1
"""Largest angle by which axes may miss being perpendicular; a smaller one is rounding, and is kept in the affine as it is."""
_SNAPPED_MM = 1e-6

PositiveMm = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
BodyPart = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_ ]{0,15}$")]


class Contract(Record):
    """Limits that every accepted case keeps.

    Attributes:
        modality: DICOM modality. A NIfTI file names none and is taken at the study's word.
        spacing_mm: smallest and largest distance between neighbouring voxels, along every axis.
        value_range: smallest and largest voxel value allowed; None: any finite value (MR has no unit).
        unit: of the voxel values: "HU" or "arbitrary".
        labels: structure name to the code it has in the source's masks; the first is the background. Training ids are the
            positions in this order.
        unannotated: code in the source's masks of voxels that nobody annotated, as in sparsely annotated volumes; None: every
            voxel was. Such voxels are neither learned from nor scored.
        min_extent_voxels: smallest number of voxels along each axis.
        max_voxels: largest number of voxels in one volume.
        min_extent_mm: smallest field of view in mm, one number or one per axis once they are turned to the closest RAS+
            (right-left, front-back, head-foot); None: any.
        body_part: values of Body Part Examined (0018,0015) that are allowed, in capitals; None: any. A header that names
            another part is refused, one that names none passes and is counted.
        sheared: whether the voxel axes need not be perpendicular, which a NIfTI file can say. Distances and surfaces are measured
            as if they were, so what leans is distorted; only a study that knows why its scans lean declares it.
        plane: of the slices; "any" allows oblique ones too. What names no plane passes and is counted.
        hu_check: whether values in HU must be plausible (air near -1000; see `core.hounsfield`).
        terms: structure name to its term in SNOMED CT or another terminology.
        label_map_version: the study's own name for this state of labels and terms.
        clinical: name of a column of the clinical table to what it may hold.
    """

    modality: Modality
    spacing_mm: tuple[PositiveMm, PositiveMm]
    value_range: tuple[Finite, Finite] | None = None
    unit: Literal["HU", "arbitrary"] = "arbitrary"
    labels: Labels = Field(min_length=2)
    unannotated: Annotated[int, Field(ge=0, le=65535)] | None = None
    min_extent_voxels: int = Field(default=4, ge=1)
    max_voxels: int = Field(default=1 << 30, ge=1)
    min_extent_mm: PositiveMm | tuple[PositiveMm, PositiveMm, PositiveMm] | None = None
    body_part: tuple[BodyPart, ...] | None = None
    sheared: bool = False
    plane: Literal["any", "axial", "coronal", "sagittal"] = "any"
    hu_check: bool = True
    terms: dict[str, Term] = Field(default_factory=dict)
    label_map_version: str = Field(default="1", min_length=1, max_length=64)
    clinical: dict[str, Column] = Field(default_factory=dict)

    @field_validator("spacing_mm", "value_range")
    @classmethod
    def _ordered(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError(f"the lower limit {limits[0]:g} is not below the upper limit {limits[1]:g}")
        return limits

    @field_validator("labels", mode="before")
    @classmethod
    def _from_pairs(cls, labels: object) -> object:
        return from_pairs(labels)

    @field_serializer("labels", when_used="json")
    def _as_pairs(self, labels: dict[str, int]) -> list[tuple[str, int]]:
        """Pairs, because canonical JSON sorts the keys of an object and the order here is the training ids."""
        return list(labels.items())

    @field_validator("body_part", mode="before")
    @classmethod
    def _one_or_several(cls, parts: object) -> object:
        return (parts,) if isinstance(parts, str) else parts

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: dict[str, int]) -> dict[str, int]:
        return distinct(labels)

    @field_validator("unannotated")
    @classmethod
    def _no_structure(cls, code: int | None, info: ValidationInfo) -> int | None:
        if code is not None and code in info.data.get("labels", {}).values():
            raise ValueError(f"the code {code} is that of a structure")
        return code

    @field_validator("terms")
    @classmethod
    def _of_structures(cls, terms: dict[str, Term], info: ValidationInfo) -> dict[str, Term]:
        return of_structures(terms, info.data.get("labels", {}))

    @property
    def structures(self) -> tuple[str, ...]:
        """Names in training-id order, background first."""
        return tuple(self.labels)

    @property
    def label_map(self) -> LabelMap:
        """What the numbers of this study's masks mean."""
        return LabelMap(labels=self.labels, terms=self.terms, version=self.label_map_version)

    @property
    def label_map_digest(self) -> str:
        """Digest of names, codes, order, terms and version; it stands in the record of every mask."""
        return self.label_map.digest

    def check_image(self, image: Volume) -> None:
        """Refuse an image outside the limits.

        Raises:
            InputRejected: with code EXTENT, SPACING, SHEAR, NOT_FINITE, CONSTANT, VALUE_RANGE or HU_CALIBRATION.
        """
        _check_extent(image, self.min_extent_voxels, self.max_voxels)
        _check_field_of_view(image, self.min_extent_mm)
        low, high = self.spacing_mm
        if not all(low - 1e-6 <= spacing <= high + 1e-6 for spacing in image.spacing_mm):
            found = " x ".join(f"{spacing:.4g}" for spacing in image.spacing_mm)
            raise InputRejected(f"The spacing is {found} mm; the contract allows {low:g} to {high:g} mm.", code="SPACING")
        self.check_axes(image)
        array = image.array
        smallest, largest = float(array.min()), float(array.max())
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            bad = int(np.size(array) - np.isfinite(array).sum())
            raise InputRejected(f"{bad} voxels are NaN or infinite; every voxel must be a finite number.", code="NOT_FINITE")
        if smallest == largest:
            raise InputRejected("Every voxel has the same value; there is no image to learn from.", code="CONSTANT")
        if self.value_range is not None and not (self.value_range[0] <= smallest and largest <= self.value_range[1]):
            raise InputRejected(
                f"Values run from {smallest:g} to {largest:g}; the contract allows {self.value_range[0]:g} to"
                f" {self.value_range[1]:g} ({self.unit}).",
                code="VALUE_RANGE",
            )
        if self.hu_check and self.unit == "HU" and self.modality == "CT":
            check_hounsfield(array)

    def check_axes(self, image: Volume) -> tuple[str, ...]:
        """Refuse voxel axes that are not perpendicular where the contract does not declare them. No voxel is read.

        As of a DICOM stack, an angle up to `TILT_TOLERANCE_DEGREES`, or one that moves no voxel by more than
        `CORNER_TOLERANCE_MM`, is rounding. Axes may be mirrored: NIfTI allows both hands, and the affine says which it is.

        Returns:
            The note SHEARED, of declared ones.

        Raises:
            InputRejected: with code SHEAR.
        """
        lean = lean_degrees(image)
        if lean == 0:
            return ()
        if self.sheared:
            return ("SHEARED",)
        raise InputRejected(
            f"The voxel axes miss being perpendicular by up to {lean:.3g} degrees; resample the image onto perpendicular ones, or"
            " set contract.sheared.",
            code="SHEAR",
        )

    def check_acquisition(self, acquisition: Mapping[str, ClinicalValue]) -> tuple[str, ...]:
        """Refuse a picture whose header says that it shows something else.

        Args:
            acquisition: facts by the keys of `core.dataset.ACQUISITION`.

        Returns:
            Notes of what the contract asks for and the header does not say: BODY_PART_UNKNOWN, PLANE_UNKNOWN.

        Raises:
            InputRejected: with code BODY_PART or PLANE.
        """
        silent = []
        part, plane = (_plain(acquisition.get(key)) for key in ("body_part", "plane"))
        if self.body_part is not None and not part:
            silent.append("BODY_PART_UNKNOWN")
        elif self.body_part is not None and part not in {_plain(allowed) for allowed in self.body_part}:
            raise InputRejected(
                f"The header names another body part than {', '.join(self.body_part)}; add it to contract.body_part, or leave"
                " the series out.",
                code="BODY_PART",
            )
        if self.plane != "any" and not plane:
            silent.append("PLANE_UNKNOWN")
        elif self.plane != "any" and plane != self.plane:
            raise InputRejected(f"The slices are not {self.plane}, which the contract asks for.", code="PLANE")
        return tuple(silent)

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
        found: Counter[float] = Counter()
        for k in range(label.shape[3]):  # one slice at a time, because values are sorted in a copy
            codes, counts = np.unique(label.array[..., k], return_counts=True)
            found.update({float(code): int(count) for code, count in zip(codes, counts, strict=True)})
        allowed = {*self.labels.values(), *(() if self.unannotated is None else (self.unannotated,))}
        unknown = [(code, count) for code, count in sorted(found.items()) if code not in allowed]
        if unknown:
            listed = ", ".join(f"{code:g} ({count} voxels)" for code, count in unknown[:5])
            raise InputRejected(
                f"The mask holds unknown label values: {listed}; the contract knows {sorted(allowed)}.",
                code="LABEL_VALUES",
            )
        return apart_mm

    def check(self, case: Case) -> None:
        """Check a case that a model is about to see; only its image counts."""
        if "image" not in case.volumes:
            raise InputRejected("The case has no image.", code="NO_IMAGE")
        self.check_acquisition(case.acquisition)
        self.check_image(case.image)


def snap_note(apart_mm: float) -> str | None:
    """The line that a case's record keeps of a mask that was laid on its image's grid, or None where both were the same.

    Args:
        apart_mm: what `Contract.check_label` measured at the farthest corner.
    """
    return f"SNAPPED {apart_mm:.2g} mm" if apart_mm > _SNAPPED_MM else None


def _plain(value: ClinicalValue) -> str:
    """Letters and digits of a header's code in lower case: "T SPINE", "TSPINE" and "t_spine" are one."""
    return "".join(letter for letter in str(value).lower() if letter.isalnum()) if isinstance(value, str) else ""


def lean_degrees(image: Volume) -> float:
    """The largest angle by which two voxel axes miss being perpendicular, 0 where that is rounding (`Contract.check_axes`)."""
    spacing_mm = np.asarray(image.spacing_mm)
    extent_mm = spacing_mm * (np.asarray(image.shape[1:]) - 1)
    cosines = image.affine[:3, :3] / spacing_mm
    largest = 0.0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        sine = min(abs(float(cosines[:, a] @ cosines[:, b])), 1.0)
        degrees = float(np.degrees(np.arcsin(sine)))
        moved_mm = sine * min(extent_mm[a], extent_mm[b])
        if degrees > TILT_TOLERANCE_DEGREES + _SNAPPED_MM and moved_mm > CORNER_TOLERANCE_MM + _SNAPPED_MM:
            largest = max(largest, degrees)
    return largest


def _check_field_of_view(image: Volume, smallest_mm: float | tuple[float, float, float] | None) -> None:
    if smallest_mm is None:
        return
    wanted = (smallest_mm,) * 3 if isinstance(smallest_mm, float) else smallest_mm
    turn = Reorientation.of(image)
    found = [image.spacing_mm[axis] * image.shape[1 + axis] for axis in turn.order]
    if any(size < least - 1e-6 for size, least in zip(found, wanted, strict=True)):
        sizes, limits = (" x ".join(f"{size:.4g}" for size in sizes) for sizes in (found, wanted))
        raise InputRejected(f"The image covers {sizes} mm; the contract asks for at least {limits}.", code="EXTENT")


def _check_extent(image: Volume, smallest: int, largest_voxels: int) -> None:
    spatial = image.shape[1:]
    if min(spatial) < smallest:
        raise InputRejected(f"The image has {spatial} voxels; at least {smallest} are needed along each axis.", code="EXTENT")
    if int(np.prod(spatial)) > largest_voxels:
        raise InputRejected(f"The image has {int(np.prod(spatial))} voxels; at most {largest_voxels} are allowed.", code="EXTENT")
