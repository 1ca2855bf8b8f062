"""Files with pixels of any kind, for what is done to pixels that may carry names."""

from io import BytesIO

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

STORAGE = "1.2.840.10008.5.1.4.1.1."


def dataset(pixels, *, branch="6.1", modality="US", photometric="", bits=None, planar=0, **others):
    """A data set with everything but pixel bytes."""
    frames, rows, columns, samples = pixels.shape
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = others.pop("sop_class", STORAGE + branch), "1.2.3.4", modality
    data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID = "1.2.3", "1.2.3.1", "P1"
    data.SamplesPerPixel, data.Rows, data.Columns = samples, rows, columns
    data.PhotometricInterpretation = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    if samples == 3:
        data.PlanarConfiguration = planar
    if frames > 1:
        data.NumberOfFrames = frames
    for keyword, value in others.items():
        setattr(data, keyword, value)
    return data


def part10(data, pixels, syntax=ExplicitVRLittleEndian):
    """The file's bytes in a native transfer syntax, written the way PS3.5 8.1 says."""
    laid = np.moveaxis(pixels, 3, 1) if data.get("PlanarConfiguration") == 1 else pixels
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    raw = laid.astype(laid.dtype.newbyteorder(order)).tobytes()
    raw += b"\0" * (len(raw) % 2)
    data.add_new("PixelData", "OW" if data.BitsAllocated == 16 else "OB", raw)
    return written(data, syntax)


def written(data, syntax=ExplicitVRLittleEndian):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = syntax, data.SOPClassUID, "1.2.3.4"
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()
