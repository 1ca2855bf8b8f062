"""What one received file says of itself: a frozen `Header` per frame, or the reason why it is refused. No pixel is touched."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import NamedTuple

from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_bytes
from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.burned_in import UNDECIDED, Decision, check_inside, decide
from bedside.formats.burned_in_pixels import padding_range
from bedside.formats.deidentify_seal import already
from bedside.formats.dicom_alike import Alike
from bedside.formats.dicom_codestream import check_frame
from bedside.formats.dicom_deflated import walk_headers
from bedside.formats.dicom_elements import PIXEL_DATA, Elements, walk
from bedside.formats.dicom_facts import Fact, acquisition, label, marks, said_of_patient
from bedside.formats.dicom_fragments import frame_places
from bedside.formats.dicom_kinds import check_kind, derivation, image_type, modality_of
from bedside.formats.dicom_syntax import BIG_ENDIAN, NATIVE, check_syntax
from bedside.formats.dicom_values import clean, integer, name, numbers, text, uid
from bedside.formats.gate import LIMITS, Content, Limits, forget

Vector = tuple[float, float, float]

_COSINE_TOLERANCE = 1e-4
"""How far the row and column directions may be from unit length and from a right angle: 0.05 mm across a 500 mm field."""
_MOST_FRAMES = 1 << 16
_MOST_LOOKS = 1 << 26
"""Frames times elements beside them: what an image of so many says is looked at once per frame."""
NOTHING_DECIDED = Deidentification()
"""No mask rule and no release: files whose pixels may carry names are refused."""
_TECHNIQUE = 0x00089207
_FACT_TAGS = (
    *(0x00200037, 0x00280030, 0x00089007, _TECHNIQUE, 0x00180050, 0x00189082, 0x00181210, 0x00180060, 0x00281054, 0x00080104),
)
"""What may differ from frame to frame and is part of `Facts`."""


@dataclass(frozen=True, repr=False)
class Facts:
    """What the slices of a volume have in common; one object serves all of them. It has no repr, like `Header`.

    Attributes:
        frame_uid, patient_id, issuer: as received; PatientID and IssuerOfPatientID in one normal form of their letters.
        syntax: TransferSyntaxUID.
        modality: "CT" or "MR".
        derived: "" for an original, "reformat" or "derived".
        scanner: cleaned manufacturer and model.
        rows, columns, bits_allocated, bits_stored: of the pixels.
        signed: PixelRepresentation 1.
        photometric: MONOCHROME1 or MONOCHROME2. Values are kept as stored for both: MONOCHROME1 says only that a display shows
            the smallest as white (PS3.3 C.7.6.3.1.2).
        row_direction: LPS unit vector along which the column index grows.
        column_direction: LPS unit vector along which the row index grows.
        spacing_mm: between rows, between columns (PixelSpacing's own order).
        padding: smallest and largest stored number that stands for "nothing was measured here", of a CT.
        pixel_vr: value representation of PixelData, "OB" or "OW".
        acquisition: what is known of the picture, as `Found.acquisition`.
        sealed: whether the file was de-identified here with this key, so that `patient_id` is a pseudonym already.
        decision: what the study has decided about names in the pixels; its boxes are blanked when they are decoded.
        preamble: what the file's preamble begins, see `dicom_preamble.preamble_of`.
    """

    frame_uid: str
    patient_id: str
    issuer: str
    syntax: str
    modality: str
    derived: str
    scanner: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    row_direction: Vector
    column_direction: Vector
    spacing_mm: tuple[float, float]
    padding: tuple[int, int] | None
    pixel_vr: str
    acquisition: tuple[Fact, ...]
    sealed: bool = False
    decision: Decision = UNDECIDED
    preamble: str = ""

    @property
    def normal(self) -> Vector:
        """Of the slices' plane: row direction x column direction."""
        (a, b, c), (d, e, f) = self.row_direction, self.column_direction
        return b * f - c * e, c * d - a * f, a * e - b * d


@dataclass(frozen=True, eq=False, repr=False)
class Header:
    """One slice, as its file describes it. It has no repr: that would carry the patient into logs.

    Attributes:
        sop_uid: as received; an emptied SOPInstanceUID is taken from the file meta information.
        facts: what it shares with the other slices.
        position_mm: centre of the first pixel, LPS.
        slope, intercept: of the rescale; 1 and 0 for MR without one.
        pixels: where the frame's bytes start and end in the (inflated) file; for compressed ones with their item tags.
        marks: by which a series divides, see `dicom_facts.MARKS`.
        instance: InstanceNumber, 0 when unknown. It never orders slices in space.
        frame: number of the frame in its file, from 0.
        frames: how many the file holds.
    """

    sop_uid: str
    facts: Facts
    position_mm: Vector
    slope: float
    intercept: float
    pixels: tuple[int, int]
    marks: tuple[str, ...]
    instance: int
    frame: int = 0
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of looking at one file: it has headers or a problem.

    Attributes:
        series: what its slices are grouped by: SeriesInstanceUID, or "frame " and the FrameOfReferenceUID where a
            de-identification has emptied it; "" when the file could not be read that far.
        headers: of a sound file, one per frame.
        problem: why the file is refused.
    """

    series: str
    headers: tuple[Header, ...] = field(default=(), repr=False)
    problem: InputRejected | None = None

    @property
    def header(self) -> Header | None:
        """The first frame's."""
        return self.headers[0] if self.headers else None


@dataclass(frozen=True)
class _Asked:
    """What `inspect` was asked; the digest only where a release may name it."""

    limits: Limits
    identity: Identity | None
    pixels: Deidentification
    digest: str


class _Kind(NamedTuple):
    """What is asked of a file before its frames are looked at: the shape is rows, columns, bits allocated, bits stored."""

    modality: str
    framed: bool
    shape: tuple[int, int, int, int]
    decision: Decision


def inspect(
    data: Content,
    *,
    limits: Limits = LIMITS,
    identity: Identity | None = None,
    pixels: Deidentification = NOTHING_DECIDED,
    digest: str = "",
) -> Inspection:
    """Look at one received file. Nothing is raised: a refusal is part of the answer, with the series it belongs to.

    Args:
        data: the file.
        limits: the gate's.
        identity: makes a stand-in for the institution's name; without one it is left out.
        pixels: the study's decisions about names in pixels.
        digest: SHA-256 of the file, where it is known already.
    """
    elements = Elements()
    asked = _Asked(limits, identity, pixels, (digest or digest_bytes(data[:])) if pixels.released else "")
    try:
        walk_headers(data, elements, limits=limits)
        return Inspection(_series(elements), _headers(elements, asked))
    except InputRejected as problem:
        return Inspection(_series(elements), problem=problem)


def _series(elements: Elements) -> str:
    frame_uid = text(elements, 0x00200052)
    return text(elements, 0x0020000E) or (f"frame {frame_uid}" if frame_uid else "")


def dataset_bytes(data: bytes, *, limits: Limits = LIMITS) -> bytes:
    """The bytes that `Header.pixels` counts in: the file itself, or its inflated data set."""
    elements = Elements()
    walk(data, elements, limits=limits)
    return bytes(elements.data[:])


def _headers(elements: Elements, asked: _Asked) -> tuple[Header, ...]:
    """One header per frame; what the frames share is looked at once."""
    kind = _kind(elements, asked) if asked.pixels.released else _KIND(elements, asked)
    modality, framed, shape, _ = kind
    rows, columns, bits_allocated, _ = shape
    count = _count(elements) if framed else 1
    if elements.syntax == BIG_ENDIAN and bits_allocated == 8 and count > 1:
        raise InputRejected("Frames of 8 bits in big endian words are not read; export single frames.", code="DCM_SYNTAX")
    places = frame_places(elements, count, rows * columns * bits_allocated // 8)
    if elements.syntax not in NATIVE:
        for first, last in places:
            check_frame(elements.data[first:last], elements.syntax, rows, columns, bits_allocated=bits_allocated)
            forget(elements.data)
    sop_uid = uid(text(elements, 0x00080018) or elements.sop_uid, "SOPInstanceUID")
    number = text(elements, 0x00200013)
    instance = int(number) if number.isdecimal() and len(number) < 12 else 0
    known: dict[tuple[bytes, ...], Facts] = {}
    headers = []
    for frame, (view, pixels) in enumerate(zip(_views(elements) if framed else [elements], places, strict=True)):
        key = tuple(view.raw(tag) for tag in _FACT_TAGS) if framed else ()
        if key not in known:
            known[key] = _FACTS(view, (kind, asked.identity))
        slope, intercept = _rescale(view, modality)
        position = numbers(view, 0x00200032, 3, "ImagePositionPatient")
        headers.append(
            Header(
                sop_uid=sop_uid,
                facts=known[key],
                position_mm=(position[0], position[1], position[2]),
                slope=slope,
                intercept=intercept,
                pixels=pixels,
                marks=marks(view),
                instance=instance,
                frame=frame,
                frames=count,
            )
        )
    return tuple(headers)


def _kind(elements: Elements, asked: _Asked) -> _Kind:
    """What kind of image the file holds, and how large its frames are."""
    modality, framed = modality_of(elements)
    check_syntax(elements.syntax)
    check_kind(elements, framed=framed)
    shape = _pixel_shape(elements, asked.limits)
    decision = decide(elements, asked.pixels, asked.digest)
    check_inside(decision.boxes, *shape[:2])
    return _Kind(modality, framed, shape, decision)


def _count(elements: Elements) -> int:
    """NumberOfFrames, which must be the number of items in the per-frame functional groups."""
    said = text(elements, 0x00280008)
    count = int(said) if said.isdecimal() and len(said) < 8 else 0
    if not 1 <= count <= _MOST_FRAMES or len(elements.frames) != count:
        raise InputRejected(
            "The number of frames and their functional groups contradict each other; fetch the file again.", code="DCM_MULTIFRAME"
        )
    if count * len(elements.table) > _MOST_LOOKS:
        raise InputRejected(
            f"The file holds {len(elements.table)} data elements beside {count} frames; export it as single frames.",
            code="DCM_ELEMENTS",
        )
    return count


def _views(elements: Elements) -> Iterator[Elements]:
    """Each frame's elements: its own functional groups go before the shared ones, those before the data set (PS3.3 C.7.6.16)."""
    root = {**elements.table, **elements.shared}
    for frame in elements.frames:
        yield replace(elements, table={**root, **frame})


def _facts(elements: Elements, known: tuple[_Kind, Identity | None]) -> Facts:
    (modality, _, (rows, columns, bits_allocated, bits_stored), decision), identity = known
    row_direction, column_direction = _directions(elements)
    signed = integer(elements, 0x00280103, "PixelRepresentation", {0, 1}) == 1
    patient = said_of_patient(elements)
    facts = Facts(
        frame_uid=_frame(elements),
        patient_id=name(elements, 0x00100020),
        issuer=name(elements, 0x00100021),
        syntax=elements.syntax,
        modality=modality,
        derived=derivation(image_type(elements), text(elements, _TECHNIQUE)),
        scanner=clean(f"{label(elements, patient, 0x00080070)} {label(elements, patient, 0x00081090)}"),
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=signed,
        photometric=text(elements, 0x00280004),
        row_direction=row_direction,
        column_direction=column_direction,
        spacing_mm=_spacing(elements),
        padding=padding_range(elements, signed=signed),
        pixel_vr=elements.table[PIXEL_DATA].vr or "OW",
        acquisition=(),
        sealed=identity is not None and already(elements, identity),
        decision=decision,
        preamble=elements.preamble,
    )
    return replace(facts, acquisition=acquisition(elements, patient, facts.normal, identity))


_KIND, _FACTS = Alike(_kind), Alike(_facts)
"""Both, worked out once for all files that say the same."""


def _pixel_shape(elements: Elements, limits: Limits) -> tuple[int, int, int, int]:
    """Rows, columns, bits allocated and stored (PS3.3 C.7.6.3), checked before anything is allocated."""
    rows = integer(elements, 0x00280010, "Rows", range(1, 65536))
    columns = integer(elements, 0x00280011, "Columns", range(1, 65536))
    integer(elements, 0x00280002, "SamplesPerPixel", {1})
    allocated = integer(elements, 0x00280100, "BitsAllocated", {8, 16})
    stored = integer(elements, 0x00280101, "BitsStored", range(1, allocated + 1))
    integer(elements, 0x00280102, "HighBit", {stored - 1})
    if text(elements, 0x00280004) not in {"MONOCHROME1", "MONOCHROME2"}:
        raise InputRejected("The pixels are not grey values (PhotometricInterpretation).", code="DCM_GEOMETRY")
    if rows * columns > limits.max_voxels:
        raise InputRejected(
            f"The header asks for {rows * columns} pixels; at most {limits.max_voxels} are allowed.", code="DCM_GEOMETRY"
        )
    return rows, columns, allocated, stored


def _directions(elements: Elements) -> tuple[Vector, Vector]:
    """The row and column directions, made exactly unit length."""
    a, b, c, d, e, f = numbers(elements, 0x00200037, 6, "ImageOrientationPatient")
    lengths = a * a + b * b + c * c, d * d + e * e + f * f
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(a * d + b * e + c * f)) > _COSINE_TOLERANCE:
        raise InputRejected("The row and column directions are not perpendicular unit vectors.", code="DCM_GEOMETRY")
    first, second = sqrt(lengths[0]), sqrt(lengths[1])
    return (a / first, b / first, c / first), (d / second, e / second, f / second)


def _spacing(elements: Elements) -> tuple[float, float]:
    between_rows, between_columns = numbers(elements, 0x00280030, 2, "PixelSpacing")
    if min(between_rows, between_columns) <= 0:
        raise InputRejected("PixelSpacing is not positive.", code="DCM_GEOMETRY")
    return between_rows, between_columns


def _rescale(elements: Elements, modality: str) -> tuple[float, float]:
    """Slope and intercept (PS3.3 C.11.1); a CT without them, or with another unit than HU, has no known values."""
    if 0x00283000 in elements.table:
        raise InputRejected("The values go through a lookup table; only a linear rescale is read.", code="DCM_RESCALE")
    if modality == "MR" and 0x00281052 not in elements.table and 0x00281053 not in elements.table:
        return 1.0, 0.0
    if text(elements, 0x00281054) not in {"", "HU"} and modality == "CT":
        raise InputRejected("The CT's values are not Hounsfield units (RescaleType).", code="DCM_RESCALE")
    intercept = numbers(elements, 0x00281052, 1, "RescaleIntercept", code="DCM_RESCALE")[0]
    slope = numbers(elements, 0x00281053, 1, "RescaleSlope", code="DCM_RESCALE")[0]
    if slope == 0:
        raise InputRejected("RescaleSlope is 0, which makes all values equal.", code="DCM_RESCALE")
    return slope, intercept


def _frame(elements: Elements) -> str:
    """FrameOfReferenceUID, without which an emptied SeriesInstanceUID leaves nothing to group by."""
    series_uid, frame_uid = text(elements, 0x0020000E), text(elements, 0x00200052)
    if frame_uid:
        uid(frame_uid, "FrameOfReferenceUID")
    if series_uid or not frame_uid:
        uid(series_uid, "SeriesInstanceUID")
    return frame_uid
