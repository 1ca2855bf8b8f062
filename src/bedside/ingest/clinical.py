"""The clinical table beside the scans: whose values it gives, and what became of its rows."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.config import Study
from bedside.core.dataset import ClinicalRows
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.formats.table import ClinicalTable


def clinical_table(source: Path, study: Study) -> "ClinicalTable | None":
    """Read the study's table below `source`; None where the study names none.

    Raises:
        UsageError: NO_SOURCE: the file is not there.
        InputRejected: the table as a whole cannot be read.
    """
    if study.source.clinical is None:
        return None
    path = source / study.source.clinical
    if not path.is_file():
        raise UsageError(
            "The clinical table that source.clinical names is not in the received folder; put it there, or set it to null.",
            code="NO_SOURCE",
        )
    from bedside.formats.table import read_clinical  # pandas takes a second to load, and few studies have a table

    return read_clinical(path, study.contract.clinical)


def rows_of(table: "ClinicalTable | None", patients: Collection[str]) -> ClinicalRows | None:
    """Count what became of the rows.

    Args:
        table: as read.
        patients: of accepted cases, as received.
    """
    if table is None:
        return None
    return ClinicalRows(
        received=table.received,
        accepted=table.accepted,
        refused=table.refused,
        repeated=table.repeated,
        reasons=dict(sorted(Counter(problem.code for problem in table.problems).items())),
        unmatched=sum(patient not in patients for patient in table.rows),
    )
