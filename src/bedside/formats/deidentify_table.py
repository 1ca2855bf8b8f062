"""Table E.1-1 of PS3.15 2026a as data: what the Basic Profile does to each attribute, and which options change that.

All 655 rows with all option columns; Retain UIDs (113110) has none here, as UIDs are always mapped.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

Action = str
"""D (dummy), Z (empty), X (remove), U (map the UID), or a compound such as X/Z/D that the IOD's types decide."""


@dataclass(frozen=True)
class Row:
    """One attribute.

    Attributes:
        action: of the Basic Profile.
        columns: letters of the options that have a column here: d device (keep), e the same (clean), i institution, p patient
            characteristics (keep), q the same (clean), t dates, c descriptors, s structured content, g graphics, v safe private.
    """

    action: Action
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """All 655 rows.

    Attributes:
        edition: of the standard.
        rows: by tag in eight hexadecimal digits, by a pattern (all of groups "50XX", "60XX3000", "60XX4000"), or "PRIVATE".
    """

    edition: str
    rows: Mapping[str, Row]

    @cached_property
    def by_tag(self) -> Mapping[int, Row]:
        """The rows of single attributes."""
        return {int(name, 16): row for name, row in self.rows.items() if name != "PRIVATE" and "X" not in name}

    def row(self, tag: int) -> Row | None:
        """The row of an attribute; None where the standard lets it pass."""
        return self.by_tag.get(tag)

    def counts(self) -> Counter[str]:
        """How many rows have each action."""
        return Counter(row.action for row in self.rows.values())

    def column(self, letter: str) -> int:
        """How many rows an option has."""
        return sum(letter in row.columns for row in self.rows.values())


@lru_cache(maxsize=1)
def table() -> Table:
    """The table that comes with bedside."""
    found = json.loads(files("bedside.formats").joinpath("profile.json").read_text(encoding="utf-8"))
    rows = {}
    for line in found["rows"]:
        tag, action, *columns = line.split()
        rows[tag] = Row(action, frozenset("".join(columns)))
    return Table(found["edition"], rows)


_TYPE_3 = frozenset(
    {0x00080012, 0x00080013, 0x00080021, 0x00080022, 0x00080031, 0x00080032, 0x0008002A, 0x00080080, 0x00080082, 0x00081010}
    | {0x00081070, 0x00081072, 0x00081110, 0x00081111, 0x00181000, 0x00181030, 0x00181400, 0x0018700A, 0x00321060, 0x00400555}
)
"""Optional in the modules of single-frame images (PS3.3 C.7.3.1, C.7.5.1, C.7.6.1, C.8.2.1, C.8.3.1, C.12.1)."""
_TYPE_2 = frozenset({0x00080023, 0x00080033, 0x00100020, 0x00102203, 0x00180010, 0x00700084})
_CLASSIC = frozenset(
    "1.2.840.10008.5.1.4.1.1." + tail
    for tail in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "2", "3.1", "4", "6.1", "7", "12.1", "12.2", "20", "128", "481.1")
)


def is_classic(sop_class: str) -> bool:
    """Whether an object's modules are those for which the types of attributes are known here."""
    return sop_class in _CLASSIC


def resolved(action: Action, tag: int, *, classic: bool) -> str:
    """One letter out of a compound action (PS3.15 E.1.1: the one that keeps the IOD valid).

    A type 1 attribute gets a dummy, type 2 an empty value, type 3 goes. Where the type is not known the strongest that keeps
    any type: D before Z before X. References keep their items, with mapped UIDs (U).
    """
    parts = action.split("/")
    if len(parts) == 1:
        return action
    if "U*" in parts:
        return "U"
    if classic and tag in _TYPE_3 and "X" in parts:
        return "X"
    if classic and tag in _TYPE_2 and "Z" in parts:
        return "Z"
    return "D" if "D" in parts else "Z"
