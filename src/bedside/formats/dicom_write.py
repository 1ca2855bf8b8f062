"""Volumes to classic single-frame CT or MR series (Explicit VR Little Endian), for phantoms and tests."""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from bedside.core.errors import UsageError, disk_errors
from bedside.core.volume import Volume

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


def write_series(folder: Path, volume: Volume, *, identity: SeriesIdentity) -> tuple[Path, ...]:
    """Write one file per slice along the volume's third voxel axis, `slice-0001.dcm` onwards.

    Args:
        folder: made when absent.
        volume: (1, I, J, K) with integer values that fit int16; I runs along a DICOM row, J down a column. Its voxel axes
            must be perpendicular, as a stack of DICOM planes is.
        identity: who and what.

    Returns:
        The files in the order of the third axis.

    Raises:
        UsageError: the values do not fit int16, there are several channels, or the axes are not perpendicular.
        ResourceError: the disk is full.
    """
    pixels = _pixels(volume)
    cosines = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-6):
        raise UsageError("The volume's axes are not perpendicular; a DICOM series cannot hold it.", code="DICOM_WRITE")
    paths = []
    with disk_errors("writing a DICOM series"):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(volume.shape[3]):
            path = folder / f"slice-{index + 1:04d}.dcm"
            path.write_bytes(_encode(_instance(volume, pixels[:, :, index], index, identity)))
            paths.append(path)
    return tuple(paths)


def _pixels(volume: Volume) -> NDArray[np.int16]:
    """The (I, J, K) values as int16, exactly."""
    if volume.shape[0] != 1:
        raise UsageError("A DICOM series holds one channel.", code="DICOM_WRITE")
    pixels = volume.array[0].astype("<i2")
    if not np.array_equal(pixels, volume.array[0]):
        raise UsageError("The values are not integers that fit 16 bits; a DICOM series would change them.", code="DICOM_WRITE")
    return np.asarray(pixels)


def _instance(volume: Volume, plane: NDArray[np.int16], index: int, identity: SeriesIdentity) -> Dataset:
    """One slice as a dataset; `plane` is (I, J)."""
    data = Dataset()
    data.SOPClassUID = CTImageStorage if identity.modality == "CT" else MRImageStorage
    data.SOPInstanceUID = f"{identity.series_uid}.{index + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID = identity.study_uid, identity.series_uid
    data.FrameOfReferenceUID = f"{identity.study_uid}.1"
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = identity.patient_id, "", "", ""
    data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.SeriesNumber, data.InstanceNumber = identity.modality, 1, index + 1
    data.Manufacturer, data.ManufacturerModelName = identity.manufacturer, identity.model
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    _add_geometry(data, volume, index)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = plane.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleIntercept, data.RescaleSlope = 0, 1
    if identity.modality == "CT":
        data.RescaleType = "HU"
    content = plane.T.tobytes()
    data.add_new("PixelData", "OW", content)
    return data


def _add_geometry(data: Dataset, volume: Volume, index: int) -> None:
    """Position, orientation and spacing of one slice (PS3.3 C.7.6.2); DICOM's world is LPS, ours RAS."""
    spacing = volume.spacing_mm
    cosines = volume.affine[:3, :3] / np.array(spacing)
    position = (volume.affine @ [0, 0, index, 1])[:3] * _LPS_FROM_RAS
    data.ImagePositionPatient = [format_number_as_ds(float(value)) for value in position]
    orientation = np.concatenate([cosines[:, 0] * _LPS_FROM_RAS, cosines[:, 1] * _LPS_FROM_RAS])
    data.ImageOrientationPatient = [format_number_as_ds(float(value)) for value in orientation]
    data.PixelSpacing = [format_number_as_ds(spacing[1]), format_number_as_ds(spacing[0])]
    data.SliceThickness = format_number_as_ds(spacing[2])


def _encode(data: Dataset) -> bytes:
    """The Part 10 bytes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()
