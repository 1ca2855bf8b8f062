"""A clinical table from a hospital: one row per patient, checked against the contract's columns cell by cell.

Nothing that a cell holds is ever quoted: a problem names the row as a spreadsheet counts it (the header is row 1) and the column
as the contract calls it.
"""

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pandera.pandas as pandera

from bedside.core.case import ClinicalValue
from bedside.core.clinical import Column
from bedside.core.errors import InputRejected
from bedside.formats.gate import Limits, receive

PATIENT_COLUMNS = ("patient", "patientid", "patientidentifier", "subject", "subjectid", "participantid", "pid", "mrn", "id")
"""Names by which a table calls its patients, letters only, the surest first."""
_LIMITS = Limits(max_file_bytes=64 << 20)
_MAX_ROWS, _MAX_COLUMNS, _MAX_CELL = 1_000_000, 1024, 1024
_SEPARATORS = ",;\t"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\Z", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+\Z", re.ASCII)
_YES = frozenset({"yes", "y", "true", "t", "1", "ja", "oui", "si"})
_NO = frozenset({"no", "n", "false", "f", "0", "nein", "non"})
_SENTENCES = {
    "not_nullable": ("CELL_MISSING", "The value is missing, and the contract requires it."),
    "in_range": ("CELL_RANGE", "The number lies outside the range that the contract allows."),
    "isin": ("CELL_CATEGORY", "The value is none of the contract's categories."),
}


@dataclass(frozen=True)
class RowProblem:
    """Why a row was not taken.

    Attributes:
        row: as a spreadsheet counts: the header is row 1.
        column: name in the contract, "" where the whole row is meant.
        code: ROW_WIDTH, ROW_PATIENT, ROW_CONFLICT, ROW_REPEATED, CELL_TYPE, CELL_MISSING, CELL_RANGE, CELL_CATEGORY, CELL_TEXT.
        sentence: what was expected; never what the cell holds.
    """

    row: int
    column: str
    code: str
    sentence: str


@dataclass(frozen=True)
class ClinicalTable:
    """What a table said of each patient. Every row of the file is counted once: received = accepted + refused + repeated.

    Attributes:
        rows: patient id as received to column name to value (None: missing); never logged, never a path.
        received: rows below the header that hold anything.
        refused: rows that were not taken; `problems` says why, with at least one entry each.
        repeated: rows that said again what another row of the same patient says.
        problems: in the order of rows.
        ignored: columns that the contract does not name and that were not read.
    """

    rows: Mapping[str, Mapping[str, ClinicalValue]] = field(repr=False)
    received: int
    refused: int
    repeated: int
    problems: tuple[RowProblem, ...]
    ignored: int

    @property
    def accepted(self) -> int:
        """Rows that were taken."""
        return len(self.rows)


@dataclass(frozen=True)
class RawTable:
    """The cells of a table as text.

    Attributes:
        header: names of columns, stripped.
        rows: (row number as a spreadsheet counts, cells); blank rows are left out.
        separator: what stands between cells.
    """

    header: tuple[str, ...] = field(repr=False)
    rows: tuple[tuple[int, tuple[str, ...]], ...] = field(repr=False)
    separator: str


