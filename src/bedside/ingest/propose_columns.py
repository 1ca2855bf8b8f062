"""Types for the columns of a clinical table; what may name a person is left out."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bedside.core.clinical import MISSING, Column
from bedside.core.errors import InputRejected

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ .()%/-]{0,40}\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .+/<>=-]{0,23}\Z")
_NAMES_SOMEBODY = re.compile(
    r"name|birth|dob|address|street|phone|mail|ssn|insur|accession|mrn|doctor|physician|operator|hospital|institut|comment|remark|"
    r"(^|[ _.])(id|uid|url|fax|zip|city|postcode|plz|notes?|number|record|date|datetime|timestamp|ward|country)($|[ _.])",
    re.IGNORECASE,
)
_MOST_CATEGORIES, _ROWS_PER_CATEGORY = 12, 3
_LONGEST_NUMBER = 1e6


@dataclass(frozen=True)
class Typed:
    """A table's columns that can be proposed.

    Attributes:
        columns: name in the header to what was seen there.
        rows: below the header.
        left: columns that were left out: free text, dates, names, numbers that may name somebody.
    """

    columns: Mapping[str, Column]
    rows: int
    left: int


def typed_columns(path: Path) -> Typed | None:
    """Look at a table, or return None where it is no table of patients."""
    from bedside.formats.table import patient_place, plain, read_cells  # brings pandas, which a folder without a table spares

    try:
        raw = read_cells(path)
    except InputRejected:
        return None
    patient = patient_place(raw.header)
    if patient is None:
        return None
    names = Counter(plain(name) for name in raw.header)
    whole = [cells for _, cells in raw.rows if len(cells) == len(raw.header)]
    columns: dict[str, Column] = {}
    for place, name in enumerate(raw.header):
        if place == patient or names[plain(name)] > 1 or not _NAME.match(name) or _NAMES_SOMEBODY.search(name):
            continue
        column = column_of([cells[place].strip() for cells in whole], decimal_comma=raw.separator != ",")
        if column is not None:
            columns[name] = column
    return Typed(columns, len(raw.rows), len(raw.header) - 1 - len(columns))


def column_of(words: Sequence[str], *, decimal_comma: bool) -> Column | None:
    """What a column's cells are, with room to spare; None where they may be free text or name somebody."""
    from bedside.formats.table import flag_of, number_of

    blank = Column(kind="text")
    told = [word for word in words if not blank.is_missing(word)]
    if not told:
        return None
    if all(flag_of(word) is not None for word in told) and len({word.casefold() for word in told}) <= 2:
        return Column(kind="flag")
    numbers = [number_of(word, decimal_comma=decimal_comma) for word in words if word and not _is_word(word)]
    if numbers and all(number is not None for number in numbers):
        return _number_column([number for number in numbers if number is not None])
    counts = Counter(told)
    few = len(counts) <= _MOST_CATEGORIES and len(counts) * _ROWS_PER_CATEGORY <= len(told)
    if few and all(_WORD.match(word) for word in counts):
        return Column(kind="category", categories=tuple(sorted(counts)))
    return None


def _is_word(word: str) -> bool:
    """Whether this is one of the words, not numbers, that stand for a missing value."""
    return word.casefold() in {code.casefold() for code in MISSING if not code.startswith("-")}


def _number_column(numbers: Sequence[float]) -> Column | None:
    """Limits a quarter of the range beyond what was seen; a negative code among positive numbers is a missing value."""
    codes = {-9.0: "-9", -99.0: "-99", -999.0: "-999"}
    known = [number for number in numbers if number not in codes or min(other for other in numbers if other not in codes) < 0]
    if not known or max(abs(number) for number in known) >= _LONGEST_NUMBER:
        return None
    low, high = min(known), max(known)
    room = max((high - low) / 4, abs(high) / 10, 1e-6)
    lower = 0.0 if low >= 0 and low - room < 0 else low - room
    # Codes that are possible values here must not be read as missing.
    missing = tuple(code for code in MISSING if not (code.startswith("-") and lower <= float(code)))
    return Column(kind="number", range=(_rounded(lower, down=True), _rounded(high + room, down=False)), missing=missing)


def _rounded(value: float, *, down: bool) -> float:
    """Two digits, away from what was seen, so that no cell's own value stands in the file."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{(math.floor(value / unit) if down else math.ceil(value / unit)) * unit:.6g}")
