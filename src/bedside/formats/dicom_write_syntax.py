"""Pixels to the bytes of a transfer syntax, for phantoms and tests: the writing side of `dicom_syntax`.

Nothing that is installed here encodes HTJ2K, though OpenJPEG decodes it; frames of the geometry proof were encoded once and are
kept (`dicom_write_htj2k`).
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_encoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from bedside.core.errors import UsageError
from bedside.formats.dicom_write_htj2k import codestream
from bedside.formats.dicom_write_jpeg12 import extended_12

Pixels = NDArray[np.int16] | NDArray[np.uint8] | NDArray[np.uint16]
"""Stored in 16 and 8 bits; uint16 holds numbers of 12 bits."""
NEAR_LOSSLESS_ERROR = 2
"""How far a number may be changed by JPEG-LS near-lossless as it is written here."""
_JPEG_2000_DECIBEL = 92
_LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}
"""LossyImageCompressionMethod (PS3.3 C.7.6.1.1.5.1)."""
_NATIVE = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian})


def add_pixels(data: Dataset, pixels: Pixels) -> Dataset:
    """Describe the pixels of a plane (PS3.3 C.7.6.3); `pixels` is (I, J) and its type is what will be stored."""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = pixels.shape
    bits = _bits_stored(pixels)
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    data.PixelRepresentation = 1 if pixels.dtype.kind == "i" else 0
    return data


def encode(data: Dataset, frames: Sequence[Pixels], syntax: str) -> bytes:
    """Put pixels into a dataset and write it as a Part 10 file.

    Args:
        data: everything but the pixels' bytes; PixelData is added to it.
        frames: (I, J) each, all of one type and size.
        syntax: TransferSyntaxUID: native (either byte order, deflated), RLE, JPEG baseline (8 bit, lossy), JPEG extended (uint16,
            lossy), JPEG lossless, JPEG-LS lossless and near-lossless (unsigned), JPEG 2000 lossless and lossy; HTJ2K lossless for
            the frames of the geometry proof.

    Raises:
        UsageError: DICOM_WRITE: nothing here writes this syntax, or not these pixels in it.
    """
    rows = [_by_rows(frame) for frame in frames]
    if syntax in _NATIVE:
        content = b"".join(frame.byteswap().tobytes() if syntax == ExplicitVRBigEndian else frame.tobytes() for frame in rows)
        data.add_new("PixelData", "OB" if rows[0].dtype == np.uint8 else "OW", content + bytes(len(content) % 2))
    else:
        encoder = _ENCODERS.get(syntax)
        if encoder is None:
            raise UsageError("No library here writes that transfer syntax.", code="DICOM_WRITE")
        data.add_new("PixelData", "OB", encapsulate([encoder(frame) for frame in rows]))
        data["PixelData"].is_undefined_length = True
    if syntax in _LOSSY:
        data.LossyImageCompression, data.LossyImageCompressionMethod = "01", _LOSSY[syntax]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def _by_rows(frame: Pixels) -> Pixels:
    """(I, J) to (rows, columns), in one piece."""
    return frame.T.copy()


def _bits_stored(frame: Pixels) -> int:
    return 12 if frame.dtype == np.uint16 else 8 * frame.dtype.itemsize


def _extended(frame: Pixels) -> bytes:
    if frame.dtype != np.uint16:
        raise UsageError("JPEG extended holds 12-bit values here; give uint16.", code="DICOM_WRITE")
    return extended_12(frame)


def _by_pydicom(syntax: str, plugin: str, **how: object) -> Callable[[Pixels], bytes]:
    """One of pydicom's encoders, as a function of a frame (rows, columns)."""

    def encoded(frame: Pixels) -> bytes:
        return bytes(
            get_encoder(syntax).encode(
                frame,
                rows=frame.shape[0],
                columns=frame.shape[1],
                samples_per_pixel=1,
                number_of_frames=1,
                bits_allocated=8 * frame.dtype.itemsize,
                bits_stored=_bits_stored(frame),
                pixel_representation=int(frame.dtype.kind == "i"),
                photometric_interpretation="MONOCHROME2",
                encoding_plugin=plugin,
                **how,
            )
        )

    return encoded


def _by_gdcm(syntax: int) -> Callable[[Pixels], bytes]:
    """GDCM's JPEG encoders, as a function of a frame (rows, columns)."""

    def encoded(frame: Pixels) -> bytes:
        if syntax == gdcm.TransferSyntax.JPEGBaselineProcess1 and frame.dtype != np.uint8:
            raise UsageError("JPEG baseline holds 8-bit values; give uint8.", code="DICOM_WRITE")
        plain = Dataset()
        plain.SOPClassUID, plain.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
        native = encode(add_pixels(plain, frame.T), [frame.T], ExplicitVRLittleEndian)
        with TemporaryDirectory() as folder:
            before, after = Path(folder) / "native.dcm", Path(folder) / "compressed.dcm"
            before.write_bytes(native)
            _change_syntax(before, after, syntax)
            return bytes(next(generate_frames(dcmread(after).PixelData, number_of_frames=1)))

    return encoded


def _change_syntax(before: Path, after: Path, syntax: int) -> None:
    """Let GDCM write a file again in another transfer syntax; its objects stay named, because each refers to the one before."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(before))
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    done = reader.Read()
    image = reader.GetImage()
    change.SetInput(image)
    done = done and change.Change()
    output = change.GetOutput()
    writer.SetFileName(str(after))
    writer.SetFile(reader.GetFile())
    writer.SetImage(output)
    if not (done and writer.Write()):
        raise UsageError("GDCM does not write these pixels in that transfer syntax.", code="DICOM_WRITE")


_ENCODERS: dict[str, Callable[[Pixels], bytes]] = {
    RLELossless: _by_pydicom(RLELossless, "pydicom"),
    JPEGBaseline8Bit: _by_gdcm(gdcm.TransferSyntax.JPEGBaselineProcess1),
    JPEGExtended12Bit: _extended,
    JPEGLossless: _by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14),
    JPEGLosslessSV1: _by_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1),
    JPEGLSLossless: _by_pydicom(JPEGLSLossless, "pyjpegls"),
    JPEGLSNearLossless: _by_pydicom(JPEGLSNearLossless, "pyjpegls", jls_error=NEAR_LOSSLESS_ERROR),
    JPEG2000Lossless: _by_pydicom(JPEG2000Lossless, "pylibjpeg"),
    JPEG2000: _by_pydicom(JPEG2000, "pylibjpeg", j2k_psnr=[_JPEG_2000_DECIBEL]),
    HTJ2KLossless: codestream,
}
