"""Planes to one enhanced multi-frame CT or MR file (PS3.3 A.38 and A.36), for phantoms and tests.

What is the same in every frame stands in the shared functional groups, the rest frame by frame, as scanners write it. The modules
that say where frames lie and how they are told apart are complete; acquisition details without a part in that are left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from bedside.core.errors import UsageError, disk_errors
from bedside.formats.dicom_write import Plane, SeriesIdentity, decimal, described
from bedside.formats.dicom_write_syntax import add_pixels, encode

_KIND = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
_FRAME_MARKS = {"TemporalPositionIdentifier": "TemporalPositionIndex", "AcquisitionNumber": "FrameAcquisitionNumber"}
"""How a frame's content sequence calls what a classic file calls otherwise (PS3.3 C.7.6.16.2.2)."""


def write_frames(
    folder: Path,
    planes: Sequence[Plane],
    *,
    identity: SeriesIdentity,
    syntax: str = ExplicitVRLittleEndian,
    tilt_degrees: float = 0.0,
) -> tuple[Path, ...]:
    """Write all planes as frames of one file, `frames.dcm`, in the order given.

    Args:
        folder: made when absent.
        planes: one size and pixel type; planes of different directions become different stacks.
        identity: who and what.
        syntax: TransferSyntaxUID, see `dicom_write_syntax.encode`.
        tilt_degrees: GantryDetectorTilt of the CT acquisition details; written when it is not zero.

    Raises:
        UsageError: DICOM_WRITE: no plane, planes of different sizes, or a syntax that cannot be written.
        ResourceError: the disk is full.
    """
    if len({(plane.pixels.shape, plane.pixels.dtype) for plane in planes}) != 1:
        raise UsageError("The frames of one file have one size and one type of pixel.", code="DICOM_WRITE")
    data = _image(planes, identity)
    data.SharedFunctionalGroupsSequence = [_shared(planes, identity, tilt_degrees)]
    stacks = _stacks(planes)
    ranks = _places(planes, stacks)
    data.PerFrameFunctionalGroupsSequence = [
        _frame(plane, stack, rank, several=max(stacks) > 1) for plane, stack, rank in zip(planes, stacks, ranks, strict=True)
    ]
    with disk_errors("writing a DICOM file"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "frames.dcm"
        path.write_bytes(encode(data, [plane.pixels for plane in planes], syntax))
    return (path,)


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _image(planes: Sequence[Plane], identity: SeriesIdentity) -> Dataset:
    """The file's own attributes: class, type, size, and by what its frames are told apart (PS3.3 C.7.6.17)."""
    data = described(identity)
    data.SOPClassUID = EnhancedCTImageStorage if identity.modality == "CT" else EnhancedMRImageStorage
    data.SOPInstanceUID = f"{identity.series_uid}.1"
    data.InstanceNumber, data.NumberOfFrames = 1, len(planes)
    data.ContentDate, data.ContentTime = "20000101", "000000"
    data.ImageType = list(_KIND)
    data.PixelPresentation, data.VolumetricProperties, data.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    data.PresentationLUTShape, data.BurnedInAnnotation, data.LossyImageCompression = "IDENTITY", "NO", "00"
    data.PositionReferenceIndicator, data.AcquisitionContextSequence = "", []
    organization = f"{identity.series_uid}.0"
    data.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    marked = {_FRAME_MARKS[name] for plane in planes for name in plane.marks if name in _FRAME_MARKS}
    data.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=Tag(keyword),
            FunctionalGroupPointer=Tag("FrameContentSequence"),
        )
        for keyword in ("StackID", "InStackPositionNumber", *sorted(marked))
    ]
    return add_pixels(data, planes[0].pixels)


def _stacks(planes: Sequence[Plane]) -> list[int]:
    """Number of each plane's stack, from 1: planes of one direction."""
    seen: list[np.ndarray] = []
    numbers = []
    for plane in planes:
        known = next((index for index, one in enumerate(seen) if np.allclose(one, plane.directions, atol=1e-6)), None)
        if known is None:
            known = len(seen)
            seen.append(plane.directions)
        numbers.append(known + 1)
    return numbers


def _places(planes: Sequence[Plane], stacks: Sequence[int]) -> list[int]:
    """Number of each plane's place in its stack along the normal, from 1: frames of one place share it (PS3.3 C.7.6.16.2.2)."""
    heights = [(stack, round(float(plane.position_mm @ plane.normal), 3)) for plane, stack in zip(planes, stacks, strict=True)]
    return [1 + len({other for other in heights if other[0] == own[0] and other[1] < own[1]}) for own in heights]


def _measures(plane: Plane) -> list[Dataset]:
    spacing = [decimal(plane.spacing_mm[1]), decimal(plane.spacing_mm[0])]
    return [_item(PixelSpacing=spacing, SliceThickness=decimal(plane.thickness_mm))]


def _orientation(plane: Plane) -> list[Dataset]:
    return [_item(ImageOrientationPatient=[decimal(value) for value in plane.directions.ravel()])]


def _shared(planes: Sequence[Plane], identity: SeriesIdentity, tilt_degrees: float) -> Dataset:
    """The functional groups that hold for every frame (PS3.3 C.7.6.16.1.1)."""
    first, shared = planes[0], Dataset()
    shared.PixelMeasuresSequence = _measures(first)
    if max(_stacks(planes)) == 1:
        shared.PlaneOrientationSequence = _orientation(first)
    values = _item(RescaleIntercept="0", RescaleSlope="1", RescaleType="HU" if identity.modality == "CT" else "US")
    shared.PixelValueTransformationSequence = [values]
    kind = _item(
        FrameType=list(_KIND),
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if identity.modality == "CT":
        shared.CTImageFrameTypeSequence = [kind]
        if tilt_degrees:
            shared.CTAcquisitionDetailsSequence = [_item(GantryDetectorTilt=decimal(tilt_degrees))]
    else:
        shared.MRImageFrameTypeSequence = [kind]
    return shared


def _frame(plane: Plane, stack: int, place: int, *, several: bool) -> Dataset:
    """The functional groups of one frame."""
    content = _item(StackID=str(stack), InStackPositionNumber=place)
    marks = {_FRAME_MARKS[name]: int(value) for name, value in plane.marks.items() if name in _FRAME_MARKS}
    for keyword, value in marks.items():
        setattr(content, keyword, value)
    content.DimensionIndexValues = [stack, place, *(marks[keyword] for keyword in sorted(marks))]
    frame = _item(FrameContentSequence=[content])
    frame.PlanePositionSequence = [_item(ImagePositionPatient=[decimal(value) for value in plane.position_mm])]
    if several:
        frame.PlaneOrientationSequence = _orientation(plane)
    if "EchoTime" in plane.marks:
        frame.MREchoSequence = [_item(EffectiveEchoTime=float(plane.marks["EchoTime"]))]
    return frame
