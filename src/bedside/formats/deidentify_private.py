"""Private elements that are known to hold no identity: Table E.3.10-1 of PS3.15 2026a, 479 rows.

Of these the engine keeps what it can check: numbers and short strings of a code's form, as note 2 of PS3.15 E.3.10 advises.
Sequences, bytes, references, texts and UIDs are removed although the table lists them.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

TEXT_NUMBERS = frozenset({"DS", "IS"})
BINARY_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "UL", "US"})
CODES = frozenset({"CS", "SH"})
CHECKED = TEXT_NUMBERS | BINARY_NUMBERS | CODES
"""VRs of private elements whose values can be told from text; all others go."""


@lru_cache(maxsize=1)
def safe_private() -> Mapping[tuple[str, int, int], str]:
    """All rows: (creator, group, element below 0100) to VR, "" where the table gives none."""
    found = json.loads(files("bedside.formats").joinpath("profile.json").read_text(encoding="utf-8"))
    rows: dict[tuple[str, int, int], str] = {}
    for line in found["safe_private"]:
        creator, group, elements = line.split("|")
        rows |= {(creator, int(group, 16), int(one[:2], 16)): one[2:] for one in elements.split()}
    return rows


def safe_vr(creator: str, tag: int) -> str:
    """The VR of a safe private element whose value can be checked, "" for every other one."""
    vr = safe_private().get((creator.strip(), tag >> 16, tag & 0xFF), "")
    return vr if vr in CHECKED else ""
