"""Values of single data elements, taken out of received bytes: text in any character set, whole numbers, decimals.

The strict getters refuse by name; the lenient ones (`number`, `words`) say None or "" for what is not there or is no such value.
"""

import struct
import unicodedata
from functools import lru_cache

from bedside.core.errors import InputRejected
from bedside.formats.dicom_elements import Elements
from bedside.formats.gate import guarded

_CHARACTER_SET = 0x00080005
_ESCAPE = 0x1B
_PLAIN_SETS = {"": "utf-8", "ISO_IR 192": "utf-8", "ISO_IR 100": "latin-1"}
"""SpecificCharacterSet to Python's codec (PS3.3 table C.12-2), for the commonest."""
_DECIMAL_BYTES = frozenset(b"0123456789+-.eE\\ \0")
_FLOATS = {"FD": "d", "FL": "f"}
_WORD_LENGTH = 64


def text(elements: Elements, tag: int) -> str:
    """A text value without padding; UTF-8 where it is that, else Latin-1 (for what is compared and never shown)."""
    raw = elements.raw(tag).strip(b"\0 ")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def name(elements: Elements, tag: int) -> str:
    """A text in the file's SpecificCharacterSet (PS3.3 C.12.1.1.2), in one normal form, so that equal names compare equal."""
    raw = elements.raw(tag).strip(b"\0 ")
    if raw.isascii() and _ESCAPE not in raw:
        return raw.decode("ascii")
    try:
        decoded = _decoded(raw, text(elements, _CHARACTER_SET))
    except InputRejected:
        decoded = text(elements, tag)
    return unicodedata.normalize("NFC", decoded).strip(" \0")


def _decoded(raw: bytes, sets: str) -> str:
    """The text; pydicom knows the character sets that few files have, and takes long to import."""
    if sets in _PLAIN_SETS and _ESCAPE not in raw:
        try:
            return raw.decode(_PLAIN_SETS[sets])
        except UnicodeDecodeError:
            pass
    from pydicom.charset import decode_bytes

    with guarded("DCM_CHARSET", "A text cannot be decoded."):
        return str(decode_bytes(raw, _encodings(sets), {"\r", "\n", "\t", "\f"}))


@lru_cache(maxsize=64)
def _encodings(sets: str) -> list[str]:
    """Python's codecs of a SpecificCharacterSet; where none is named, the bytes speak for themselves."""
    if not sets:
        return ["utf8"]
    from pydicom.charset import convert_encodings

    return list(convert_encodings([part.strip() for part in sets.split("\\")]))


def words(elements: Elements, tag: int) -> str:
    """The first value in lower-case letters, digits, dots and dashes."""
    return clean(text(elements, tag).partition("\\")[0]).lower()


def clean(value: str) -> str:
    """Letters, digits, dots, dashes and single spaces, at most 64: safe in tables and file names of reports."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in ".-") else " " for letter in value)
    return " ".join(kept.split())[:_WORD_LENGTH].strip()


def uid(value: str, attribute: str) -> str:
    """The value, when it is a UID (PS3.5 9.1)."""
    if not value or len(value) > 64 or set(value) - set("0123456789."):
        raise InputRejected(f"{attribute} is missing or no UID.", code="DCM_UID")
    return value


def integer(elements: Elements, tag: int, attribute: str, allowed: range | set[int]) -> int:
    """An unsigned short (US) within what is allowed."""
    raw, place = elements.raw(tag), elements.table.get(tag)
    if place is None or place.vr not in {"US", ""} or len(raw) != 2:
        raise InputRejected(f"{attribute} is missing or no 16-bit number.", code="DCM_GEOMETRY")
    value = int(struct.unpack(elements.order + "H", raw)[0])
    if value not in allowed:
        raise InputRejected(f"{attribute} has a value that no CT or MR slice read here can have.", code="DCM_GEOMETRY")
    return value


def numbers(elements: Elements, tag: int, count: int, attribute: str, *, code: str = "DCM_GEOMETRY") -> tuple[float, ...]:
    """Decimal strings (DS), all of them finite."""
    raw, place = elements.raw(tag), elements.table.get(tag)
    values = () if place is None or place.vr not in {"DS", ""} or len(raw) > 256 else _decimals(raw)
    if len(values) != count or not all(abs(value) < 1e9 for value in values):
        raise InputRejected(f"{attribute} is not {count} finite number{'s' if count > 1 else ''}.", code=code)
    return values


def number(elements: Elements, tag: int) -> float | None:
    """The first value of a decimal string or of a binary number (FD, FL, US), None when there is none that is finite."""
    raw, place = elements.raw(tag), elements.table.get(tag)
    if place is None or not raw or len(raw) > 256:
        return None
    if place.vr in _FLOATS and len(raw) >= struct.calcsize(_FLOATS[place.vr]):
        value = float(struct.unpack_from(elements.order + _FLOATS[place.vr], raw)[0])
    elif place.vr in {"US", "UL"}:
        value = float(int.from_bytes(raw[: 2 if place.vr == "US" else 4], "little" if elements.order == "<" else "big"))
    else:
        value = next(iter(_decimals(raw.partition(b"\\")[0])), float("nan"))
    return value if abs(value) < 1e9 else None


def _decimals(raw: bytes) -> tuple[float, ...]:
    """What the bytes say in decimal; () when they say anything else."""
    if set(raw) - _DECIMAL_BYTES:
        return ()
    try:
        return tuple(float(part) for part in raw.decode("ascii").strip("\0 ").split("\\"))
    except ValueError:
        return ()
