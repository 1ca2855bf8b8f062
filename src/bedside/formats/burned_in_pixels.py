"""Boxes of a picture made constant, everything else bit for bit as it was; for any coding of pixels that is read.

Uncompressed pixels are changed where they lie. Compressed ones are decoded and stored as Explicit VR Little Endian, because a
decoded sample outside the boxes is then the same number, which another round of lossy compression would not promise.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected
from bedside.formats.dicom_codestream import check_frame, join_fragments, jpeg_precision
from bedside.formats.dicom_elements import PIXEL_DATA, Element, Elements, data_set_start
from bedside.formats.dicom_fragments import frame_places
from bedside.formats.dicom_gdcm import decode_jpeg
from bedside.formats.dicom_syntax import BIG_ENDIAN, DECODERS, DEFLATED, NATIVE, check_syntax, decoder_of
from bedside.formats.dicom_values import text
from bedside.formats.dicom_vrs import LONG_VR_NAMES
from bedside.formats.gate import Limits, guarded

Box = tuple[int, int, int, int]
"""(first column, first row, last column, last row), both ends included."""
_Samples = NDArray[np.unsignedinteger]

_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"
_PLANAR, _PHOTOMETRIC, _META_LENGTH, _SYNTAX = 0x00280006, 0x00280004, 0x00020000, 0x00020010
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_OVERLAY_POSITION, _OVERLAY_DATA = 0x0102, 0x3000
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
_GREYS = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
_ITEM = b"\xfe\xff\x00\xe0"
_DECODE = "The pixels cannot be decoded, so nothing in them can be blanked; fetch the file again."


@dataclass(frozen=True)
class Picture:
    """How the pixels of one file are stored (PS3.3 C.7.6.3).

    Attributes:
        rows, columns, samples, frames: extent.
        allocated, stored, high_bit: bits per sample.
        signed: PixelRepresentation 1.
        planar: one plane of samples after the other (PlanarConfiguration 1).
        photometric: PhotometricInterpretation.
        syntax: TransferSyntaxUID.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: bool
    photometric: str
    syntax: str

    @property
    def native(self) -> bool:
        """Whether the pixels are uncompressed."""
        return self.syntax in NATIVE

    @property
    def lossy(self) -> bool:
        """Whether the coding may have changed values."""
        return self.syntax in _LOSSY

    @property
    def decoder(self) -> str:
        """Which library decodes the pixels."""
        return decoder_of(self.syntax)

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return self.rows * self.columns * self.samples * self.allocated // 8


def picture_of(elements: Elements, limits: Limits) -> Picture:
    """Read the pixel module; what cannot be blanked exactly is refused.

    Raises:
        InputRejected: DCM_GEOMETRY or DCM_SYNTAX.
    """
    check_syntax(elements.syntax)
    number = {tag: _short(elements, tag) for tag in (*range(0x00280100, 0x00280104), *range(0x00280010, 0x00280012), 0x00280002)}
    said = text(elements, 0x00280008)
    frames = int(said) if said.isdecimal() and len(said) < 8 else 1
    picture = Picture(
        rows=number[0x00280010],
        columns=number[0x00280011],
        samples=number[0x00280002],
        frames=frames,
        allocated=number[0x00280100],
        stored=number[0x00280101],
        high_bit=number[0x00280102],
        signed=number[0x00280103] == 1,
        planar=_short(elements, _PLANAR) == 1,
        photometric=text(elements, _PHOTOMETRIC),
        syntax=elements.syntax,
    )
    known = {1: _GREYS, 3: _COLOURS}.get(picture.samples, frozenset())
    halved = picture.native and picture.photometric in {"YBR_FULL_422", "YBR_RCT", "YBR_ICT"}
    bits = picture.allocated in {8, 16} and picture.stored <= picture.high_bit + 1 <= picture.allocated and picture.stored > 0
    if picture.photometric not in known or halved or not bits or min(picture.rows, picture.columns, frames) < 1:
        raise InputRejected("The pixels are coded in a way that cannot be blanked here; convert the file.", code="DCM_GEOMETRY")
    if picture.frame_bytes * frames > limits.max_inflated_bytes:
        raise InputRejected(
            f"The pixels need more than {limits.max_inflated_bytes} bytes, which is the limit.", code="DCM_GEOMETRY"
        )
    return picture


def _short(elements: Elements, tag: int) -> int:
    raw = elements.raw(tag)
    return int(struct.unpack(elements.order + "H", raw)[0]) if len(raw) == 2 else 0


