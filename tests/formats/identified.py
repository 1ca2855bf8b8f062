"""A synthetic CT file full of invented identity, for de-identification tests."""

from io import BytesIO

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

STUDY, SERIES, SOP = "1.2.826.0.1.3680043.10.1.1", "1.2.826.0.1.3680043.10.1.1.2", "1.2.826.0.1.3680043.10.1.1.2.3"


def encoded(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The Part 10 bytes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.SourceApplicationEntityTitle = "ZQSCANNER"
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return b"MZ" + stream.getvalue()[2:]


def decoded(data: bytes) -> FileDataset:
    """The data set of Part 10 bytes."""
    return dcmread(BytesIO(data))


def person(patient: str = "ZQ4711", name: str = "Zqmustermann^Erika", *, size: int = 16) -> Dataset:
    """One CT slice."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID = CTImageStorage, SOP, STUDY, SERIES
    data.FrameOfReferenceUID = STUDY + ".9"
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = patient, name, "19560731", "F"
    data.PatientAge, data.PatientWeight, data.PatientComments = "095Y", "71.5", "lives with Zqmustermann in Zqdorf"
    data.StudyDate, data.SeriesDate, data.StudyTime, data.AcquisitionDateTime = (
        "20200229",
        "20200301",
        "101112",
        "20200229101112.5",
    )
    data.AccessionNumber, data.StudyID, data.ReferringPhysicianName = "ZQACC991", "7", "Zqarzt^Otto"
    data.InstitutionName, data.StationName, data.Manufacturer = "Zqklinik Nord", "ZQCT1", "ACME"
    data.StudyDescription, data.SeriesDescription = "CT HEAD for Zqmustermann", "Thorax axial ZQ4711"
    data.Modality, data.ImageType, data.BodyPartExamined = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST"
    data.ConvolutionKernel, data.ImageComments = "for ZQMUSTERMANN", "Zqmustermann"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness, data.InstanceNumber = [1, 1], 1, 1
    data.Rows = data.Columns = size
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "HU"
    data.add_new("PixelData", "OW", np.arange(size * size, dtype="<i2").tobytes())
    block = data.private_block(0x0019, "ZQPRIVATE", create=True)
    block.add_new(0x01, "LO", "Zqmustermann")
    data.add_new(0x60000010, "US", 16)
    data.add_new(0x60003000, "OW", b"ZQOVERLAY!")
    data.add_new(0x50003000, "OW", b"ZQCURVE!")
    return data


def nested(levels: int) -> Dataset:
    """A slice with a person's name at the bottom of as many sequences."""
    data = person()
    inner = Dataset()
    inner.PatientName, inner.ReferencedSOPInstanceUID, inner.ContentDate = "Zqmustermann^Erika", SOP, "20200229"
    inner.PersonName = "Zqtief^Otto"
    for _ in range(levels - 1):
        outer = Dataset()
        outer.ConceptCodeSequence = Sequence([inner])
        inner = outer
    data.ReferencedImageSequence = Sequence([inner])
    return data
