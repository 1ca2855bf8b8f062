"""What kind of DICOM object a file is: CT and MR images go on, everything else is set aside under its own name."""

import re
from functools import lru_cache

from bedside.core.errors import InputRejected
from bedside.formats.dicom_elements import PIXEL_DATA, Elements
from bedside.formats.dicom_values import text

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SINGLE = {f"{_STORAGE}2": "CT", f"{_STORAGE}4": "MR"}
_MULTI = {f"{_STORAGE}2.1": "CT", f"{_STORAGE}2.2": "CT", f"{_STORAGE}4.1": "MR", f"{_STORAGE}4.4": "MR"}
"""Enhanced and legacy converted enhanced CT and MR (PS3.3 A.36, A.38, A.70, A.71)."""
_DIRECTORY = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE = f"{_STORAGE}7"
_NOT_IMAGES = tuple(
    _STORAGE + branch
    for branch in (
        "88",
        "104",
        "11",
        "66",
        "481.2",
        "481.3",
        "481.4",
        "481.5",
        "481.8",
        "481.9",
        "9",
        "4.2",
        "67",
        "68",
        "78",
        "79",
    )
)
"""Structured reports, encapsulated documents, presentation states, raw data and segmentations, dose grids, structure sets and
plans, waveforms, spectroscopy, value maps, surfaces and measurements."""
_SCREENS = frozenset({"SCREEN SAVE", "DOSE", "DOSE_INFO", "DOSE REPORT", "PROT", "CT_SOM5 PROT", "PATIENT PROTOCOL", "PROTOCOL"})
_SCREEN_TITLES = ("DOSE REPORT", "DOSE INFO", "PATIENT PROTOCOL", "SCREEN SAVE")
_REFORMAT = re.compile(
    r"(?<![A-Z0-9])(MPR|CPR|REFORMAT(TED)?|CURVED|M(AX|IN|N)?[ _]?IP|AV?IP|AVERAGE|PROJECTION IMAGE|VRT|SSD"
    r"|(VOLUME|SURFACE)[ _]RENDER(ED|ING)?)(?![A-Z0-9])|^PROJECTION$|(^| )3D( |$)"
)
"""In value 3 or a later one of a derived image's type (PS3.3 C.7.6.1.1.2 leaves what CT and MR write there to the maker)."""
_REFORMAT_TECHNIQUES = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "MPR", "CURVED_MPR"})
"""Volume Based Calculation Technique (PS3.3 C.8.16.2.1.3)."""

_MOST_LETTERS = 256
"""Of an ImageType that is remembered."""


def image_type(elements: Elements) -> tuple[str, ...]:
    """FrameType of a multi-frame image's frame, else ImageType, in capitals."""
    said = text(elements, 0x00089007) or text(elements, 0x00080008)
    return _parts(said) if len(said) <= _MOST_LETTERS else _parts.__wrapped__(said)


@lru_cache(maxsize=256)
def _parts(said: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in said.upper().split("\\"))


def modality_of(elements: Elements) -> tuple[str, bool]:
    """The modality, and whether the file holds frames with functional groups.

    Raises:
        InputRejected: DCM_DIRECTORY, DCM_NOT_AN_IMAGE, DCM_DOSE_SCREEN, DCM_SECONDARY_CAPTURE, DCM_TRUNCATED or DCM_MODALITY.
    """
    sop_class = text(elements, 0x00080016) or elements.sop_class
    _check_image(elements, sop_class)
    modality = _SINGLE.get(sop_class) or _MULTI.get(sop_class)
    named = text(elements, 0x00080060)
    if PIXEL_DATA not in elements.table and (modality or not sop_class):
        raise InputRejected("The file ends before its pixel data; fetch it again.", code="DCM_TRUNCATED")
    if modality is None or named != modality:
        raise InputRejected("This is no CT or MR image (SOP class and modality); only those are read.", code="DCM_MODALITY")
    return modality, sop_class in _MULTI


def _check_image(elements: Elements, sop_class: str) -> None:
    if sop_class == _DIRECTORY:
        raise InputRejected("This is a directory of other files (DICOMDIR), no image; it is set aside.", code="DCM_DIRECTORY")
    if any(sop_class == branch or sop_class.startswith(f"{branch}.") for branch in _NOT_IMAGES):
        raise InputRejected("This is a report, plan, contour or other object that is no image.", code="DCM_NOT_AN_IMAGE")
    title = text(elements, 0x0008103E).upper()
    if _SCREENS & set(image_type(elements)) or any(words in title for words in _SCREEN_TITLES):
        raise InputRejected("This is a picture of a dose report or a screen, no scan; it is set aside.", code="DCM_DOSE_SCREEN")
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}."):
        raise InputRejected("This is a secondary capture, not what a scanner measured.", code="DCM_SECONDARY_CAPTURE")


def check_kind(elements: Elements, *, framed: bool) -> None:
    """Refuse several frames without functional groups, mosaics and localizers.

    Raises:
        InputRejected: DCM_MULTIFRAME, DCM_MOSAIC or DCM_LOCALIZER.
    """
    kind = image_type(elements)
    if not framed and text(elements, 0x00280008) not in {"", "1"}:
        raise InputRejected(
            "The file holds several frames without saying where each lies; export it as single frames.", code="DCM_MULTIFRAME"
        )
    if "MOSAIC" in kind:
        raise InputRejected("The frame is a mosaic of many slices; export it as single slices.", code="DCM_MOSAIC")
    if {"LOCALIZER", "SCOUT", "TOPOGRAM"} & set(kind):
        raise InputRejected("This is a localizer, which is no slice of the volume; it is set aside.", code="DCM_LOCALIZER")


def derivation(kind: tuple[str, ...], technique: str = "") -> str:
    """Say how an image was computed from others.

    Args:
        kind: as `image_type` gives it.
        technique: VolumeBasedCalculationTechnique of a multi-frame image's frame, "" where it has none.

    Returns:
        "" for an original, "reformat" for a reformat, projection or rendering, "derived" for any other derived image: DERIVED and
        AXIAL is what many scanners and converters write for plain reconstructions.
    """
    if kind[0] != "DERIVED":
        return ""
    named = technique.upper() in _REFORMAT_TECHNIQUES or any(_REFORMAT.search(value) for value in kind[2:])
    return "reformat" if named else "derived"
