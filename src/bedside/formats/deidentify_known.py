"""What is known of a patient from the patient's own file, and the search for it in what was written."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from unicodedata import category

from bedside.formats.deidentify_values import OWN_WORDS, VOCABULARY

_SHORTEST_WORD, _SHORTEST_FOREIGN, _SHORTEST_CODE = 3, 2, 4
_SHORTEST_GLUED = 7
"""A name of so many letters is found inside a longer word too ("CTMustermann"); a shorter one is part of others' ("Philip")."""
_SHORTEST_NUMBER_IN_BYTES, _SHORTEST_IN_PIXELS, _SHORTEST_UID = 6, 6, 14
_PARTS = re.compile(r"[^\W_]+")
_UID, _UID_RUN = re.compile(r"[0-9.]+"), re.compile(rb"[0-9.]{14,}")
"""A UID stands in a run of its own letters: a part of a longer run is another UID."""
MOST_STRINGS = 512
"""More names and identifiers than any file gives one patient; each is searched for everywhere, which must stay quick."""
_ENCODINGS = (
    *("utf-8", "latin-1", "utf-16-le", "utf-16-be", "shift_jis", "euc_jp", "euc_kr", "gb18030", "tis_620"),
    *(f"iso8859_{part}" for part in range(2, 10)),
)
_JIS, _JIS_END = "iso2022_jp_1", b"\x1b(B"
_ESCAPED = rb"(?<=\x1b[ -/][0-~])|(?<=\x1b\$[ -/][0-~])"
"""Just after an escape sequence of ISO 2022 (PS3.5 6.1.2.5.3), whose last letter is none of a word."""


@dataclass(frozen=True)
class Known:
    """Strings that must not survive. Never printed: there is no repr.

    Attributes:
        words: parts of persons' names, case folded.
        codes: identifiers, dates of birth, addresses, telephone numbers, case folded.
        uids: as received.
    """

    words: frozenset[str] = field(default=frozenset(), repr=False)
    codes: frozenset[str] = field(default=frozenset(), repr=False)
    uids: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, names: Iterable[str], codes: Iterable[str], uids: Iterable[str]) -> "Known":
        """Take persons' names apart; leave out what is too short, or too common, to tell anybody apart."""
        words, numbers = set(), set()
        for part in {form for name in names for one in _parts(name) for form in (one.casefold(), one.lower())}:
            if part.isdigit():
                numbers.add(part)
            elif len(part) >= (_SHORTEST_WORD if part.isascii() else _SHORTEST_FOREIGN):
                words.add(part)
        whole = {code.strip().casefold() for code in codes} | numbers
        common = VOCABULARY | OWN_WORDS
        return cls(
            frozenset(words - common),
            frozenset(code for code in whole - common if len(code) >= _SHORTEST_CODE),
            frozenset(uid for uid in uids if len(uid) >= _SHORTEST_UID),
        )

    def __len__(self) -> int:
        return len(self.words) + len(self.codes) + len(self.uids)

    def in_text(self, text: str, *, number: bool = False) -> bool:
        """Whether a text holds one of the strings as a whole word, or a long name inside one.

        Args:
            text: of one value.
            number: whether it is a decimal (DS, IS): identifiers of few digits are left out there as in bytes, or PatientID 1024
                would take the rescale of a CT away.
        """
        folded = text.casefold()
        if not self.words.isdisjoint(_parts(folded)):
            return True
        if any(word in folded for word in self.words if len(word) >= _SHORTEST_GLUED):
            return True
        return any(_bounded(code, folded) for code in (*self.codes, *self.uids) if not number or _is_telling(code))

    def in_bytes(self, header: bytes, pixels: bytes | memoryview) -> bool:
        """Whether written bytes hold one of them, in any of the usual encodings.

        Args:
            header: everything but the pixels; searched as a text is, letters' case does not count.
            pixels: any bytes; searched for what is too long to stand in them by chance.
        """
        pattern = _pattern(self.words, self.codes)
        if pattern is not None and pattern.search(header.lower()):
            return True
        if not self.uids.isdisjoint(run.decode("ascii") for run in _UID_RUN.findall(header)):
            return True
        if any(uid.encode("latin-1", "replace") in header for uid in self.uids if not _UID.fullmatch(uid)):
            return True
        return _in_pixels(bytes(pixels), self.words | self.codes)


