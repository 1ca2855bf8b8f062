"""The stored table against the standard's counts and against another project's copy of it."""

from collections import Counter
from importlib import import_module

import pytest

from bedside.formats.deidentify_table import is_classic, resolved, table

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_the_table_has_the_621_rows_of_the_2024b_edition() -> None:
    assert len(table().rows) == 621
    assert "2024b" in table().edition
    assert table().counts() == Counter(
        {"X": 384, "D": 92, "U": 54, "Z": 42, "X/D": 22, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2}
    )


@pytest.mark.parametrize(("letter", "rows"), [("t", 165), ("s", 3), ("g", 4), ("v", 1), ("c", 106), ("d", 36), ("i", 9)])
def test_the_option_columns_have_as_many_rows_as_documented(letter: str, rows: int) -> None:
    """Dates, structured content, graphics and private as in the standard; the others are the documented, stricter subset."""
    assert table().column(letter) == rows


def test_every_action_is_that_of_another_projects_copy_of_the_edition() -> None:
    theirs = import_module("dicomanonymizer.dicom_anonymization_databases.dicomfields_2024b")
    names = {"D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z"}
    names |= {"X_D_TAGS": "X/D", "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U*"}
    checked = 0
    for name, action in names.items():
        for tag in getattr(theirs, name):
            if len(tag) == 2:
                row = table().row(tag[0] << 16 | tag[1])
                assert row is not None
                assert row.action == action
                checked += 1
    assert checked == 617  # 621 without private, curves and the two overlay patterns


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