def has_embedded_overlay(elements: Elements) -> bool:
    """Whether an overlay plane (60xx) is said to lie in bits of the pixels: it has a position and no data of its own."""
    groups = [0x60000000 | number << 17 for number in range(16)]
    return any(group | _OVERLAY_POSITION in elements.table and group | _OVERLAY_DATA not in elements.table for group in groups)


def blanked(data: bytes, elements: Elements, picture: Picture, boxes: Sequence[Box]) -> bytes:
    """The file with its boxes constant in every frame, and bits beside the stored ones cleared.

    The constant is `darkest` of the frame; black of colours. Bits above the stored ones repeat the sign, or are 0.

    Args:
        data: the file.
        elements: the walk through it.
        picture: its pixel module.
        boxes: all inside the picture; () only clears bits.

    Returns:
        The new file, or `data` itself when nothing changes.

    Raises:
        InputRejected: DCM_TRUNCATED, DCM_GEOMETRY, DCM_STRUCTURE, DCM_FRAGMENTS or DCM_DECODE.
    """
    nothing = padding_range(elements, signed=picture.signed)
    if not picture.native:
        samples, photometric = _decoded(elements, picture)
        _blank(samples, picture, photometric, boxes, nothing=nothing)
        return _restored(data, elements, picture, samples, photometric)
    samples = _native(elements, picture)
    before = samples.copy()
    _blank(samples, picture, picture.photometric, boxes, padding=_padding(elements, picture), nothing=nothing)
    if np.array_equal(samples, before) and not boxes:
        return data
    return _replaced(data, elements, _native_bytes(samples, elements, picture))


def _native(elements: Elements, picture: Picture) -> _Samples:
    """A copy of the samples, (frames, rows, columns, samples)."""
    places = frame_places(elements, picture.frames, picture.frame_bytes)
    start = places[0][0]
    raw = elements.data[start : start + picture.frame_bytes * picture.frames]
    if _swapped(elements, picture):
        raw = _swap_pairs(elements.raw(PIXEL_DATA))[: len(raw)]
    kind = np.dtype(f"{elements.order}u{picture.allocated // 8}")
    shape = (
        (picture.samples, picture.rows, picture.columns) if picture.planar else (picture.rows, picture.columns, picture.samples)
    )
    samples = np.frombuffer(raw, kind).reshape(picture.frames, *shape)
    return np.array(np.moveaxis(samples, 1, 3) if picture.planar else samples)


def _native_bytes(samples: _Samples, elements: Elements, picture: Picture) -> bytes:
    """The samples as they lay in the file, with its own pad byte."""
    laid = np.moveaxis(samples, 3, 1) if picture.planar else samples
    raw = laid.astype(samples.dtype, order="C").tobytes()
    whole = elements.raw(PIXEL_DATA)
    if _swapped(elements, picture):
        return _swap_pairs(raw + _swap_pairs(whole)[len(raw) :])
    return raw + whole[len(raw) :]


def _swapped(elements: Elements, picture: Picture) -> bool:
    """Bytes inside big endian 16-bit words (PS3.5 8.2): each pair is turned round."""
    return picture.allocated == 8 and elements.syntax == BIG_ENDIAN and elements.table[PIXEL_DATA].vr == "OW"


def _swap_pairs(raw: bytes) -> bytes:
    return np.frombuffer(raw, "<u2").byteswap().tobytes()


def _decoded(elements: Elements, picture: Picture) -> tuple[_Samples, str]:
    """The decoder's samples, (frames, rows, columns, samples), and the photometric interpretation that they have now."""
    frames, photometric = [], picture.photometric
    size = {"bits_allocated": picture.allocated, "samples": picture.samples}
    for first, last in frame_places(elements, picture.frames, picture.frame_bytes):
        value = elements.data[first:last]
        check_frame(value, elements.syntax, picture.rows, picture.columns, **size)
        with guarded("DCM_DECODE", _DECODE):
            plane, photometric = _decoded_frame(join_fragments(value), picture)
            kind = np.dtype(f"<u{picture.allocated // 8}")
            frames.append(plane.astype(kind).reshape(picture.rows, picture.columns, picture.samples))
    return np.stack(frames), "YBR_FULL" if photometric == "YBR_FULL_422" else photometric


