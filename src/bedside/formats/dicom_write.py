"""Volumes to classic single-frame CT or MR series, for phantoms and tests.

A series is written plane by plane, so that a caller may first do with the planes what scanners and archives do with them: leave
one out, repeat one, move them, number them otherwise. `dicom_write_frames` puts planes into one multi-frame file instead.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from bedside.core.errors import UsageError, disk_errors
from bedside.core.volume import Volume
from bedside.formats.dicom_write_syntax import add_pixels, encode

_LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class SeriesIdentity:
    """Whose series it is and what made it; every value is invented by the caller.

    Attributes:
        patient_id: PatientID.
        study_uid: StudyInstanceUID; the frame of reference belongs to the study.
        series_uid: SeriesInstanceUID; instances are numbered below it.
        modality: "CT" (values are HU) or "MR".
        manufacturer: Manufacturer.
        model: ManufacturerModelName.
    """

    patient_id: str
    study_uid: str
    series_uid: str
    modality: Literal["CT", "MR"] = "CT"
    manufacturer: str = ""
    model: str = ""

    @classmethod
    def of(
        cls, patient_id: str, series: str = "1", *, modality: Literal["CT", "MR"] = "CT", manufacturer: str = "", model: str = ""
    ) -> "SeriesIdentity":
        """Make an identity; its UIDs follow from the patient and the series name, so the same call writes the same bytes."""
        study, uid = uid_of("study", patient_id), uid_of("series", patient_id, series)
        return cls(patient_id, study, uid, modality, manufacturer, model)


def uid_of(*names: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that follows from the names: 122 bits of their SHA-256."""
    return f"2.25.{int.from_bytes(hashlib.sha256(chr(0).join(names).encode()).digest()[:16]) >> 6}"


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice as it will be written.

    Attributes:
        pixels: (I, J) stored numbers, int16, uint8, or uint16 (12 bits); I runs along a DICOM row, J down a column.
        position_mm: (3,) centre of the first pixel, LPS.
        directions: (2, 3) LPS unit vectors along which I and J grow.
        spacing_mm: along I, along J.
        thickness_mm: SliceThickness.
        number: InstanceNumber of a single file; a frame is numbered by its place.
        marks: what tells it from other planes at the same place: TemporalPositionIdentifier, AcquisitionNumber, EchoNumbers,
            EchoTime, TriggerTime, by DICOM keyword.
    """

    pixels: NDArray[np.int16] | NDArray[np.uint8] | NDArray[np.uint16]
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    number: int
    marks: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) LPS unit vector of the plane: I direction x J direction."""
        return np.cross(self.directions[0], self.directions[1])


def planes_of(volume: Volume) -> tuple[Plane, ...]:
    """Cut a volume along its third voxel axis, first slice first.

    Args:
        volume: (1, I, J, K) with integer values that fit int16, or of uint8. Its first two axes must be perpendicular.

    Raises:
        UsageError: DICOM_WRITE: the values do not fit, there are several channels, or the planes' axes are not perpendicular.
    """
    pixels = _pixels(volume)
    spacing = volume.spacing_mm
    cosines = volume.affine[:3, :3] / np.array(spacing)
    if abs(cosines[:, 0] @ cosines[:, 1]) > 1e-6:
        raise UsageError("The volume's axes are not perpendicular; a DICOM series cannot hold it.", code="DICOM_WRITE")
    directions = (cosines[:, :2] * _LPS_FROM_RAS[:, None]).T
    positions = [(volume.affine @ [0, 0, k, 1])[:3] * _LPS_FROM_RAS for k in range(volume.shape[3])]
    return tuple(
        Plane(pixels[:, :, k], positions[k], directions, (spacing[0], spacing[1]), spacing[2], k + 1)
        for k in range(volume.shape[3])
    )


