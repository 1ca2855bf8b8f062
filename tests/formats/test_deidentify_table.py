"""The stored table against the standard's counts and against another project's copy of it."""

from collections import Counter
from importlib import import_module

import pytest

from bedside.formats.deidentify_private import CHECKED, safe_private, safe_vr
from bedside.formats.deidentify_table import is_classic, resolved, table

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_the_table_has_the_655_rows_of_the_2026a_edition() -> None:
    assert len(table().rows) == 655
    assert "2026a" in table().edition
    assert table().counts() == Counter(
        {"X": 415, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2}
    )


COLUMNS = {"d": 48, "e": 11, "i": 10, "p": 14, "q": 5, "t": 169, "c": 140, "s": 4, "g": 4, "v": 1}


@pytest.mark.parametrize(("letter", "rows"), COLUMNS.items())
def test_the_option_columns_have_as_many_rows_as_in_the_standard(letter: str, rows: int) -> None:
    assert table().column(letter) == rows


def test_no_row_has_two_actions_of_one_option() -> None:
    assert not [name for name, row in table().rows.items() if {"d", "e"} <= row.columns or {"p", "q"} <= row.columns]


def test_the_documentation_gives_the_tables_own_counts(repository) -> None:
    text = " ".join((repository / "docs" / "de-identification.md").read_text().split())
    assert (
        f"all {len(table().rows)} rows with all option columns: device {COLUMNS['d'] + COLUMNS['e']}, institution {COLUMNS['i']},"
        f" patient characteristics {COLUMNS['p'] + COLUMNS['q']}, dates {COLUMNS['t']}, descriptors {COLUMNS['c']}, structured"
        f" content {COLUMNS['s']}, graphics {COLUMNS['g']}, safe private {COLUMNS['v']}." in text
    )
    kept = sum(vr in CHECKED for vr in safe_private().values())
    assert f"{len(safe_private())} rows of the same edition" in text
    assert f"those whose values can be checked stay, {kept} rows" in text
    assert f"The other {len(safe_private()) - kept}," in text


@pytest.mark.parametrize(("edition", "rows", "unknown_here"), [("2024b", 617, set()), ("2026c", 651, {(0x0040, 0xE012)})])
def test_every_action_is_that_of_another_projects_copy_of_the_standard(edition: str, rows: int, unknown_here: set) -> None:
    """Without private elements, curves and the two overlay patterns; what the later edition adds is unknown here."""
    theirs = import_module(f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{edition}")
    names = {"D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z"}
    names |= {"X_D_TAGS": "X/D", "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U*"}
    listed = {tag: action for name, action in names.items() for tag in getattr(theirs, name) if len(tag) == 2}
    missing = {tag for tag in listed if table().row(tag[0] << 16 | tag[1]) is None}
    assert missing == unknown_here
    different = {tag: a for tag, a in listed.items() if tag not in missing and table().by_tag[tag[0] << 16 | tag[1]].action != a}
    assert not different
    assert len(listed) - len(missing) == rows


def test_the_safe_private_table_is_the_479_rows_of_the_standard_by_kind_of_value() -> None:
    """Counted in Table E.3.10-1 of PS3.15 2026a; OW/OB stands for a row that may be either."""
    assert Counter(safe_private().values()) == Counter(
        {"FL": 74, "FD": 71, "CS": 65, "SQ": 55, "US": 31, "LO": 29, "UL": 27, "SS": 26, "IS": 21, "DS": 20, "OB": 17, "SL": 12}
        | {"SH": 10, "UI": 7, "": 5, "ST": 4, "OW/OB": 2, "LT": 1, "AT": 1, "OW": 1}
    )


@pytest.mark.parametrize(
    ("creator", "tag", "vr"),
    [
        ("SIEMENS MR HEADER", 0x0019100C, "IS"),
        ("SIEMENS MR HEADER ", 0x0019110C, "IS"),
        ("GEMS_PARM_01", 0x00431039, "IS"),
        ("Philips MR Imaging DD 001", 0x2005100E, "FL"),
        ("NQLeft", 0x01991016, "FL"),
        ("NQLeft", 0x01991017, ""),
        ("GEMS_PARM_01", 0x0019100C, ""),
        ("Philips Imaging DD 001", 0x2001105F, ""),
        ("HOLOGIC, Inc.", 0x7E011012, ""),
        ("SIEMENS Ultrasound SC2000", 0x01291003, ""),
    ],
)
def test_a_private_element_is_known_by_creator_group_and_number_in_any_block(creator: str, tag: int, vr: str) -> None:
    assert safe_vr(creator, tag) == vr


@pytest.mark.parametrize(
    ("action", "tag", "classic", "letter"),
    [
        ("X/Z/D", 0x00080080, True, "X"),
        ("X/Z/D", 0x00080080, False, "D"),
        ("Z/D", 0x00180010, True, "Z"),
        ("Z/D", 0x00180010, False, "D"),
        ("X/Z", 0x00080110, False, "Z"),
        ("X/Z/U*", 0x00081140, True, "U"),
        ("X/D", 0x00181030, True, "X"),
        ("X", 0x00104000, True, "X"),
    ],
)
def test_a_compound_action_keeps_the_attributes_type(action: str, tag: int, classic: bool, letter: str) -> None:
    assert resolved(action, tag, classic=classic) == letter


def test_types_are_known_of_single_frame_images_only() -> None:
    assert is_classic(CT)
    assert not is_classic(CT + ".1")
    assert not is_classic("")
