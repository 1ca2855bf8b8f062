"""Facts about the picture that name nobody, and marks by which one series divides into several volumes."""

import re
import sys
from datetime import date
from functools import lru_cache

from bedside.core.identity import Identity
from bedside.formats.deidentify_known import Known
from bedside.formats.deidentify_values import DUMMIES
from bedside.formats.dicom_elements import Elements
from bedside.formats.dicom_kinds import image_type
from bedside.formats.dicom_values import clean, name, number, text, words
from bedside.formats.face import face_of

Fact = tuple[str, str | float]

MARKS = ("stack", "image_type", "echo", "diffusion", "temporal_position", "acquisition", "trigger", "acquisition_time")
"""What may divide a series that has several images of each place, in the order in which it is tried."""
NUMERIC_MARKS = frozenset(MARKS) - {"stack", "image_type", "diffusion"}
"""Marks that order the volumes by their number; by the others they stay in the order in which the scanner numbered them."""
_MARK_TAGS: tuple[tuple[int, ...], ...] = (
    (0x00209056,),  # StackID
    (0x00089208, 0x0043102F),  # ComplexImageComponent; GE: magnitude, phase, real, imaginary
    (0x00189082, 0x00180081, 0x00180086),  # EffectiveEchoTime; EchoTime, EchoNumbers
    (
        *(0x00189087, 0x00189089),  # DiffusionBValue, DiffusionGradientOrientation
        *(0x0019100C, 0x0019100E),  # Siemens: b-value, direction
        *(0x00431039, 0x001910BB, 0x001910BC, 0x001910BD),  # GE: b-value, direction
        *(0x20011003, 0x200510B0, 0x200510B1, 0x200510B2),  # Philips: b-value, direction
    ),
    (0x00209128, 0x00200100, 0x0020930D),  # TemporalPositionIndex; TemporalPositionIdentifier; TemporalPositionTimeOffset
    (0x00209156, 0x00200012),  # FrameAcquisitionNumber; AcquisitionNumber
    (0x00209153, 0x00181060),  # NominalCardiacTriggerDelayTime; TriggerTime
    (0x00189074, 0x0008002A, 0x00080032),  # FrameAcquisitionDateTime; AcquisitionDateTime; AcquisitionTime
)
_MARKED = tuple((place, tag) for place, tags in enumerate(_MARK_TAGS) for tag in tags)
_BINARY_VRS = frozenset({"FD", "FL", "US", "UL", "SS", "SL"})
_OLDEST_YEARS = 90
_SEXES = {"M": "male", "F": "female", "O": "other"}
_NO_CONTRAST = frozenset({"no", "none", "n"})
_AGE_UNITS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


_NAME_TAGS = (0x00100010, 0x00101001, 0x00101005, 0x00080090)
"""PatientName, OtherPatientNames, PatientBirthName, ReferringPhysicianName."""
_CODE_TAGS = (0x00100020, 0x00101000, 0x00100030, 0x00080050)
"""PatientID, OtherPatientIDs, PatientBirthDate, AccessionNumber."""
_SHORT, _LONG = 16, 64
"""Most characters of CS and SH, and of LO (PS3.5 6.2)."""
_MOST_LETTERS = 1024
"""Of marks that are remembered."""
_LEAST_INSIDE = 5
"""A name or number of so many characters is looked for inside words too."""
_LONG_NUMBER = re.compile(r"\d{6}")


def marks(elements: Elements) -> tuple[str, ...]:
    """One text per entry of `MARKS`, "" where the file says nothing; only ever compared. Equal ones are mostly one object."""
    found, table = [""] * len(_MARK_TAGS), elements.table
    for place, tag in _MARKED:
        if tag in table and (mark := _mark(elements, tag)):
            found[place] = f"{found[place]}\\{mark}" if found[place] else mark
    found[1] = "\\".join(filter(None, (*image_type(elements), found[1])))
    return _one(tuple(found)) if sum(map(len, found)) <= _MOST_LETTERS else tuple(found)


@lru_cache(maxsize=1024)
def _one(found: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(sys.intern, found))


def _mark(elements: Elements, tag: int) -> str:
    """An element as text: numbers by what they say, so that `1` and `1.0` are one mark."""
    place = elements.table.get(tag)
    if place is None or place.end - place.start > 256:
        return ""
    if place.vr in _BINARY_VRS:
        width = 8 if place.vr == "FD" else 2 if place.vr in {"US", "SS"} else 4
        if place.end - place.start > width:
            return elements.raw(tag).hex()
        value = number(elements, tag) if place.vr not in {"SS", "SL"} else None
        return elements.raw(tag).hex() if value is None else f"{value:g}"
    return text(elements, tag)