def write_series(folder: Path, volume: Volume, *, identity: SeriesIdentity) -> tuple[Path, ...]:
    """Write one file per slice along the volume's third voxel axis, `slice-0001.dcm` onwards (Explicit VR Little Endian).

    Args:
        folder: made when absent.
        volume: (1, I, J, K) with integer values that fit int16, or of uint8; I runs along a DICOM row, J down a column. Its voxel
            axes must be perpendicular, as a stack of DICOM planes is.
        identity: who and what.

    Returns:
        The files in the order of the third axis.

    Raises:
        UsageError: the values do not fit int16, there are several channels, or the axes are not perpendicular.
        ResourceError: the disk is full.
    """
    cosines = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-6):
        raise UsageError("The volume's axes are not perpendicular; a DICOM series cannot hold it.", code="DICOM_WRITE")
    return write_planes(folder, planes_of(volume), identity=identity)


def write_planes(
    folder: Path,
    planes: Sequence[Plane],
    *,
    identity: SeriesIdentity,
    syntax: str = ExplicitVRLittleEndian,
    tilt_degrees: float = 0.0,
) -> tuple[Path, ...]:
    """Write one file per plane, in the order given, whatever their places and numbers are.

    Args:
        folder: made when absent.
        planes: of one series; nothing about them is checked, so that what is no volume can be written too.
        identity: who and what.
        syntax: TransferSyntaxUID, see `dicom_write_syntax.encode`.
        tilt_degrees: GantryDetectorTilt; written when it is not zero.

    Raises:
        UsageError: DICOM_WRITE: nothing here writes the transfer syntax, or not these pixels in it.
        ResourceError: the disk is full.
    """
    paths = []
    with disk_errors("writing a DICOM series"):
        folder.mkdir(parents=True, exist_ok=True)
        for index, plane in enumerate(planes):
            data = _instance(plane, index, identity)
            if tilt_degrees:
                data.GantryDetectorTilt = decimal(tilt_degrees)
            path = folder / f"slice-{index + 1:04d}.dcm"
            path.write_bytes(encode(data, [plane.pixels], syntax))
            paths.append(path)
    return tuple(paths)


def decimal(value: float) -> str:
    """A number as DS of at most 16 characters."""
    return str(format_number_as_ds(float(value)))


def described(identity: SeriesIdentity) -> Dataset:
    """The attributes that all files of a series share: patient, study, series, equipment."""
    data = Dataset()
    data.StudyInstanceUID, data.SeriesInstanceUID = identity.study_uid, identity.series_uid
    data.FrameOfReferenceUID = f"{identity.study_uid}.1"
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = identity.patient_id, "", "", ""
    data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.SeriesNumber = identity.modality, 1
    data.Manufacturer, data.ManufacturerModelName = identity.manufacturer, identity.model
    return data


def _pixels(volume: Volume) -> NDArray[np.int16] | NDArray[np.uint8]:
    """The (I, J, K) values, exactly."""
    if volume.shape[0] != 1:
        raise UsageError("A DICOM series holds one channel.", code="DICOM_WRITE")
    array = volume.array[0]
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    pixels = array.astype("<i2")
    if not np.array_equal(pixels, array):
        raise UsageError("The values are not integers that fit 16 bits; a DICOM series would change them.", code="DICOM_WRITE")
    return np.asarray(pixels)


def _instance(plane: Plane, index: int, identity: SeriesIdentity) -> Dataset:
    """One slice as a dataset."""
    data = described(identity)
    data.SOPClassUID = CTImageStorage if identity.modality == "CT" else MRImageStorage
    data.SOPInstanceUID = f"{identity.series_uid}.{index + 1}"
    data.InstanceNumber = plane.number
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.ImagePositionPatient = [decimal(value) for value in plane.position_mm]
    data.ImageOrientationPatient = [decimal(value) for value in plane.directions.ravel()]
    data.PixelSpacing = [decimal(plane.spacing_mm[1]), decimal(plane.spacing_mm[0])]
    data.SliceThickness = decimal(plane.thickness_mm)
    for keyword, value in plane.marks.items():
        setattr(data, keyword, decimal(value) if keyword in {"EchoTime", "TriggerTime"} else int(value))
    data.RescaleIntercept, data.RescaleSlope = 0, 1
    if identity.modality == "CT":
        data.RescaleType = "HU"
    return add_pixels(data, plane.pixels)
