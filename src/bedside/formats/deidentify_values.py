"""What de-identification does to single values: dummies of each VR, shifted dates, capped ages, words of a fixed list."""

import json
import re
from datetime import date, timedelta
from functools import lru_cache
from importlib.resources import files

DUMMIES: dict[str, str | int | float | bytes] = {
    "AE": "REMOVED",
    "AS": "000Y",
    "CS": "REMOVED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "FD": 0.0,
    "FL": 0.0,
    "IS": "0",
    "LO": "REMOVED",
    "LT": "REMOVED",
    "OB": b"\0\0",
    "OW": b"\0\0",
    "PN": "REMOVED",
    "SH": "REMOVED",
    "SL": 0,
    "SS": 0,
    "ST": "REMOVED",
    "TM": "000000",
    "UC": "REMOVED",
    "UL": 0,
    "UN": b"\0\0",
    "UR": "urn:removed",
    "US": 0,
    "UT": "REMOVED",
}
"""A value of each VR's form that says nothing (action D)."""
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?\Z")
_DATE = re.compile(r"(\d{4})[.]?(\d\d)[.]?(\d\d)\Z")
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)((?:[0-2]\d(?:[0-5]\d(?:[0-6]\d(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?)\Z")
_AGE = re.compile(r"(\d{3})([DWMY])\Z")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_OLDEST_YEARS = 90
_LONGEST_NUMBER = 2


@lru_cache(maxsize=1)
def _words() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(files("bedside.formats").joinpath("profile.json").read_text(encoding="utf-8"))[
        "words"
    ]
    return found


VOCABULARY = frozenset(_words()["descriptions"])
"""Words of descriptions that stay with the descriptors option; all others go."""
OWN_WORDS = frozenset(_words()["objects"])
"""Words that objects hold by their nature; a person's name that is one of them tells nobody apart."""


ENUMERATED = {
    0x00100040: frozenset({"M", "F", "O"}),  # PatientSex, PS3.3 C.7.1.1
    0x001021A0: frozenset({"YES", "NO", "UNKNOWN"}),  # SmokingStatus, PS3.3 C.7.2.2
    0x00102203: frozenset({"ALTERED", "UNALTERED"}),  # PatientSexNeutered, PS3.3 C.7.1.1
}
"""Characteristics for which the standard has its own words; any other text in them is somebody's remark."""


def shifted_date(value: str, days: int) -> str:
    """A DA value moved by whole days; "" for what is no date."""
    found = _DATE.match(value)
    return _moved(found, days) if found else ""


def shifted_moment(value: str, days: int) -> str:
    """A DT value moved by whole days, its time of day and offset kept; "" for what is no moment known to the day."""
    found = _MOMENT.match(value)
    moved = _moved(found, days) if found else ""
    return moved + found.group(4) if found and moved else ""


def _moved(found: re.Match[str], days: int) -> str:
    try:
        moved = date(int(found.group(1)), int(found.group(2)), int(found.group(3))) + timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return moved.strftime("%Y%m%d").zfill(8)


def sound_time(value: str) -> str:
    """A TM value as it is; "" for what is none."""
    return value if _TIME.match(value) else ""


def capped_age(value: str) -> str:
    """An AS value, at most 090Y: older people are few enough to be known by their age; "" for what is no age."""
    found = _AGE.match(value)
    if not found:
        return ""
    years = int(found.group(1)) / _PER_YEAR[found.group(2)]
    return f"{_OLDEST_YEARS:03d}Y" if years >= _OLDEST_YEARS else value


def cleaned(value: str) -> str:
    """The words of a description that are in the vocabulary, and numbers of at most two digits, in their order."""
    words = re.findall(r"[^\W_]+", value)
    kept = [w for w in words if w.casefold() in VOCABULARY or (w.isascii() and w.isdigit() and len(w) <= _LONGEST_NUMBER)]
    return " ".join(kept) if any(w.casefold() in VOCABULARY for w in kept) else ""