def _decoded_frame(stream: bytes, picture: Picture) -> tuple[NDArray[np.generic], str]:
    """One frame by the library that `dicom_syntax` names."""
    plugin = DECODERS[picture.syntax].plugin
    if plugin == "gdcm" and picture.samples == 1:
        bits = picture.allocated, jpeg_precision(stream, picture.syntax)
        plane = decode_jpeg(stream, picture.syntax, rows=picture.rows, columns=picture.columns, bits=bits)
        return plane, picture.photometric
    from pydicom.pixels import get_decoder

    plane, facts = get_decoder(picture.syntax).as_array(
        _ITEM + struct.pack("<I", 0) + _ITEM + struct.pack("<I", len(stream)) + stream,
        raw=True,
        decoding_plugin=plugin,
        rows=picture.rows,
        columns=picture.columns,
        samples_per_pixel=picture.samples,
        number_of_frames=1,
        bits_allocated=picture.allocated,
        bits_stored=picture.stored,
        pixel_representation=int(picture.signed),
        photometric_interpretation=picture.photometric,
        planar_configuration=int(picture.planar),
        pixel_keyword="PixelData",
        pixel_vr="OB",
    )
    return plane, str(facts["photometric_interpretation"])


def _padding(elements: Elements, picture: Picture) -> int | None:
    """PixelPaddingValue where it reaches over the stored bits and no overlay lies there: one constant, which hides nothing."""
    raw = elements.raw(_PADDING)
    if picture.allocated != 16 or len(raw) != 2 or has_embedded_overlay(elements):
        return None
    return int(struct.unpack(elements.order + "H", raw)[0])


def darkest(plane: NDArray[np.integer], photometric: str, padding: NDArray[np.bool_] | None = None) -> int:
    """What boxes of one grey frame are filled with: its own darkest number (smallest; of MONOCHROME1 the largest), no padding.

    So no value appears that the scanner did not write, and no padding hides in a box. Reading and exporting use this one rule.

    Args:
        plane: the frame's stored numbers.
        photometric: PhotometricInterpretation.
        padding: where they are padding; where all are, padding is all there is.
    """
    measured = plane if padding is None or padding.all() else plane[~padding]
    return int(measured.max() if photometric == "MONOCHROME1" else measured.min())


def padding_range(elements: Elements, *, signed: bool) -> tuple[int, int] | None:
    """PixelPaddingValue to PixelPaddingRangeLimit of a CT (PS3.3 C.7.5.1.1.2), read with the pixels' own sign."""
    order: Literal["little", "big"] = "little" if elements.order == "<" else "big"
    raws = [elements.raw(tag) for tag in (_PADDING, _PADDING_LIMIT)]
    if text(elements, 0x00080060) != "CT" or len(raws[0]) != 2:
        return None
    values = [int.from_bytes(raw, order, signed=signed) for raw in raws if len(raw) == 2]
    return min(values), max(values)


def _blank(
    samples: _Samples,
    picture: Picture,
    photometric: str,
    boxes: Sequence[Box],
    *,
    padding: int | None = None,
    nothing: tuple[int, int] | None = None,
) -> None:
    """Clear the bits beside the stored ones, save those of padding, then make the boxes of each frame constant, in place."""
    padded = None if padding is None else samples == padding
    before = _within(samples, picture, nothing)
    _clear_beside(samples, picture)
    black = _black(samples, picture, photometric, before | _within(samples, picture, nothing)) if boxes else []
    if padded is not None and padding is not None:
        samples[padded] = padding
    for left, top, right, bottom in boxes:
        for frame, constant in zip(samples, black, strict=True):
            frame[top : bottom + 1, left : right + 1] = constant


def _numbers(samples: _Samples, picture: Picture) -> NDArray[np.integer]:
    return samples.view(samples.dtype.str.replace("u", "i")) if picture.signed else samples


