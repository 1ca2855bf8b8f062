"""Names burned into pixels: which files may carry them, and what a mask rule or a person's release makes of those (H2).

Only a short list of object kinds passes by itself: what a scanner reconstructs, measures or computes, with its modality beside
it. All other kinds wait in quarantine, also those that nobody has heard of. BurnedInAnnotation NO is believed of a kind that
passes anyway; it never lets a suspicious kind through, because screens and ultrasound systems write NO over names.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from bedside.core.deidentification import Deidentification, PixelMask
from bedside.core.digest import digest_bytes
from bedside.core.errors import InputRejected
from bedside.formats.burned_in_pixels import Box, Picture, blanked, has_embedded_overlay, picture_of
from bedside.formats.dicom_elements import PIXEL_DATA, Elements
from bedside.formats.dicom_kinds import image_type
from bedside.formats.dicom_values import text
from bedside.formats.gate import LIMITS, Limits

CODE = "PHI_PIXELS"
CLEAN_PIXEL_DATA = "113101"
"""Clean Pixel Data Option (PS3.16 CID 7050)."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLEAN: dict[str, frozenset[str]] = {
    **dict.fromkeys(("2", "2.1", "2.2"), frozenset({"CT"})),
    **dict.fromkeys(("4", "4.1", "4.4"), frozenset({"MR"})),
    **dict.fromkeys(("128", "128.1", "130"), frozenset({"PT"})),
    "20": frozenset({"NM"}),
    "30": frozenset({"CT", "MR", "PT", "NM", "OT"}),  # parametric map: numbers
    **dict.fromkeys(("66.4", "66.5", "66.7"), frozenset({"SEG"})),
    **dict.fromkeys(("66.1", "66.3"), frozenset({"REG"})),
    "66.2": frozenset({"FID"}),
    "67": frozenset({"RWV"}),
    "481.2": frozenset({"RTDOSE"}),
    "481.3": frozenset({"RTSTRUCT"}),
    **dict.fromkeys(("481.5", "481.8"), frozenset({"RTPLAN"})),
    **dict.fromkeys(("88.11", "88.22", "88.33", "88.34", "88.35", "88.67"), frozenset({"SR"})),
}
"""SOP classes without text in their pixels, with the modalities they may name. Reports are here because their text is the
header's matter: every word of it lies in data elements."""
_FLAGGED: dict[str, frozenset[str]] = {
    "1": frozenset({"CR"}),
    **dict.fromkeys(("1.1", "1.1.1"), frozenset({"DX", "PX"})),
    **dict.fromkeys(("1.2", "1.2.1"), frozenset({"MG"})),
    **dict.fromkeys(("1.3", "1.3.1"), frozenset({"IO"})),
    "13.1.3": frozenset({"MG"}),
}
"""Projection radiographs: they pass only with BurnedInAnnotation NO, because films and plates carry names."""
_DOCUMENTS = ("104",)
_DRAWINGS = ("11", "88.59", "1.27", "29")
_VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"
_SCREEN_TYPES = re.compile(r"SCREEN|CAPTURE|^DOSE|REPORT|PROTOCOL|\bPROT$")
_SCREEN_TITLES = re.compile(r"DOSE (REPORT|INFO)|PATIENT PROTOCOL|SCREEN ?(SAVE|CAPTURE|SHOT)")
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})


