"""Invented studies with a seed in every attribute of Table E.1-1, as DICOM and NIfTI, for proofs of de-identification."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from bedside.data.identities import Person, Seeds
from bedside.formats.deidentify_table import table

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_WRITTEN_APART = frozenset(
    {0x00020003, 0x00080018, 0x0020000D, 0x0020000E, 0x00200052, 0x00100010, 0x00100020, 0x00100030}
    | {0x0040A730, 0x00081115, 0x00880200, 0x00400555}
)
"""What the writer sets itself, so that files of one patient, study and series say the same."""


@dataclass(frozen=True)
class SeededSeries:
    """One series of an invented patient.

    Attributes:
        person: whose it is.
        study_uid, series_uid, frame_uid: seeds.
        attributes: a seed for every row of the table; shared by the files of the series.
        hidden: a nested copy of them, two levels down in a sequence that the table does not name.
    """

    person: Person
    study_uid: str
    series_uid: str
    frame_uid: str
    attributes: Dataset
    hidden: Dataset

    @classmethod
    def of(cls, person: Person, seeds: Seeds, *, besides: str = "", study_uid: str = "") -> "SeededSeries":
        """Draw the seeds of a series; `besides` as in `seeded_attributes`."""
        study, series, frame = (str(seeds.value("UI")) for _ in range(3))
        attributes, hidden = (seeded_attributes(seeds, besides=besides) for _ in range(2))
        return cls(person, study_uid or study, series, frame, attributes, hidden)


def seeded_attributes(seeds: Seeds, *, besides: str = "") -> Dataset:
    """A seed for every attribute of the table that can hold one; of a sequence, an item with seeds in it.

    Args:
        seeds: drawn from.
        besides: letters of option columns (`deidentify_table.Row.columns`); an attribute that such an option keeps is left out,
            an age excepted, of which the highest is capped and never kept.
    """
    made = Dataset()
    for tag, row in table().by_tag.items():
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "LO"  # some rows are younger than the dictionary
        if tag in _WRITTEN_APART or tag >> 16 in {0x0000, 0x0002} or (vr != "AS" and row.columns & set(besides)):
            continue
        if vr == "SQ":
            item = Dataset()
            item.ReferencedSOPInstanceUID = str(seeds.value("UI"))
            if "U" not in row.action:  # of U only the UIDs change, and codes stay by the standard
                item.CodeValue, item.CodingSchemeDesignator = str(seeds.value("SH")), "99ZQ"
                item.CodeMeaning = str(seeds.value("LO"))
            made[tag] = DataElement(tag, vr, Sequence([item]))
            continue
        value = seeds.value(vr)
        if value is not None:
            made[tag] = DataElement(tag, vr, value)
    return made


def private_and_repeating(seeds: Seeds) -> Dataset:
    """Seeds in private elements of several VRs, an overlay and a curve."""
    made = Dataset()
    block = made.private_block(0x0029, "ZQ PRIVATE", create=True)
    for number, vr in enumerate(("LO", "PN", "DA", "UI", "OB", "UN", "DS", "SH")):
        block.add_new(number, vr, seeds.value(vr))
    inner = Dataset()
    inner.PatientName = seeds.value("PN")
    block.add_new(0x20, "SQ", Sequence([inner]))
    made.add_new(0x60003000, "OB", seeds.value("OB"))
    made.add_new(0x60004000, "LT", seeds.value("LT"))
    made.add_new(0x60000022, "LO", seeds.value("LO"))
    made.add_new(0x50000022, "LO", seeds.value("LO"))
    return made


def seeded_instance(series: SeededSeries, seeds: Seeds, *, number: int, add: Callable[[Dataset], None]) -> bytes:
    """One file with seeds in every place that can hold one: root, two levels down, private, meta, preamble.

    Args:
        series: what the files of a series share.
        seeds: for what each file has of its own.
        number: InstanceNumber.
        add: sets SOP class, geometry, pixels; the last word.
    """
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    for element in (*series.attributes, *private_and_repeating(seeds)):
        data[element.tag] = element
    data.PatientName, data.PatientID, data.PatientBirthDate = series.person.name, series.person.patient_id, series.person.born
    data.StudyInstanceUID, data.SeriesInstanceUID = series.study_uid, series.series_uid
    data.FrameOfReferenceUID, data.InstanceNumber = series.frame_uid, number
    data.SOPInstanceUID = str(seeds.value("UI"))
    inner, outer = Dataset(), Dataset()
    inner.update(series.hidden)
    inner.PatientName, inner.PatientID = series.person.name, series.person.patient_id
    outer.AnatomicRegionModifierSequence = Sequence([inner])
    data.AnatomicRegionSequence = Sequence([outer])
    add(data)
    return part10(data, seeds)


def part10(data: Dataset, seeds: Seeds | None = None) -> bytes:
    """The file's bytes; with seeds, also in the preamble and in the file meta information."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    if seeds is not None:
        meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = seeds.value("AE")
        meta.PrivateInformationCreatorUID, meta.PrivateInformation = seeds.value("UI"), seeds.value("OB")
        data.preamble = seeds.text().encode().ljust(128, b"\0")
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def slice_of(
    plane: NDArray[np.int16], number: int, *, modality: str = "CT", body_part: str = "KNEE"
) -> Callable[[Dataset], None]:
    """Sets geometry and pixels of a CT or MR slice; `plane` is (rows, columns), `number` its place along z in mm."""

    def add(data: Dataset) -> None:
        data.SOPClassUID, data.Modality = _STORAGE + {"CT": "2", "MR": "4"}[modality], modality
        data.ImageType, data.BodyPartExamined = ["ORIGINAL", "PRIMARY", "AXIAL"], body_part
        data.PixelSpacing, data.SliceThickness = [1, 1], 1
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number]
        data.RescaleSlope, data.RescaleIntercept, data.KVP = 1, 0, 120
        if modality == "CT":
            data.RescaleType = "HU"
        add_grey(data, plane)

    return add


def add_grey(data: Dataset, plane: NDArray[np.int16] | NDArray[np.uint8]) -> None:
    """Pixels of one grey plane (rows, columns)."""
    bits = 8 * plane.dtype.itemsize
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = plane.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(plane.dtype.kind == "i")
    raw = plane.tobytes()
    data.add_new("PixelData", "OW" if bits == 16 else "OB", raw + b"\0" * (len(raw) % 2))


def write_seeded_nifti(path: Path, plain: bytes, seeds: Seeds) -> None:
    """Put seeds into a single-file NIfTI-1: `descrip`, `aux_file`, `db_name`, `intent_name`, and an extension of comments.

    Args:
        path: to write.
        plain: an uncompressed NIfTI-1 file without extension, little endian (its header has 348 bytes).
        seeds: drawn from.
    """
    header = bytearray(plain[:348])
    for start, length in ((148, 80), (228, 24), (14, 18), (328, 16)):
        header[start : start + length] = seeds.text().encode().ljust(length, b"\0")
    note = seeds.text().encode().ljust(24, b"\0")
    offset = int(struct.unpack_from("<f", plain, 108)[0])
    struct.pack_into("<f", header, 108, offset + 32)
    path.write_bytes(bytes(header) + b"\1\0\0\0" + struct.pack("<ii", 32, 6) + note + plain[offset:])
