"""Compressed pixel data before a decoder sees it: does the stream ask for the size that the header promises, and is it whole?"""

import struct
from itertools import pairwise

from bedside.core.errors import InputRejected
from bedside.formats.dicom_syntax import JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LS, RLE

_END_OF_IMAGE = b"\xff\xd9"
_JPEG_FRAMES = {
    JPEG_BASELINE: ({0xC0}, range(8, 9)),
    JPEG_EXTENDED: ({0xC0, 0xC1}, range(8, 13)),
    **dict.fromkeys(JPEG_LOSSLESS, ({0xC3}, range(2, 17))),
    **dict.fromkeys(JPEG_LS, ({0xF7}, range(2, 17))),
}
"""By transfer syntax: the start-of-frame markers it may hold (ISO 10918-1 B.1.1.3, ISO 14495-1 C.1.1), and their precisions."""
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
"""Markers without a segment, none of which stands before a scan."""
_STARTS_OF_FRAME = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}


def check_frame(value: bytes, syntax: str, rows: int, columns: int, *, bits_allocated: int, samples: int = 1) -> None:
    """Refuse a compressed frame that the decoder would size by itself.

    Args:
        value: the frame's items (fragments with their tags), without an offset table and without the closing delimiter.
        syntax: TransferSyntaxUID: a compressed one that is read.
        rows: as in the header.
        columns: as in the header.
        bits_allocated: as in the header.
        samples: per pixel, as in the header.

    Raises:
        InputRejected: DCM_TRUNCATED, DCM_GEOMETRY or DCM_DECODE.
    """
    stream = join_fragments(value)
    if syntax == RLE:
        _check_rle(stream, bits_allocated * samples)
    elif syntax in _JPEG_FRAMES:
        _check_jpeg(stream, syntax, (rows, columns, samples), bits_allocated)
    else:
        _check_jpeg2000(stream, (rows, columns, samples), bits_allocated)


def join_fragments(value: bytes) -> bytes:
    """Join the fragments of one frame (PS3.5 A.4)."""
    parts, at = [], 0
    while at + 8 <= len(value):
        length = struct.unpack_from("<I", value, at + 4)[0]
        parts.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    stream = parts[0] if len(parts) == 1 else b"".join(parts)
    if not stream:
        raise InputRejected("The compressed pixel data is empty; fetch the file again.", code="DCM_TRUNCATED")
    return stream


def _check_rle(stream: bytes, bits_per_pixel: int) -> None:
    """The RLE header (PS3.5 G.5): one segment per byte of a pixel, in order, inside the stream."""
    segments = bits_per_pixel // 8
    if len(stream) < 64:
        raise InputRejected("The compressed frame ends inside its header; fetch the file again.", code="DCM_TRUNCATED")
    count, *offsets = struct.unpack_from("<16I", stream)
    used = [*offsets[:segments], len(stream)]
    if count != segments or used[0] != 64 or any(later <= earlier for earlier, later in pairwise(used)):
        raise InputRejected("The compressed frame's segments do not fit the header's pixels.", code="DCM_GEOMETRY")


def _check_jpeg2000(stream: bytes, expected: tuple[int, int, int], bits_allocated: int) -> None:
    """The SIZ marker (ISO 15444-1 A.5.1) must say what the DICOM header says, and the end marker must be there."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        raise InputRejected("The compressed frame does not start with a JPEG 2000 code stream.", code="DCM_DECODE")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", stream, 8)
    components = struct.unpack_from(">H", stream, 40)[0]
    size = (height - top, width - left, components)
    if size != expected or len(stream) < 45 or (stream[42] & 0x7F) + 1 > bits_allocated:
        raise InputRejected("The compressed frame has another size than the header says.", code="DCM_GEOMETRY")
    if tile_width == 0 or tile_height == 0 or tile_left > left or tile_top > top:
        raise InputRejected("The compressed frame's tiles do not cover it.", code="DCM_GEOMETRY")
    _check_end(stream)


def jpeg_precision(stream: bytes, syntax: str) -> int:
    """Bits per sample that a JPEG or JPEG-LS stream says it has; the stream was checked before."""
    return _start_of_frame(stream, syntax)[0]


def _check_jpeg(stream: bytes, syntax: str, expected: tuple[int, int, int], bits_allocated: int) -> None:
    """The start of frame must say what the DICOM header says, segments must lead to a scan, and the end marker must be there."""
    precision, height, width, components = _start_of_frame(stream, syntax)
    if (height, width, components) != expected:
        raise InputRejected("The compressed frame has another size than the header says.", code="DCM_GEOMETRY")
    if precision not in _JPEG_FRAMES[syntax][1] or not (bits_allocated - 8 < precision <= bits_allocated):
        raise InputRejected("The compressed frame has other bits per pixel than the header says.", code="DCM_GEOMETRY")
    if not _leads_to_scan(stream):
        raise InputRejected("The compressed frame is no JPEG stream of its transfer syntax.", code="DCM_DECODE")
    _check_end(stream)


def _leads_to_scan(stream: bytes) -> bool:
    """Whether one marker segment follows the other up to the start of a scan (ISO 10918-1 B.1.1); GDCM aborts where none does."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if marker == 0xDA:
            return True
        if marker != 0xFF and (marker in _ALONE or length < 2):
            return False
        at += 1 if marker == 0xFF else 2 + length
    return False


def _start_of_frame(stream: bytes, syntax: str) -> tuple[int, int, int, int]:
    """Precision, rows, columns and components of the only frame."""
    at = 2 if stream[:3] == b"\xff\xd8\xff" else len(stream)
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STARTS_OF_FRAME:
            if marker not in _JPEG_FRAMES[syntax][0] or at + 10 > len(stream):
                break
            precision, height, width, components = struct.unpack_from(">BHHB", stream, at + 4)
            return precision, height, width, components
        if marker in {0xD9, 0xDA} or length < 2:
            break
        at += 2 + length
    raise InputRejected("The compressed frame is no JPEG stream of its transfer syntax.", code="DCM_DECODE")


def _check_end(stream: bytes) -> None:
    if not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise InputRejected("The compressed frame has no end marker; fetch the file again.", code="DCM_TRUNCATED")