@dataclass(frozen=True)
class Examined:
    """What became of one file's pixels.

    Attributes:
        refusal: why the file waits in quarantine; None when it may go on.
        data: the Part 10 bytes to go on with: those that came in, or a copy whose pixels were changed. Header elements of the
            copy are the same, save those that describe the coding of pixels that had to be decoded. Walk it again.
        masked: boxes that are now constant, (first column, first row, last column, last row), in every frame.
        codes: of the method code sequence (0012,0064): 113101 when boxes were blanked.
        burned_in: what BurnedInAnnotation (0028,0301) is to say now, "" to leave it.
        notes: what was done, for the report; no value of the header.
    """

    refusal: InputRejected | None = None
    data: bytes = field(default=b"", repr=False)
    masked: tuple[Box, ...] = ()
    codes: tuple[str, ...] = ()
    burned_in: Literal["", "NO"] = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a study has decided about one file's pixels.

    Attributes:
        boxes: to make constant, (first column, first row, last column, last row).
        released: a person has looked at the file and found it free of names.
    """

    boxes: tuple[Box, ...] = ()
    released: bool = False


UNDECIDED = Decision()
"""Nothing was decided, and nothing had to be."""


def examine(data: bytes, elements: Elements, options: Deidentification, *, limits: Limits = LIMITS) -> Examined:
    """Decide about one file's pixels, and blank what a rule says.

    Args:
        data: the file as received; its SHA-256 is what `options.released` names.
        elements: the walk through it.
        options: the study's mask rules and releases.
        limits: the gate's.

    Returns:
        The decision. Nothing is raised: a refusal is part of the answer (PHI_PIXELS, or why pixels could not be blanked).
    """
    try:
        decision = decide(elements, options, digest_bytes(data) if options.released else "")
        if decision.boxes:
            return _masked(data, elements, decision.boxes, limits)
        cleaned = _without_overlay_bits(data, elements, limits)
    except InputRejected as refusal:
        return Examined(refusal=refusal)
    notes = ("a person released the pixels",) if decision.released else ()
    burned_in: Literal["", "NO"] = "NO" if decision.released else ""
    if cleaned is not None:
        return Examined(data=cleaned, burned_in=burned_in, notes=(*notes, "bits beside the pixels were cleared"))
    return Examined(data=data, burned_in=burned_in, notes=notes)


def decide(elements: Elements, options: Deidentification, digest: str) -> Decision:
    """Apply the study's releases and mask rules to one file; for an ingest as well as for an export.

    Args:
        elements: the walk through it.
        options: the study's mask rules and releases.
        digest: SHA-256 of the file as received; "" will do where nothing is released.

    Raises:
        InputRejected: PHI_PIXELS: its pixels may carry names, and nobody has decided about them.
    """
    released = digest in options.released
    problem = None if released else suspicion(elements)
    rules = [rule for rule in options.masks if PIXEL_DATA in elements.table and _fits(rule, elements)]
    boxes = tuple(dict.fromkeys(box for rule in rules for box in rule.boxes))
    if problem is not None and not (boxes and _is_picture(elements)):
        raise problem
    return Decision(boxes, released)


def check_inside(boxes: tuple[Box, ...], rows: int, columns: int) -> None:
    """Refuse boxes that are not of this image.

    Raises:
        InputRejected: PHI_PIXELS.
    """
    if any(right >= columns or bottom >= rows for _, _, right, bottom in boxes):
        raise InputRejected(
            "A mask rule that fits this file reaches beyond its image; give the rule its rows and columns.", code=CODE
        )


def suspicion(elements: Elements) -> InputRejected | None:
    """Why a file's pixels may carry names, None when nothing speaks for it. For slices of an ingest as well as for an export."""
    reason = _kind(elements) or _flag(elements) or _screen(elements)
    if not reason:
        return None
    return InputRejected(
        f"{reason}; blank it by a rule of source.deidentify.masks, or look at it and list its SHA-256 under"
        " source.deidentify.released.",
        code=CODE,
    )


def _kind(elements: Elements) -> str:
    """What is wrong with the kind of object, "" when it is one of those that pass."""
    sop_class = text(elements, 0x00080016) or elements.sop_class
    branch = sop_class.removeprefix(_STORAGE)
    allowed = _CLEAN.get(branch) or _FLAGGED.get(branch)
    if elements.syntax.startswith(_VIDEO_SYNTAXES):
        return "This is a video, which may show names"
    if allowed is not None and sop_class.startswith(_STORAGE):
        if text(elements, 0x00080060) in allowed:
            return ""
        return "SOP class and modality contradict each other, so it may be a stored screen"
    if _below(branch, _DOCUMENTS):
        return "This is an encapsulated document, which may carry names on its pages"
    if _below(branch, _DRAWINGS):
        return "This is a presentation or display object, which may carry names in what it draws"
    return (
        "Pixels of this kind of object (ultrasound, secondary capture, screen, fluoroscopy, photograph, unknown) may show names"
    )