def _within(samples: _Samples, picture: Picture, limits: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Where the numbers lie between two others."""
    if limits is None:
        return np.zeros(samples.shape, bool)
    numbers = _numbers(samples, picture)
    return np.asarray((numbers >= limits[0]) & (numbers <= limits[1]))


def _clear_beside(samples: _Samples, picture: Picture) -> None:
    if picture.stored == picture.allocated:
        return
    kind = samples.dtype.type
    samples &= kind(((1 << picture.stored) - 1) << (picture.high_bit + 1 - picture.stored))
    if picture.signed:
        above = ((1 << picture.allocated) - 1) ^ ((1 << (picture.high_bit + 1)) - 1)
        negative = (samples & kind(1 << picture.high_bit)) != 0
        samples[negative] |= kind(above)


def _black(samples: _Samples, picture: Picture, photometric: str, padding: NDArray[np.bool_]) -> list[_Samples]:
    """The constant of each frame, one number per sample."""
    if picture.samples == 3:
        middle = 1 << (picture.stored - 1)
        black = np.array([0, middle, middle] if photometric == "YBR_FULL" else [0, 0, 0], samples.dtype)
        return [black] * len(samples)
    numbers = _numbers(samples, picture)
    found = [darkest(frame, photometric, where) for frame, where in zip(numbers, padding, strict=True)]
    return [np.array([one], numbers.dtype).view(samples.dtype) for one in found]


def _replaced(data: bytes, elements: Elements, pixels: bytes) -> bytes:
    """The file with other pixel bytes of the same length."""
    place = elements.table[PIXEL_DATA]
    changed = b"".join((elements.data[: place.start], pixels, elements.data[place.end :]))
    if elements.syntax != DEFLATED:
        return changed
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(changed) + packer.flush()
    return data[: data_set_start(data)] + packed + b"\0" * (len(packed) % 2)


def _restored(data: bytes, elements: Elements, picture: Picture, samples: _Samples, photometric: str) -> bytes:
    """A compressed file, always Explicit VR Little Endian, with decoded pixels and the four elements that speak of the coding."""
    raw = samples.tobytes()
    raw += b"\0" * (len(raw) % 2)
    place = elements.table[PIXEL_DATA]
    vr = b"OW" if picture.allocated == 16 else b"OB"
    edits = [(place.start - 12, place.end + 8, struct.pack("<HH", 0x7FE0, 0x0010) + vr + struct.pack("<HI", 0, len(raw)) + raw)]
    edits += [_removal(elements.table[tag]) for tag in _OFFSET_TABLES if tag in elements.table]
    name = photometric.encode("ascii")
    name += b" " * (len(name) % 2)
    named = elements.table[_PHOTOMETRIC]
    written = struct.pack("<HH", 0x0028, 0x0004) + b"CS" + struct.pack("<H", len(name)) + name
    if picture.samples == 3 and _PLANAR not in elements.table:
        written += _planar_element()
    edits.append((_start(named), named.end, written))
    if picture.samples == 3 and _PLANAR in elements.table:
        edits.append((_start(elements.table[_PLANAR]), elements.table[_PLANAR].end, _planar_element()))
    start = data_set_start(data)
    return _new_meta(data[:start]) + _spliced(data, edits, start)


def _planar_element() -> bytes:
    return struct.pack("<HH", 0x0028, 0x0006) + b"US" + struct.pack("<HH", 2, 0)


def _removal(place: Element) -> tuple[int, int, bytes]:
    return _start(place), place.end, b""


def _start(place: Element) -> int:
    """Where the element's tag stands; compressed files are in explicit VR, so one that names no VR was written as UN."""
    return place.start - (12 if place.vr in {"", *LONG_VR_NAMES} else 8)


def _spliced(data: bytes, edits: Sequence[tuple[int, int, bytes]], start: int) -> bytes:
    """The data set with some of its parts exchanged."""
    parts, at = [], start
    for first, last, written in sorted(edits):
        parts += [data[at:first], written]
        at = last
    return b"".join((*parts, data[at:]))


def _new_meta(head: bytes) -> bytes:
    """Preamble and file meta information with the transfer syntax Explicit VR Little Endian and the group's new length."""
    parts, at = [head[:132]], 132
    while at < len(head):
        number, vr = struct.unpack_from("<H", head, at + 2)[0], head[at + 4 : at + 6].decode("ascii")
        long = vr in LONG_VR_NAMES
        length = struct.unpack_from("<I", head, at + 8)[0] if long else struct.unpack_from("<H", head, at + 6)[0]
        element = head[at : at + (12 if long else 8) + length]
        at += len(element)
        if 0x00020000 | number == _SYNTAX:
            element = element[:6] + struct.pack("<H", len(_EXPLICIT_LITTLE)) + _EXPLICIT_LITTLE
        parts.append(element)
    rest = sum(map(len, parts[1:]))
    for index, element in enumerate(parts[1:], 1):
        if element[:4] == struct.pack("<HH", 2, 0):
            parts[index] = element[:8] + struct.pack("<I", rest - len(element))
    return b"".join(parts)
