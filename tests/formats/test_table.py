"""A clinical table is read row by row: each row is taken, repeated or refused with its reasons, and no cell is ever quoted."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.clinical import Column
from bedside.core.errors import InputRejected
from bedside.formats.table import ClinicalTable, read_clinical

COLUMNS = {
    "age_years": Column(kind="number", range=(0, 120), unit="years", required=True),
    "sex": Column(kind="category", categories=("F", "M")),
    "smoker": Column(kind="flag"),
    "remark": Column(kind="text"),
}
HEADER = "Patient ID,Age years,sex,Smoker,remark"


def table(tmp_path: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8", columns=COLUMNS) -> ClinicalTable:
    path = tmp_path / "clinical.csv"
    path.write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return read_clinical(path, columns)


def codes(found: ClinicalTable) -> list[tuple[int, str, str]]:
    return [(problem.row, problem.column, problem.code) for problem in found.problems]


def test_sound_rows_become_typed_values_by_patient(tmp_path: Path) -> None:
    found = table(tmp_path, "A1,61.5,F,yes,well", "A2, 7 ,M,0,", "A3,0,,NA,unknown")
    assert found.problems == ()
    assert (found.received, found.accepted, found.refused, found.repeated, found.ignored) == (3, 3, 0, 0, 0)
    assert dict(found.rows["A1"]) == {"age_years": 61.5, "sex": "F", "smoker": True, "remark": "well"}
    assert dict(found.rows["A2"]) == {"age_years": 7.0, "sex": "M", "smoker": False, "remark": None}
    assert dict(found.rows["A3"]) == {"age_years": 0.0, "sex": None, "smoker": None, "remark": None}
    assert all(type(value) in {str, float, bool, type(None)} for row in found.rows.values() for value in row.values())


def test_each_bad_cell_is_named_by_row_and_column_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "A1,121,F,yes,",
        "A2,,M,no,",
        "A3,forty,X,perhaps,",
        "A4,50,F,no,fine",
        "A5,50,F",
        ",50,F,no,",
        "A7,1e999,F,no,",
        "A8,-9,F,no,",
        "A9,50,F,no,bell\x07",
    )
    assert codes(found) == [
        (2, "age_years", "CELL_RANGE"),
        (3, "age_years", "CELL_MISSING"),
        (4, "age_years", "CELL_TYPE"),
        (4, "sex", "CELL_CATEGORY"),
        (4, "smoker", "CELL_TYPE"),
        (6, "", "ROW_WIDTH"),
        (7, "", "ROW_PATIENT"),
        (8, "age_years", "CELL_TYPE"),
        (9, "age_years", "CELL_MISSING"),
        (10, "remark", "CELL_TEXT"),
    ]
    assert set(found.rows) == {"A4"}
    assert (found.received, found.accepted, found.refused) == (9, 1, 8)
    said = " ".join(problem.sentence for problem in found.problems) + repr(found)
    assert not any(value in said for value in ("121", "forty", "perhaps", "1e999", "A4", "fine"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_separators_and_encodings_of_spreadsheets_are_read_alike(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = [row.replace(",", separator) for row in (HEADER, 'A1,61,F,ja,"Müller, Ärztin"'.replace(", Ä", "# Ä"))]
    found = table(tmp_path, rows[1].replace("#", ","), header=rows[0], encoding=encoding)
    assert found.rows["A1"]["remark"] == "Müller, Ärztin"
    assert found.rows["A1"]["smoker"] is True


def test_a_decimal_comma_is_read_where_commas_do_not_separate(tmp_path: Path) -> None:
    found = table(tmp_path, "A1;3,5;F;no;", header=HEADER.replace(",", ";"))
    assert found.rows["A1"]["age_years"] == 3.5
    assert codes(table(tmp_path, 'A1,"3,5",F,no,')) == [(2, "age_years", "CELL_TYPE")]


def test_two_rows_of_one_patient_are_one_when_equal_and_none_when_they_contradict_each_other(tmp_path: Path) -> None:
    found = table(tmp_path, "A1,50,F,no,", "A1,50.0,F,0,", "A2,50,F,no,", "A2,51,F,no,", "A3,50,F,no,", "A3,999,F,no,")
    assert codes(found) == [
        (3, "", "ROW_REPEATED"),
        (4, "", "ROW_CONFLICT"),
        (5, "", "ROW_CONFLICT"),
        (7, "age_years", "CELL_RANGE"),
    ]
    assert set(found.rows) == {"A1", "A3"}
    assert (found.received, found.accepted, found.refused, found.repeated) == (6, 2, 3, 1)


def test_a_formula_is_text_and_never_a_number(tmp_path: Path) -> None:
    found = table(tmp_path, 'A1,50,F,no,"=HYPERLINK(""http://x"",1)"', "A2,=1+1,F,no,", "A3,50,F,no,@SUM(1)", "=A4,50,F,no,")
    assert found.rows["A1"]["remark"] == '=HYPERLINK("http://x",1)'
    assert found.rows["A3"]["remark"] == "@SUM(1)"
    assert codes(found) == [(3, "age_years", "CELL_TYPE")]


def test_columns_that_the_contract_does_not_name_are_not_read(tmp_path: Path) -> None:
    found = table(tmp_path, "A1,50,F,no,,Jane Doe", header=HEADER + ",name")
    assert found.ignored == 1
    assert "Jane Doe" not in str(dict(found.rows["A1"]))


@pytest.mark.parametrize(
    ("header", "rows", "code"),
    [
        (HEADER, [], "TABLE_EMPTY"),
        ("Age years,sex,Smoker,remark", ["50,F,no,x"], "TABLE_PATIENT"),
        ("Patient ID,patient_id,Age years,sex,Smoker,remark", ["a,b,50,F,no,x"], "TABLE_PATIENT"),
        ("Patient ID,sex,Smoker,remark", ["A1,F,no,x"], "TABLE_COLUMNS"),
        ("Patient ID,Age years,age_years,sex,Smoker,remark", ["A1,1,1,F,no,x"], "TABLE_COLUMNS"),
        (HEADER, ['A1,50,F,no,"never closed'], "TABLE_ENCODING"),
        (HEADER, ["A1,50,F,no,\0"], "TABLE_ENCODING"),
        (HEADER, ["A1,50,F,no," + "x" * 2000], "TABLE_SIZE"),
        (HEADER, ["A1,50,F,no," + "," * 2000], "TABLE_SIZE"),
    ],
)
def test_a_file_of_which_no_row_can_be_believed_is_refused_by_name(tmp_path: Path, header: str, rows: list, code: str) -> None:
    with pytest.raises(InputRejected) as caught:
        table(tmp_path, *rows, header=header)
    assert caught.value.code == code
    assert "A1" not in caught.value.sentence


CELLS = st.lists(st.text(string.printable.replace("\0", ""), max_size=9), min_size=5, max_size=5)


@given(rows=st.lists(CELLS, min_size=1, max_size=12))
def test_every_row_is_counted_once_whatever_it_holds(rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path.write_text("\n".join([HEADER, *quoted]), newline="")
    blank = sum(not any(cell.strip() for cell in row) for row in rows)
    if blank == len(rows):
        return
    found = read_clinical(path, COLUMNS)
    assert found.received == len(rows) - blank
    assert found.received == found.accepted + found.refused + found.repeated
    assert {p.row for p in found.problems if p.code != "ROW_REPEATED"} <= set(range(2, len(rows) + 2))