def acquisition(elements: Elements, known: Known, normal: tuple[float, ...], identity: Identity | None) -> tuple[Fact, ...]:
    """What is known of the picture, by the keys of `core.dataset.ACQUISITION`, sorted.

    Args:
        elements: of one file or frame.
        known: what they say of the patient.
        normal: of its plane.
        identity: makes a stand-in for the institution's name, which is left out without one.
    """
    echo, hospital = number(elements, 0x00189082), name(elements, 0x00080080)
    contrast = words(elements, 0x00180010)
    facts: dict[str, str | float | None] = {
        "body_part": (label(elements, known, 0x00180015, _SHORT) or label(elements, known, 0x00080104)).lower(),
        "manufacturer": label(elements, known, 0x00080070).lower(),
        "model": label(elements, known, 0x00081090).lower(),
        "kernel": label(elements, known, 0x00181210, _SHORT).lower(),
        "kvp": number(elements, 0x00180060),
        "field_strength_t": number(elements, 0x00180087),
        "slice_thickness_mm": number(elements, 0x00180050),
        "plane": plane_of(normal),
        "sex": _SEXES.get(text(elements, 0x00100040), ""),
        "age_years": _age(elements),
        "echo_time_ms": number(elements, 0x00180081) if echo is None else echo,
        "repetition_time_ms": number(elements, 0x00180080),
        "contrast_agent": ("no" if contrast in _NO_CONTRAST else "yes") if contrast else "",
        "face": face_of(elements),
        "institution": identity.hidden(hospital)[:16] if identity and hospital else "",
    }
    return tuple(sorted((key, value) for key, value in facts.items() if value not in ("", None) and value is not None))


def plane_of(normal: tuple[float, ...]) -> str:
    """Say "sagittal", "coronal" or "axial" by the axis that the normal is within 30 degrees of, else "oblique"."""
    sizes = [abs(value) for value in normal]
    largest = max(sizes)
    return ("sagittal", "coronal", "axial")[sizes.index(largest)] if largest > 0.866 else "oblique"


def label(elements: Elements, known: Known, tag: int, most: int = _LONG) -> str:
    """A free text of the header that may stand in a dataset: the first value, cleaned; "" where it may name somebody.

    People write names and numbers into any field. So a text that is longer than its kind may be, is not plain ASCII, holds
    six digits in a row, is a dummy of de-identification, or what the same file says of its patient (part of the name, a number,
    date of birth) is left out.

    Args:
        elements: of one file or frame.
        known: what they say of the patient, from `said_of_patient`.
        tag: of the text.
        most: characters it may have.
    """
    value = text(elements, tag).partition("\\")[0].strip()
    if not value or value == DUMMIES["LO"] or len(value) > most or not value.isascii() or _LONG_NUMBER.search(value):
        return ""
    folded = value.casefold()
    inside = any(len(one) >= _LEAST_INSIDE and one in folded for one in (*known.words, *known.codes))
    return "" if inside or known.in_text(value) else clean(value)


def said_of_patient(elements: Elements) -> Known:
    """Names, numbers and dates that must not stand in another text."""
    return _known(tuple(name(elements, one) for one in _NAME_TAGS), tuple(name(elements, one) for one in _CODE_TAGS))


@lru_cache(maxsize=256)
def _known(names: tuple[str, ...], codes: tuple[str, ...]) -> Known:
    return Known.of(names, (code for value in codes for code in value.split("\\")), ())


def _age(elements: Elements) -> float | None:
    """Whole years at the time of the study from PatientAge, else from the two dates; 90 for everybody older."""
    said = text(elements, 0x00101010).upper()
    years = int(said[:-1]) * _AGE_UNITS[said[-1]] if said[:-1].isdecimal() and said[-1] in _AGE_UNITS else None
    born, then = _date(text(elements, 0x00100030)), _date(text(elements, 0x00080020))
    if years is None and born and then and then >= born:
        years = (then - born).days / 365.25
    return None if years is None else float(min(int(years), _OLDEST_YEARS))


def _date(value: str) -> date | None:
    digits = clean(value)
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if len(digits) == 8 and digits.isdecimal() else None
    except ValueError:
        return None