def read_clinical(path: Path, columns: Mapping[str, Column], *, limits: Limits = _LIMITS) -> ClinicalTable:
    """Read a CSV file of clinical values; a bad row is refused with its reasons and the rest goes on.

    Cells are separated by commas, semicolons or tabs, and written in UTF-8 or Latin-1. In a file without commas between cells,
    "3,5" is three and a half. A cell that a spreadsheet would run as a formula is text here, and nothing else. Two rows of one
    patient that say different things are both refused: nobody knows which is right.

    Args:
        path: the received file.
        columns: name in the header to what may stand there; compared without regard to case, blanks, `_` and `-`.
        limits: the gate's; a table has at most 64 MiB.

    Raises:
        InputRejected: FILE_*, TABLE_ENCODING, TABLE_SIZE, TABLE_EMPTY, TABLE_PATIENT or TABLE_COLUMNS: no row can be believed.
    """
    raw = read_cells(path, limits=limits)
    patient = _patient_column(raw)
    places = _places(raw, columns)
    problems: list[RowProblem] = []
    sound: dict[int, tuple[str, ...]] = {}
    for number, cells in raw.rows:
        problem = _row_problem(number, cells, len(raw.header), patient)
        if problem is None:
            sound[number] = cells
        else:
            problems.append(problem)
    frame = pd.DataFrame(index=pd.Index(list(sound), dtype="int64"))
    for name, column in columns.items():
        words = [cells[places[name]].strip() for cells in sound.values()]
        values, wrong = _parsed(words, column, decimal_comma=raw.separator != ",")
        frame[name] = pd.Series(values, index=frame.index, dtype="Float64" if column.kind == "number" else object)
        numbers = list(sound)
        problems += [RowProblem(numbers[at], name, code, sentence) for at, (code, sentence) in wrong.items()]
    problems += _checked(frame, columns, {(problem.row, problem.column) for problem in problems})
    bad = {problem.row for problem in problems}
    by_patient: dict[str, list[int]] = defaultdict(list)
    for number, cells in sound.items():
        by_patient[cells[patient].strip()].append(number)
    rows, doubles = _one_row_each(by_patient, bad, _records(frame, columns))
    repeated = sum(problem.code == "ROW_REPEATED" for problem in doubles)
    problems = sorted([*problems, *doubles], key=lambda problem: (problem.row, problem.column))
    refused = len(raw.rows) - len(rows) - repeated
    ignored = len(raw.header) - len(set(places.values()) | {patient})
    return ClinicalTable(rows, len(raw.rows), refused, repeated, tuple(problems), ignored)


def read_cells(path: Path, *, limits: Limits = _LIMITS) -> RawTable:
    """Read a CSV file as text, within bounds. Raises what `read_clinical` raises of the file as a whole."""
    data = receive(path, limits=limits)
    if b"\0" in data:
        raise InputRejected("The table is no text in UTF-8 or Latin-1; save it as CSV.", code="TABLE_ENCODING")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    separator = _separator(text)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), start=1):
            if len(rows) > _MAX_ROWS or len(cells) > _MAX_COLUMNS or any(len(cell) > _MAX_CELL for cell in cells):
                raise InputRejected(
                    f"The table is larger than {_MAX_ROWS} rows, {_MAX_COLUMNS} columns or {_MAX_CELL} letters in a cell.",
                    code="TABLE_SIZE",
                )
            if any(cell.strip() for cell in cells):
                rows.append((number, tuple(cells)))
    except csv.Error:
        raise InputRejected("The table's quotation marks do not pair up; save it as CSV again.", code="TABLE_ENCODING") from None
    if len(rows) < 2:
        raise InputRejected("The table holds no row below a header.", code="TABLE_EMPTY")
    return RawTable(tuple(cell.strip() for cell in rows[0][1]), tuple(rows[1:]), separator)


def plain(name: str) -> str:
    """A column's name in small letters and digits: "Patient ID", "patient_id" and "PatientID" are one."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def patient_place(header: Sequence[str]) -> int | None:
    """Which column names the patients: the surest name wins, and only one column may bear it."""
    names = [plain(name) for name in header]
    for wanted in PATIENT_COLUMNS:
        if names.count(wanted) == 1:
            return names.index(wanted)
    return None


def number_of(word: str, *, decimal_comma: bool) -> float | None:
    """A finite number, or None."""
    if decimal_comma and _DECIMAL_COMMA.match(word):
        word = word.replace(",", ".")
    if not _NUMBER.match(word):
        return None
    value = float(word)
    return value if math.isfinite(value) else None


def flag_of(word: str) -> bool | None:
    """Yes or no, or None."""
    word = word.casefold()
    return True if word in _YES else False if word in _NO else None


def _separator(text: str) -> str:
    """The separator that the header line holds most of."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    counts = Counter(letter for letter in first if letter in _SEPARATORS)
    return max(_SEPARATORS, key=lambda letter: counts[letter])


def _patient_column(raw: RawTable) -> int:
    place = patient_place(raw.header)
    if place is None:
        raise InputRejected(
            f"No column, or more than one, is called one of {', '.join(PATIENT_COLUMNS[:4])}; call the column of patient ids so.",
            code="TABLE_PATIENT",
        )
    return place


