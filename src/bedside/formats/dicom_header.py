"""What one received file says of itself: a frozen `Header`, or the reason why it is refused. No pixel is touched."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import AllTransferSyntaxes

from bedside.core.errors import InputRejected
from bedside.formats.dicom_codestream import check_frame
from bedside.formats.dicom_elements import PIXEL_DATA, Elements, walk
from bedside.formats.gate import LIMITS, Limits

ENCAPSULATED = {
    "1.2.840.10008.1.2.5": "RLELossless",
    "1.2.840.10008.1.2.4.90": "JPEG2000Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG2000",
    "1.2.840.10008.1.2.4.201": "HTJ2KLossless",
    "1.2.840.10008.1.2.4.202": "HTJ2KLosslessRPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
"""Compressed transfer syntaxes with a decoder that comes with bedside."""
NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
_SYNTAX_KEYWORDS = {str(uid): uid.keyword for uid in AllTransferSyntaxes}
_CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
_MULTIFRAME_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.3",
    "1.2.840.10008.5.1.4.1.1.4.4",
}
_DECIMAL_BYTES = frozenset(b"0123456789+-.eE\\ \0")
_COSINE_TOLERANCE = 1e-4
"""How far the row and column directions may be from unit length and from a right angle: 0.05 mm across a 500 mm field."""


@dataclass(frozen=True, eq=False, repr=False)
class Header:
    """One slice, as its header describes it. It has no repr: that would carry the patient into logs.

    Attributes:
        sop_uid, frame_uid, patient_id: as received; an emptied SOPInstanceUID is taken from the file meta information.
        syntax: TransferSyntaxUID.
        modality: "CT" or "MR".
        image_type: ImageType's values.
        scanner: cleaned manufacturer and model.
        rows, columns, bits_allocated, bits_stored: of the pixels.
        signed: PixelRepresentation 1.
        photometric: MONOCHROME1 or MONOCHROME2.
        position_mm: (3,) centre of the first pixel, LPS.
        row_direction: (3,) LPS unit vector along which the column index grows.
        column_direction: (3,) LPS unit vector along which the row index grows.
        spacing_mm: between rows, between columns (PixelSpacing's own order).
        slope, intercept: of the rescale; 1 and 0 for MR without one.
        pixels: where PixelData's value starts and ends in the (inflated) file.
        pixel_vr: its value representation, "OB" or "OW".
    """

    sop_uid: str
    frame_uid: str
    patient_id: str
    syntax: str
    modality: str
    image_type: tuple[str, ...]
    scanner: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    position_mm: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    slope: float
    intercept: float
    pixels: tuple[int, int]
    pixel_vr: str

    @property
    def compressed(self) -> bool:
        """Whether the pixels need a decoder."""
        return self.syntax in ENCAPSULATED


@dataclass(frozen=True)
class Inspection:
    """Result of looking at one file: exactly one of `header` and `problem` is there.

    Attributes:
        series: what its slices are grouped by: SeriesInstanceUID, or "frame " and the FrameOfReferenceUID where a
            de-identification has emptied it; "" when the file could not be read that far.
        header: of a sound file.
        problem: why the file is refused.
    """

    series: str
    header: Header | None = None
    problem: InputRejected | None = None


def inspect(data: bytes, *, limits: Limits = LIMITS) -> Inspection:
    """Look at one received file. Nothing is raised: a refusal is part of the answer, with the series it belongs to."""
    elements = Elements()
    try:
        walk(data, elements, limits=limits)
        header = _header(elements, limits)
        return Inspection(_series(elements), header=header)
    except InputRejected as problem:
        return Inspection(_series(elements), problem=problem)


def _series(elements: Elements) -> str:
    frame_uid = _text(elements, 0x00200052)
    return _text(elements, 0x0020000E) or (f"frame {frame_uid}" if frame_uid else "")


def dataset_bytes(data: bytes, *, limits: Limits = LIMITS) -> bytes:
    """The bytes that `Header.pixels` counts in: the file itself, or its inflated data set."""
    elements = Elements()
    walk(data, elements, limits=limits)
    return elements.data


def _header(elements: Elements, limits: Limits) -> Header:
    modality = _modality(elements)
    _check_syntax(elements.syntax)
    image_type = tuple(part.strip() for part in _text(elements, 0x00080008).upper().split("\\"))
    _check_kind(elements, image_type)
    rows, columns, bits_allocated, bits_stored = _pixel_shape(elements, limits)
    row_direction, column_direction = _directions(elements)
    slope, intercept = _rescale(elements, modality)
    pixels = _pixel_place(elements, rows * columns * bits_allocated // 8)
    if elements.syntax in ENCAPSULATED:
        check_frame(elements.data[slice(*pixels)], elements.syntax, rows, columns, bits_allocated=bits_allocated)
    return Header(
        sop_uid=_uid(_text(elements, 0x00080018) or elements.sop_uid, "SOPInstanceUID"),
        frame_uid=_frame(elements),
        patient_id=_text(elements, 0x00100020),
        syntax=elements.syntax,
        modality=modality,
        image_type=image_type,
        scanner=_clean(f"{_text(elements, 0x00080070)} {_text(elements, 0x00081090)}"),
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=_integer(elements, 0x00280103, "PixelRepresentation", {0, 1}) == 1,
        photometric=_text(elements, 0x00280004),
        position_mm=np.array(_numbers(elements, 0x00200032, 3, "ImagePositionPatient")),
        row_direction=row_direction,
        column_direction=column_direction,
        spacing_mm=_spacing(elements),
        slope=slope,
        intercept=intercept,
        pixels=pixels,
        pixel_vr=elements.table[PIXEL_DATA].vr or "OW",
    )


def _modality(elements: Elements) -> str:
    sop_class = _text(elements, 0x00080016) or elements.sop_class
    if sop_class in _MULTIFRAME_CLASSES:
        raise InputRejected("This is an enhanced multi-frame image; export it as single frames.", code="DCM_MULTIFRAME")
    modality = _CLASSES.get(sop_class)
    named = _text(elements, 0x00080060)
    if PIXEL_DATA not in elements.table and (modality or not sop_class):
        raise InputRejected("The file ends before its pixel data; fetch it again.", code="DCM_TRUNCATED")
    if modality is None or named != modality:
        raise InputRejected("This is no CT or MR image (SOP class and modality); only those are read.", code="DCM_MODALITY")
    return modality


def _check_syntax(syntax: str) -> None:
    if syntax in NATIVE or syntax in ENCAPSULATED:
        return
    name = _SYNTAX_KEYWORDS.get(syntax, "an unknown transfer syntax")
    raise InputRejected(
        f"The pixels are stored as {name}, for which there is no decoder here; decompress them.", code="DCM_SYNTAX"
    )


def _check_kind(elements: Elements, image_type: tuple[str, ...]) -> None:
    frames = _text(elements, 0x00280008)
    if frames not in {"", "1"}:
        raise InputRejected("The file holds several frames; export it as single frames.", code="DCM_MULTIFRAME")
    if "MOSAIC" in image_type:
        raise InputRejected("The frame is a mosaic of many slices; export it as single slices.", code="DCM_MOSAIC")
    if {"LOCALIZER", "SCOUT", "TOPOGRAM"} & set(image_type):
        raise InputRejected("This is a localizer, which is no slice of the volume; it is set aside.", code="DCM_LOCALIZER")


def _pixel_shape(elements: Elements, limits: Limits) -> tuple[int, int, int, int]:
    """Rows, columns, bits allocated and stored (PS3.3 C.7.6.3), checked before anything is allocated."""
    rows = _integer(elements, 0x00280010, "Rows", range(1, 65536))
    columns = _integer(elements, 0x00280011, "Columns", range(1, 65536))
    _integer(elements, 0x00280002, "SamplesPerPixel", {1})
    allocated = _integer(elements, 0x00280100, "BitsAllocated", {8, 16})
    stored = _integer(elements, 0x00280101, "BitsStored", range(1, allocated + 1))
    _integer(elements, 0x00280102, "HighBit", {stored - 1})
    if _text(elements, 0x00280004) not in {"MONOCHROME1", "MONOCHROME2"}:
        raise InputRejected("The pixels are not grey values (PhotometricInterpretation).", code="DCM_GEOMETRY")
    if rows * columns > limits.max_voxels:
        raise InputRejected(
            f"The header asks for {rows * columns} pixels; at most {limits.max_voxels} are allowed.", code="DCM_GEOMETRY"
        )
    return rows, columns, allocated, stored


def _pixel_place(elements: Elements, expected_bytes: int) -> tuple[int, int]:
    """Where the pixels are; uncompressed ones must have exactly the length that the header promises (and one pad byte)."""
    place = elements.table[PIXEL_DATA]
    if place.encapsulated != (elements.syntax in ENCAPSULATED):
        raise InputRejected("Pixel data and transfer syntax contradict each other.", code="DCM_STRUCTURE")
    if not place.encapsulated:
        length = place.end - place.start
        if length < expected_bytes:
            raise InputRejected(
                f"The pixel data has {length} bytes, the header asks for {expected_bytes}; fetch the file again.",
                code="DCM_TRUNCATED",
            )
        if length > expected_bytes + expected_bytes % 2:
            raise InputRejected(
                f"The pixel data has {length} bytes, the header accounts for {expected_bytes}; they do not belong together.",
                code="DCM_GEOMETRY",
            )
    return place.start, place.end


def _directions(elements: Elements) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The row and column directions, made exactly unit length."""
    cosines = np.array(_numbers(elements, 0x00200037, 6, "ImageOrientationPatient")).reshape(2, 3)
    if np.abs(cosines @ cosines.T - np.eye(2)).max() > _COSINE_TOLERANCE:
        raise InputRejected("The row and column directions are not perpendicular unit vectors.", code="DCM_GEOMETRY")
    cosines /= np.linalg.norm(cosines, axis=1, keepdims=True)
    return cosines[0], cosines[1]


def _spacing(elements: Elements) -> tuple[float, float]:
    between_rows, between_columns = _numbers(elements, 0x00280030, 2, "PixelSpacing")
    if min(between_rows, between_columns) <= 0:
        raise InputRejected("PixelSpacing is not positive.", code="DCM_GEOMETRY")
    return between_rows, between_columns


def _rescale(elements: Elements, modality: str) -> tuple[float, float]:
    """Slope and intercept (PS3.3 C.11.1); a CT without them, or with another unit than HU, has no known values."""
    if 0x00283000 in elements.table:
        raise InputRejected("The values go through a lookup table; only a linear rescale is read.", code="DCM_RESCALE")
    if modality == "MR" and 0x00281052 not in elements.table and 0x00281053 not in elements.table:
        return 1.0, 0.0
    if _text(elements, 0x00281054) not in {"", "HU"} and modality == "CT":
        raise InputRejected("The CT's values are not Hounsfield units (RescaleType).", code="DCM_RESCALE")
    intercept = _numbers(elements, 0x00281052, 1, "RescaleIntercept", code="DCM_RESCALE")[0]
    slope = _numbers(elements, 0x00281053, 1, "RescaleSlope", code="DCM_RESCALE")[0]
    if slope == 0:
        raise InputRejected("RescaleSlope is 0, which makes all values equal.", code="DCM_RESCALE")
    return slope, intercept


def _text(elements: Elements, tag: int) -> str:
    """A text value without padding; UTF-8 where it is that, else Latin-1 (what is compared are equal bytes, not letters)."""
    raw = elements.raw(tag).strip(b"\0 ")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _uid(value: str, name: str) -> str:
    if not value or len(value) > 64 or set(value) - set("0123456789."):
        raise InputRejected(f"{name} is missing or no UID.", code="DCM_UID")
    return value


def _frame(elements: Elements) -> str:
    """FrameOfReferenceUID, without which an emptied SeriesInstanceUID leaves nothing to group by."""
    series_uid, frame_uid = _text(elements, 0x0020000E), _text(elements, 0x00200052)
    if frame_uid:
        _uid(frame_uid, "FrameOfReferenceUID")
    if series_uid or not frame_uid:
        _uid(series_uid, "SeriesInstanceUID")
    return frame_uid


def _integer(elements: Elements, tag: int, name: str, allowed: range | set[int]) -> int:
    """An unsigned short (US) within what is allowed."""
    raw, place = elements.raw(tag), elements.table.get(tag)
    if place is None or place.vr not in {"US", ""} or len(raw) != 2:
        raise InputRejected(f"{name} is missing or no 16-bit number.", code="DCM_GEOMETRY")
    value = int(struct.unpack(elements.order + "H", raw)[0])
    if value not in allowed:
        raise InputRejected(f"{name} has a value that no CT or MR slice read here can have.", code="DCM_GEOMETRY")
    return value


def _numbers(elements: Elements, tag: int, count: int, name: str, *, code: str = "DCM_GEOMETRY") -> tuple[float, ...]:
    """Decimal strings (DS), all of them finite."""
    fault = InputRejected(f"{name} is not {count} finite number{'s' if count > 1 else ''}.", code=code)
    raw, place = elements.raw(tag), elements.table.get(tag)
    if place is None or place.vr not in {"DS", ""} or len(raw) > 256:
        raise fault
    if set(raw) - _DECIMAL_BYTES:
        raise fault
    try:
        values = tuple(float(part) for part in raw.decode("ascii").strip("\0 ").split("\\"))
    except ValueError:
        raise fault from None
    if len(values) != count or not all(abs(value) < 1e9 for value in values):
        raise fault
    return values


def _clean(text: str) -> str:
    """Letters, digits, dots, dashes and single spaces, at most 64: safe in tables and file names of reports."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in ".-") else " " for letter in text)
    return " ".join(kept.split())[:64].strip()
