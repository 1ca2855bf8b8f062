"""Compressed pixel data before a decoder sees it: does the stream ask for the size that the header promises, and is it whole?"""

import struct
from itertools import pairwise

from bedside.core.errors import InputRejected

_RLE = "1.2.840.10008.1.2.5"


def check_frame(value: bytes, syntax: str, rows: int, columns: int, *, bits_allocated: int) -> None:
    """Refuse a compressed frame that the decoder would size by itself.

    Args:
        value: PixelData's items, offset table first, without the closing delimiter.
        syntax: TransferSyntaxUID: RLE or one of the JPEG 2000 family.
        rows: as in the header.
        columns: as in the header.
        bits_allocated: as in the header.

    Raises:
        InputRejected: DCM_TRUNCATED, DCM_GEOMETRY or DCM_DECODE.
    """
    stream = join_fragments(value)
    if syntax == _RLE:
        _check_rle(stream, bits_allocated)
    else:
        _check_jpeg2000(stream, rows, columns, bits_allocated)


def join_fragments(value: bytes) -> bytes:
    """Join the fragments of one frame (PS3.5 A.4), the basic offset table left out."""
    parts, at = [], 0
    while at + 8 <= len(value):
        length = struct.unpack_from("<I", value, at + 4)[0]
        parts.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    stream = b"".join(parts[1:])
    if not stream:
        raise InputRejected("The compressed pixel data is empty; fetch the file again.", code="DCM_TRUNCATED")
    return stream


def _check_rle(stream: bytes, bits_allocated: int) -> None:
    """The RLE header (PS3.5 G.5): one segment per byte of a pixel, in order, inside the stream."""
    segments = bits_allocated // 8
    if len(stream) < 64:
        raise InputRejected("The compressed frame ends inside its header; fetch the file again.", code="DCM_TRUNCATED")
    count, *offsets = struct.unpack_from("<16I", stream)
    used = [*offsets[:segments], len(stream)]
    if count != segments or used[0] != 64 or any(later <= earlier for earlier, later in pairwise(used)):
        raise InputRejected("The compressed frame's segments do not fit the header's pixels.", code="DCM_GEOMETRY")


def _check_jpeg2000(stream: bytes, rows: int, columns: int, bits_allocated: int) -> None:
    """The SIZ marker (ISO 15444-1 A.5.1) must say what the DICOM header says, and the end marker must be there."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        raise InputRejected("The compressed frame does not start with a JPEG 2000 code stream.", code="DCM_DECODE")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", stream, 8)
    components = struct.unpack_from(">H", stream, 40)[0]
    size = (width - left, height - top, components)
    if size != (columns, rows, 1) or len(stream) < 45 or (stream[42] & 0x7F) + 1 > bits_allocated:
        raise InputRejected("The compressed frame has another size than the header says.", code="DCM_GEOMETRY")
    if tile_width == 0 or tile_height == 0 or tile_left > left or tile_top > top:
        raise InputRejected("The compressed frame's tiles do not cover it.", code="DCM_GEOMETRY")
    if not stream.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise InputRejected("The compressed frame has no end marker; fetch the file again.", code="DCM_TRUNCATED")