def _parts(text: str) -> list[str]:
    """The words of a text; signs that combine with a letter (vowels, accents) are part of its word."""
    if text.isascii():
        return _PARTS.findall(text)
    return "".join(sign if sign.isalnum() or category(sign).startswith("M") else " " for sign in text).split()


def _is_telling(code: str) -> bool:
    """Whether a code is more than a short number, which stands in many places by chance."""
    return not code.isdigit() or len(code) >= _SHORTEST_NUMBER_IN_BYTES


def _bounded(code: str, text: str) -> bool:
    at = text.find(code)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(code) : at + len(code) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
        at = text.find(code, at + 1)
    return False


def _encoded(text: str) -> set[bytes]:
    """The text in every encoding that can hold it; the ASCII letters in lower case, as in the bytes that are searched."""
    found = set()
    for encoding in _ENCODINGS:
        for form in {text, text.upper(), text.title()}:
            try:
                found.add(form.encode(encoding).lower())
            except UnicodeEncodeError:
                continue
    if not text.isascii():
        with suppress(UnicodeEncodeError):
            found.add(text.encode(_JIS).removesuffix(_JIS_END).lower())
    return found


@lru_cache(maxsize=64)
def _pattern(words: frozenset[str], codes: frozenset[str]) -> re.Pattern[bytes] | None:
    """One expression for all strings; the files of one patient share it."""
    kept = words | {code for code in codes if _is_telling(code)}
    options = sorted({one for text in kept for one in _encoded(text)}, key=lambda one: (-len(one), one))
    if not options:
        return None
    body = b"|".join(map(re.escape, options))
    bounded = rb"(?:(?<![a-z0-9.\x80-\xff])|" + _ESCAPED + rb")(?:" + body + rb")(?!\.?[a-z0-9\x80-\xff])"
    glued = sorted({one for text in words if len(text) >= _SHORTEST_GLUED for one in _encoded(text)})
    return re.compile(b"|".join((bounded, *map(re.escape, glued))), re.DOTALL)


@dataclass(frozen=True)
class _Long:
    """Strings too long for chance, in the spellings that a header would have.

    Attributes:
        narrow: as UTF-8.
        wide: as UTF-16, both orders, by the lower bytes of their characters.
        narrow_letters, wide_letters: tables from a byte to 1 where one of them holds it, else 0; of UTF-16 the lower bytes.
    """

    narrow: tuple[bytes, ...]
    wide: Mapping[bytes, tuple[bytes, ...]]
    narrow_letters: bytes
    wide_letters: bytes


@lru_cache(maxsize=64)
def _long(texts: frozenset[str]) -> _Long:
    spellings = {form for text in texts for form in (text, text.upper(), text.title())}
    narrow = {one for one in (text.encode() for text in spellings) if len(one) >= _SHORTEST_IN_PIXELS}
    longer = [text for text in spellings if len(text) >= _SHORTEST_IN_PIXELS]
    wide: dict[bytes, tuple[bytes, ...]] = {}
    for text in longer:
        little = text.encode("utf-16-le")
        wide[little[::2]] = (*wide.get(little[::2], ()), little, text.encode("utf-16-be"))
    return _Long(tuple(sorted(narrow)), wide, _letters(b"".join(narrow)), _letters(b"".join(wide)))


def _letters(used: bytes) -> bytes:
    return bytes(number in used for number in range(256))


def _in_pixels(pixels: bytes, texts: frozenset[str]) -> bool:
    """Whether one of the texts stands in pixels. Six of its letters in a row are looked for first, which few pictures hold."""
    if not texts:
        return False
    long = _long(texts)
    run = b"\1" * _SHORTEST_IN_PIXELS
    if run in pixels.translate(long.narrow_letters) and any(one in pixels for one in long.narrow):
        return True
    for start in (0, 1):
        lower = pixels[start::2]
        if run in lower.translate(long.wide_letters):
            found = (text for letters, spelled in long.wide.items() if letters in lower for text in spelled)
            if any(text in pixels for text in found):
                return True
    return False