def _below(branch: str, roots: tuple[str, ...]) -> bool:
    return any(branch == root or branch.startswith(f"{root}.") for root in roots)


def _flag(elements: Elements) -> str:
    """What BurnedInAnnotation says; any word but NO counts as YES."""
    said = text(elements, 0x00280301).upper()
    if said not in {"", "NO"}:
        return "The header says that names are burned into the pixels (BurnedInAnnotation)"
    branch = (text(elements, 0x00080016) or elements.sop_class).removeprefix(_STORAGE)
    if not said and branch in _FLAGGED:
        return "A radiograph without BurnedInAnnotation NO may show names"
    return ""


def _screen(elements: Elements) -> str:
    """Screens and captures that are saved under a scanner's own SOP class."""
    if PIXEL_DATA not in elements.table:
        return ""
    titles = " ".join(text(elements, tag).upper() for tag in (0x0008103E, 0x00181030))
    if any(_SCREEN_TYPES.search(part) for part in image_type(elements)) or _SCREEN_TITLES.search(titles):
        return "This is a picture of a screen or a dose report"
    if text(elements, 0x00080064).upper() not in {"", "SYN"}:
        return "This image was converted from a screen, film or file (ConversionType)"
    if text(elements, 0x00280004) not in _GREY:
        return "This is a colour image under a scanner's SOP class, so it may be a stored screen"
    return ""


def _is_picture(elements: Elements) -> bool:
    """Whether blanking pixels can take away what is suspicious: not for documents, drawings and video."""
    branch = (text(elements, 0x00080016) or elements.sop_class).removeprefix(_STORAGE)
    return not _below(branch, (*_DOCUMENTS, *_DRAWINGS)) and not elements.syntax.startswith(_VIDEO_SYNTAXES)


def _fits(rule: PixelMask, elements: Elements) -> bool:
    """Whether every criterion that the rule gives holds."""
    named = ((rule.modality, 0x00080060), (rule.manufacturer, 0x00080070), (rule.model, 0x00081090))
    if any(wanted is not None and wanted.strip().upper() != text(elements, tag).upper() for wanted, tag in named):
        return False
    sizes = ((rule.rows, 0x00280010), (rule.columns, 0x00280011))
    order: Literal["little", "big"] = "little" if elements.order == "<" else "big"
    return all(wanted is None or wanted == int.from_bytes(elements.raw(tag)[:2], order) for wanted, tag in sizes)


def _masked(data: bytes, elements: Elements, boxes: tuple[Box, ...], limits: Limits) -> Examined:
    picture = picture_of(elements, limits)
    check_inside(boxes, picture.rows, picture.columns)
    result = blanked(data, elements, picture, boxes)
    notes = (f"{len(boxes)} boxes were blanked", *_about_decoding(picture))
    return Examined(data=result, masked=boxes, codes=(CLEAN_PIXEL_DATA,), burned_in="NO", notes=notes)


def _about_decoding(picture: Picture) -> tuple[str, ...]:
    if picture.native:
        return ()
    lost = "; they were compressed with loss before" if picture.lossy else ""
    return (f"pixels were decoded by {picture.decoder} and are stored uncompressed{lost}",)


def _without_overlay_bits(data: bytes, elements: Elements, limits: Limits) -> bytes | None:
    """The file with bits beside the stored ones cleared; None when there is nothing to clear.

    Of compressed pixels they are looked at only when an overlay is declared to lie there (PS3.3 C.9.2, retired since 2004).
    """
    if PIXEL_DATA not in elements.table:
        return None
    declared = has_embedded_overlay(elements)
    if elements.table[PIXEL_DATA].encapsulated and not declared:
        return None
    stored, allocated = (elements.raw(tag) for tag in (0x00280101, 0x00280100))
    if stored == allocated and not declared:
        return None
    result = blanked(data, elements, picture_of(elements, limits), ())
    return None if result is data else result
