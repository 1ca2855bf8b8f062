"""One frame's bytes to its stored numbers. Uncompressed ones are looked at in place; for the others a library is asked."""

import struct

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected
from bedside.formats.burned_in_pixels import darkest
from bedside.formats.dicom_codestream import join_fragments, jpeg_precision
from bedside.formats.dicom_gdcm import decode_jpeg
from bedside.formats.dicom_header import Facts
from bedside.formats.dicom_syntax import BIG_ENDIAN, DECODERS, NATIVE
from bedside.formats.gate import guarded

Plane = NDArray[np.integer] | NDArray[np.floating]
Stored = NDArray[np.integer]
_FAILED = "A frame cannot be decoded; fetch the series again."


def decode(value: bytes | memoryview, facts: Facts) -> tuple[Stored, NDArray[np.bool_] | None]:
    """Decode one frame.

    Args:
        value: its bytes, as `Header.pixels` places them.
        facts: of its slice.

    Returns:
        The stored numbers, (rows, columns), boxes that the study wants blanked already constant, and where they are padding
        (None: nowhere).

    Raises:
        InputRejected: DCM_DECODE.
    """
    if facts.syntax in NATIVE:
        try:
            plane = _native(value, facts)
        except ValueError:
            raise InputRejected(_FAILED, code="DCM_DECODE") from None
    else:
        with guarded("DCM_DECODE", _FAILED):
            plane = _compressed(bytes(value), facts)
            if plane.shape != (facts.rows, facts.columns):
                raise ValueError
    padding = None
    if facts.padding is not None:
        inside = (plane >= facts.padding[0]) & (plane <= facts.padding[1])
        padding = inside if inside.any() else None
    plane = _within_bits(plane, facts)
    return _blanked(plane, padding, facts) if facts.decision.boxes else (plane, padding)


def _blanked(plane: Stored, padding: NDArray[np.bool_] | None, facts: Facts) -> tuple[Stored, NDArray[np.bool_] | None]:
    """The frame with its boxes constant, by the rule of an export."""
    blanked = np.array(plane)
    constant = darkest(plane, facts.photometric, padding)
    for left, top, right, bottom in facts.decision.boxes:
        box = slice(top, bottom + 1), slice(left, right + 1)
        blanked[box] = constant
        if padding is not None and not padding.all():
            padding[box] = False
    return blanked, padding


def _native(value: bytes | memoryview, facts: Facts) -> Stored:
    """Uncompressed pixels, without a copy; words of two 8-bit pixels are swapped in big endian (PS3.5 8.1.1, 7.3)."""
    big = facts.syntax == BIG_ENDIAN
    count = facts.rows * facts.columns
    kind = np.dtype(f"{'>' if big else '<'}{'i' if facts.signed else 'u'}{facts.bits_allocated // 8}")
    if big and facts.bits_allocated == 8 and facts.pixel_vr != "OB":
        return np.frombuffer(value, ">u2").astype("<u2").view(kind)[:count].reshape(facts.rows, facts.columns)
    return np.frombuffer(value, kind, count).reshape(facts.rows, facts.columns)


def _compressed(value: bytes, facts: Facts) -> Stored:
    """One frame by the library that `Found.decoder` names."""
    stream = join_fragments(value)
    decoder = DECODERS[facts.syntax]
    if decoder.plugin == "gdcm":
        bits = facts.bits_allocated, jpeg_precision(stream, facts.syntax)
        plane = decode_jpeg(stream, facts.syntax, rows=facts.rows, columns=facts.columns, bits=bits)
        return _signed(plane, bits[1]) if facts.signed else plane
    from pydicom.pixels import get_decoder

    content = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(stream)) + stream
    plane, _ = get_decoder(facts.syntax).as_array(
        content,
        raw=True,
        decoding_plugin=decoder.plugin,
        rows=facts.rows,
        columns=facts.columns,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=facts.bits_allocated,
        bits_stored=facts.bits_stored,
        pixel_representation=int(facts.signed),
        photometric_interpretation=facts.photometric,
        pixel_keyword="PixelData",
        pixel_vr=facts.pixel_vr,
    )
    return np.asarray(plane)


def _signed(plane: Stored, precision: int) -> Stored:
    """The same bits as two's complement of `precision` bits."""
    signed = plane.astype(f"i{plane.dtype.itemsize}")
    shift = plane.dtype.itemsize * 8 - precision
    return np.asarray((signed << shift) >> shift) if shift else signed


def _within_bits(plane: Stored, facts: Facts) -> Stored:
    """Leave out bits above BitsStored, which are no part of the value (PS3.5 8.1.1)."""
    width = plane.dtype.itemsize * 8
    if facts.bits_stored >= width:
        return plane
    if plane.dtype.kind == "u":
        top = (1 << facts.bits_stored) - 1
        return plane if int(plane.max()) <= top else np.asarray(plane & plane.dtype.type(top))
    half = 1 << (facts.bits_stored - 1)
    if -half <= int(plane.min()) and int(plane.max()) < half:
        return plane
    return _signed(plane, facts.bits_stored)
