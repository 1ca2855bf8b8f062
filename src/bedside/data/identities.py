"""Invented identities that can be found again: every value is a seed, and `Search` looks for seeds in any bytes, however encoded.

A name, number or description holds a token `ZQ` and four digits that occurs nowhere else; UIDs share a root, dates are one day of
1873, numbers share a beginning that nothing else here has. So "no seed is left" is one search, whatever wrote the bytes.
"""

import base64
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

UID_ROOT = "1.2.826.0.1.3680043.10.999."
YEAR, _DAY = "1873", "1231"
"""All dates are one day, so that a date that was moved, by a day or by ten years, is never taken for one that was left."""
_NUMBER = "7319"
_TOKEN = re.compile(rb"zq\d{4}", re.IGNORECASE)
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_ALONE = rb"(?<![0-9a-fA-F])%b(?![0-9a-fA-F])"
_TEXT = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})


class Seeds:
    """Draws values that were never drawn before; the same number of draws gives the same values.

    Attributes:
        drawn: how many values of each VR were handed out.
    """

    def __init__(self, start: int = 0) -> None:
        self._at = start
        self.drawn = Counter[str]()

    def value(self, vr: str) -> str | bytes | None:
        """A seed of a VR's form (PS3.5 6.2); None for those that can hold none (times of day, binary numbers)."""
        self._at += 1
        made = _made(vr, self._at % 10_000)
        if made is not None:
            self.drawn[vr] += 1
        return made

    def text(self) -> str:
        """A token by itself."""
        return str(self.value("LO"))

    @property
    def count(self) -> int:
        """How many seeds were handed out."""
        return self.drawn.total()


def _made(vr: str, number: int) -> str | bytes | None:
    token = f"ZQ{number:04d}"
    if vr in _TEXT:
        return f"{token}^{token}" if vr == "PN" else f"{token} 4711" if vr in {"LT", "ST", "UT", "LO"} else token
    day = f"{YEAR}{_DAY}"
    forms: dict[str, str | bytes] = {
        "AS": "097Y",
        "DA": day,
        "DT": f"{day}{number % 24:02d}3017",
        "DS": f"{_NUMBER}{number:04d}",
        "IS": f"{_NUMBER}{number:04d}",
        "OB": token.encode(),
        "UN": token.encode(),
        "UI": f"{UID_ROOT}{number}",
        "UR": f"https://example.org/{token}",
    }
    return forms.get(vr)


@dataclass(frozen=True)
class Person:
    """One invented patient.

    Attributes:
        name: PatientName, which begins with a token.
        patient_id: PatientID, a token.
        born: PatientBirthDate.
    """

    name: str
    patient_id: str
    born: str

    @classmethod
    def of(cls, seeds: Seeds) -> "Person":
        """The next person."""
        return cls(str(seeds.value("PN")), seeds.text(), str(seeds.value("DA")))


@dataclass(frozen=True)
class Hit:
    """A seed that was found.

    Attributes:
        where: what was searched.
        what: kind of seed and of encoding; never the seed's surroundings.
    """

    where: str
    what: str


@dataclass
class Search:
    """Looks for seeds in bytes, in names of files and in what programs say.

    Attributes:
        searched: how many pieces were looked at, and their bytes together.
        hits: what was found.
    """

    searched: int = 0
    searched_bytes: int = 0
    hits: list[Hit] = field(default_factory=list)

    def bytes(self, data: bytes, where: str) -> None:
        """Search one piece as it is, as UTF-16, reversed, in hexadecimal digits and in base64.

        A picture inside a page is searched as the file that it is: some 100,000 letters of base64 hold a token by chance.
        """
        for picture in _PICTURE.findall(data):
            self.bytes(base64.b64decode(picture), where)
        data = _PICTURE.sub(b"", data)
        self.searched += 1
        self.searched_bytes += len(data)
        self.hits += [Hit(where, what) for what, pattern in _PATTERNS.items() if pattern.search(data)]
        if any(_TOKEN.search(decoded) for run in _RUN.findall(data) for decoded in _decodings(run)):
            self.hits.append(Hit(where, "token in base64"))

    def text(self, said: str, where: str) -> None:
        """Search what a program said."""
        self.bytes(said.encode("utf-8", "surrogatepass"), where)

    def folder(self, root: Path, *, besides: frozenset[str] = frozenset()) -> None:
        """Search every file below a folder, and every name.

        Args:
            root: the folder.
            besides: SHA-256 names of files whose bytes are not searched: what was received and is kept as it came.
        """
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            self.text(name, f"the name of a file or folder in {root.name}")
            if path.is_file() and path.name not in besides:
                self.bytes(path.read_bytes(), name)


def _decodings(run: bytes) -> list[bytes]:
    """What a run of base64 letters says at each of its four beginnings."""
    plain = run.translate(bytes.maketrans(b"-_", b"+/"))
    return [base64.b64decode(plain[start : start + (len(plain) - start) // 4 * 4]) for start in range(4)]


def _patterns() -> dict[str, re.Pattern[bytes]]:
    """Every seed in every encoding but base64, as regular expressions over bytes."""
    digits = rb"\d\0" * 4
    return {
        "token": _TOKEN,
        "token in UTF-16": re.compile(rb"[Zz]\0[Qq]\0" + digits[:-2] + rb"|\0[Zz]\0[Qq]" + rb"\0\d" * 4),
        "token backwards": re.compile(rb"\d{4}qz", re.IGNORECASE),
        "token in hexadecimal": re.compile(rb"[57]a[57]1(?:3\d){4}", re.IGNORECASE),
        "UID": re.compile(re.escape(UID_ROOT.encode())),
        "date": re.compile(_ALONE % (YEAR.encode() + rb"[-./]?12[-./]?31(?:\d{6})?")),
        "number": re.compile(_ALONE % (_NUMBER.encode() + rb"\d{4}")),
        "age": re.compile(rb"(?<![0-9A-Za-z+/])097Y(?![0-9A-Za-z+/])"),
    }


_PICTURE = re.compile(rb"data:image/[a-z]+;base64,([0-9A-Za-z+/]+=*)")
_PATTERNS = _patterns()