def _places(raw: RawTable, columns: Mapping[str, Column]) -> dict[str, int]:
    names = [plain(name) for name in raw.header]
    wrong = [name for name in columns if names.count(plain(name)) != 1]
    if wrong:
        raise InputRejected(
            f"The header must name these columns of the contract, once each: {', '.join(wrong)}.", code="TABLE_COLUMNS"
        )
    return {name: names.index(plain(name)) for name in columns}


def _row_problem(number: int, cells: tuple[str, ...], width: int, patient: int) -> RowProblem | None:
    if len(cells) != width:
        return RowProblem(number, "", "ROW_WIDTH", f"The row has {len(cells)} cells, the header {width}.")
    if not cells[patient].strip():
        return RowProblem(number, "", "ROW_PATIENT", "The row names no patient.")
    return None


def _parsed(
    words: Sequence[str], column: Column, *, decimal_comma: bool
) -> tuple[list[ClinicalValue], dict[int, tuple[str, str]]]:
    """Values of one column, None where missing or wrong, and what is wrong by place."""
    values: list[ClinicalValue] = []
    wrong: dict[int, tuple[str, str]] = {}
    for at, word in enumerate(words):
        value: ClinicalValue = None
        if not column.is_missing(word):
            if column.kind == "number":
                value = number_of(word, decimal_comma=decimal_comma)
            elif column.kind == "flag":
                value = flag_of(word)
            elif word.isprintable():
                value = word
            if value is None:
                wrong[at] = (
                    ("CELL_TEXT", "The text holds control characters.")
                    if column.kind in {"text", "category"}
                    else ("CELL_TYPE", f"The value is no {column.kind}, and no code of a missing value.")
                )
        values.append(value)
    return values, wrong


def schema_of(columns: Mapping[str, Column]) -> pandera.DataFrameSchema:
    """The columns as a pandera schema: ranges, categories, and which may be missing."""
    found = {}
    for name, column in columns.items():
        checks = []
        if column.range is not None:
            checks.append(pandera.Check.in_range(*column.range))
        if column.categories:
            checks.append(pandera.Check.isin(column.categories))
        dtype = "Float64" if column.kind == "number" else object
        found[name] = pandera.Column(dtype, checks=checks, nullable=not column.required)
    return pandera.DataFrameSchema(found)


def _checked(frame: pd.DataFrame, columns: Mapping[str, Column], known: set[tuple[int, str]]) -> list[RowProblem]:
    """What the schema finds in cells of which nothing is known yet."""
    try:
        schema_of(columns).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as failure:
        cases = failure.failure_cases
        found = zip(cases["index"], cases["column"], cases["check"], strict=True)
        return [
            RowProblem(int(row), str(name), *_SENTENCES[str(check).partition("(")[0]])
            for row, name, check in found
            if (int(row), name) not in known
        ]
    return []


def _records(frame: pd.DataFrame, columns: Mapping[str, Column]) -> dict[int, dict[str, ClinicalValue]]:
    """Row number to values as plain Python."""
    whole = {name: _lists(frame[name], column) for name, column in columns.items()}
    return {int(number): {name: whole[name][at] for name in columns} for at, number in enumerate(frame.index)}


def _lists(series: "pd.Series[object]", column: Column) -> list[ClinicalValue]:
    missing = series.isna().tolist()
    values = series.tolist()
    if column.kind == "number":
        return [None if gone else float(value) for value, gone in zip(values, missing, strict=True)]
    return [None if gone else value for value, gone in zip(values, missing, strict=True)]


def _one_row_each(
    by_patient: Mapping[str, Sequence[int]], bad: set[int], records: Mapping[int, Mapping[str, ClinicalValue]]
) -> tuple[dict[str, Mapping[str, ClinicalValue]], list[RowProblem]]:
    """One sound row per patient; a contradiction refuses all rows of the patient."""
    rows: dict[str, Mapping[str, ClinicalValue]] = {}
    problems = []
    for patient, numbers in by_patient.items():
        sound = [number for number in numbers if number not in bad]
        if any(records[number] != records[sound[0]] for number in sound):
            sentence = "Rows of one patient say different things; keep one of them."
            problems += [RowProblem(number, "", "ROW_CONFLICT", sentence) for number in sound]
        elif sound:
            rows[patient] = MappingProxyType(dict(records[sound[0]]))
            sentence = "The row says again what an earlier row of the same patient says."
            problems += [RowProblem(number, "", "ROW_REPEATED", sentence) for number in sound[1:]]
    return rows, problems
