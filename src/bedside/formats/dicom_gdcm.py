"""JPEG frames to numbers by GDCM, which knows the kinds that pydicom's own plug-in leaves out (extended with 12 bits)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

_COMPLAINTS = (b"Corrupt JPEG data", b"Premature end")
_STDERR = 2


def decode_jpeg(stream: bytes, syntax: str, *, rows: int, columns: int, bits: tuple[int, int]) -> NDArray[np.unsignedinteger]:
    """Decode one grey JPEG frame.

    Args:
        stream: the frame's code stream, checked by `dicom_codestream.check_frame`.
        syntax: TransferSyntaxUID.
        rows: of the frame.
        columns: of the frame.
        bits: BitsAllocated, and the precision that the stream says it has.

    Returns:
        (rows, columns), unsigned: the sign is for the caller to read.

    Raises:
        ValueError: GDCM gives another number of bytes, or none, or complains about the stream.
    """
    import gdcm

    for silence in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        silence()
    allocated, precision = bits
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, precision, precision - 1, 0))
    with TemporaryFile() as said:
        with _stderr_into(said):
            values = image.GetBuffer().encode("utf-8", "surrogateescape")
        said.seek(0)
        heard = said.read()
    if len(values) != rows * columns * allocated // 8 or any(complaint in heard for complaint in _COMPLAINTS):
        raise ValueError
    if allocated == 8:
        return np.frombuffer(values, np.uint8).reshape(rows, columns)
    return np.frombuffer(values, np.uint16).reshape(rows, columns)


@contextmanager
def _stderr_into(said: IO[bytes]) -> Iterator[None]:
    """Send the process's standard error to a file meanwhile.

    The JPEG library inside GDCM goes on after damaged data, fills in what it likes, and says so only there.
    """
    kept = os.dup(_STDERR)
    os.dup2(said.fileno(), _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
