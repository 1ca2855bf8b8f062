"""Invented studies as hospitals have them (CT, MR, ultrasound, capture, report, segmentation, document), with an answer key."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bedside.core.deidentification import Deidentification, PixelMask
from bedside.data.identities import Person, Seeds
from bedside.formats.dicom_codes import coded
from bedside.formats.identity_answers import Answer, Place
from bedside.formats.identity_phantom import add_grey, part10, slice_of

BOX = (0, 0, 63, 9)
OPTIONS = Deidentification(
    descriptors=True, masks=(PixelMask(modality="US", boxes=(BOX,)), PixelMask(modality="OT", boxes=(BOX,)))
)
"""What the key expects to be asked: shifted dates, cleaned descriptions, and a blank band on top of ultrasounds and captures."""
_SHAPE = (48, 64)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STUDY_DAY = "20190412"
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate")
_NAMES = ("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "RequestingPhysician", "PhysiciansOfRecord")
_TEXTS: tuple[str, ...] = (
    "AccessionNumber",
    "StudyID",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "InstitutionalDepartmentName",
)
_TEXTS += ("PatientAddress", "PatientTelephoneNumbers", "OtherPatientNames", "Occupation", "PatientComments", "MilitaryRank")
_TEXTS += ("AdditionalPatientHistory", "ImageComments", "DeviceSerialNumber", "AdmissionID", "RequestedProcedureComments")
_SHARED = {"PatientSex": "F", "PatientAge": "063Y", "PatientSize": "1.68", "PatientWeight": "71", "StudyTime": "101112"}
_SHARED |= {"SeriesNumber": "3", "Manufacturer": "ACME", "ManufacturerModelName": "Ray 1", "SpecificCharacterSet": "ISO_IR 192"}
_IMAGE: tuple[str, ...] = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
)
_IMAGE += ("PixelRepresentation",)
_PLANE: tuple[str, ...] = (
    "PixelSpacing",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
)
_PLANE += ("ImageType", "BodyPartExamined", "KVP")
_SCAN = {
    "WindowCenter": "40",
    "WindowWidth": "400",
    "ConvolutionKernel": "B70f",
    "PatientPosition": "HFS",
    "SliceLocation": "1.5",
}
_SCAN |= {"EchoTime": "12.5", "RepetitionTime": "500", "FlipAngle": "15", "MagneticFieldStrength": "3", "ExposureTime": "500"}
_SCAN |= {"XRayTubeCurrent": "120", "GantryDetectorTilt": "0", "SequenceName": "tse2d1", "ScanningSequence": "SE"}
_CODED: tuple[Place, ...] = (
    *(("AnatomicRegionSequence", keyword) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")),
    *(("SegmentSequence", keyword) for keyword in ("SegmentNumber", "SegmentLabel", "SegmentAlgorithmType")),
    ("SegmentSequence", "SegmentedPropertyTypeCodeSequence", "CodeMeaning"),
)
_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def write_studies(root: Path, *, patients: int) -> tuple[Answer, ...]:
    """Write one study of twelve files per patient below `root`, and return the key."""
    seeds, answers = Seeds(), []
    for number in range(patients):
        person = Person.of(seeds)
        study = str(seeds.value("UI"))
        frame = str(seeds.value("UI"))
        random = np.random.default_rng(number)
        for kind, (branch, modality, count) in _OBJECTS.items():
            series = str(seeds.value("UI"))
            folder = root / f"patient {number}" / kind
            folder.mkdir(parents=True)
            for index in range(count):
                data, key = _common(person, seeds, uids=(study, series, frame), number=index + 1)
                data.SOPClassUID, data.Modality = _STORAGE + branch, modality
                _FILL[kind](data, seeds, random, index)
                path = folder / f"{index}.dcm"
                path.write_bytes(part10(data, seeds))
                answers.append(_completed(replace(key, path=path, patient=str(number)), data, kind))
    return tuple(answers)


_OBJECTS = {
    "CT": ("2", "CT", 4),
    "MR": ("4", "MR", 3),
    "US": ("6.1", "US", 1),
    "SC": ("7", "OT", 1),
    "SR": ("88.11", "SR", 1),
    "SEG": ("66.4", "SEG", 1),
    "PDF": ("104.1", "DOC", 1),
}
"""Name to SOP class, modality and number of files."""


def _common(person: Person, seeds: Seeds, *, uids: tuple[str, str, str], number: int) -> tuple[Dataset, Answer]:
    """What files of every kind hold, and its part of the key."""
    data = Dataset()
    for keyword, value in _SHARED.items():
        setattr(data, keyword, value)
    data.PatientName, data.PatientID, data.PatientBirthDate, data.InstanceNumber = (
        person.name,
        person.patient_id,
        person.born,
        number,
    )
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = uids
    data.SOPInstanceUID = str(seeds.value("UI"))
    for index, keyword in enumerate(_DATES):
        setattr(data, keyword, str(int(_STUDY_DAY) + index))
    data.AcquisitionDateTime = f"{_STUDY_DAY}101112"
    gone = [person.name[:6], person.patient_id, person.born]
    for keyword in (*_NAMES, *_TEXTS):
        token = seeds.text()[:6]
        setattr(data, keyword, f"{token}^{token}" if keyword in _NAMES else token)
        gone.append(token)
    described = seeds.text()[:6]
    data.StudyDescription, data.SeriesDescription = f"CT knee {described}", f"axial bone {described}"
    request, reference, hidden = Dataset(), Dataset(), seeds.text()[:6]
    request.ScheduledProcedureStepID = request.RequestedProcedureDescription = hidden
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = _STORAGE + "2", str(seeds.value("UI"))
    data.RequestAttributesSequence, data.SourceImageSequence = Sequence([request]), Sequence([reference])
    block = data.private_block(0x0029, f"{hidden} PRIVATE", create=True)
    block.add_new(1, "LO", seeds.text())
    nested: Place = ("SourceImageSequence", "ReferencedSOPInstanceUID")
    key = Answer(
        path=Path(),
        patient="",
        stays=tuple((keyword,) for keyword in _SHARED if keyword != "SpecificCharacterSet"),
        words={("StudyDescription",): ("CT", "knee"), ("SeriesDescription",): ("axial", "bone")},
        gone=(*gone, described, hidden),
        dates=tuple((keyword,) for keyword in (*_DATES, "AcquisitionDateTime")),
        uids=(*((keyword,) for keyword in _UIDS), nested),
        boxes=None,
    )
    return data, key


def _completed(key: Answer, data: Dataset, kind: str) -> Answer:
    """The key with what the kind of object adds."""
    if kind == "PDF":
        return replace(key, comes_out=False)
    own: tuple[Place, ...] = (("SOPClassUID",), ("Modality",), ("InstanceNumber",))
    image: tuple[Place, ...] = tuple((keyword,) for keyword in (*_IMAGE, *_PLANE, *_SCAN) if keyword in data)
    image += tuple(place for place in _CODED if place[0] in data)
    boxes = None if "PixelData" not in data else (BOX,) if kind in {"US", "SC"} else ()
    gone = (*key.gone, str(data.ContentSequence[0].TextValue)[:6]) if kind == "SR" else key.gone
    return replace(key, stays=(*key.stays, *own, *image), boxes=boxes, gone=gone)


def _volume(data: Dataset, seeds: Seeds, random: np.random.Generator, index: int) -> None:
    del seeds
    plane = random.integers(-1000, 1000, _SHAPE).astype(np.int16)
    slice_of(plane, index, modality=str(data.Modality))(data)
    for keyword, value in _SCAN.items():
        setattr(data, keyword, value)
    data.AnatomicRegionSequence = Sequence([coded("T-D9200", "SRT", "Knee")])


def _picture(data: Dataset, seeds: Seeds, random: np.random.Generator, index: int) -> None:
    del seeds, index
    add_grey(data, random.integers(0, 256, _SHAPE).astype(np.uint8))


def _segments(data: Dataset, seeds: Seeds, random: np.random.Generator, index: int) -> None:
    _picture(data, seeds, random, index)
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = 1, "Femur", "MANUAL"
    segment.SegmentedPropertyTypeCodeSequence = Sequence([coded("T-12710", "SRT", "Femur")])
    data.SegmentSequence = Sequence([segment])


def _report(data: Dataset, seeds: Seeds, random: np.random.Generator, index: int) -> None:
    del random, index
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = Sequence([coded("121071", "DCM", "Finding")])
    item.TextValue = f"{seeds.text()[:6]} was seen by {seeds.text()}"
    data.ValueType, data.ContentSequence = "CONTAINER", Sequence([item])


def _document(data: Dataset, seeds: Seeds, random: np.random.Generator, index: int) -> None:
    del random, index
    data.EncapsulatedDocument = b"%PDF-1.7 " + seeds.text().encode() + b" "
    data.MIMETypeOfEncapsulatedDocument = "application/pdf"


_FILL: dict[str, Callable[[Dataset, Seeds, np.random.Generator, int], None]] = {
    "CT": _volume,
    "MR": _volume,
    "US": _picture,
    "SC": _picture,
    "SR": _report,
    "SEG": _segments,
    "PDF": _document,
}
