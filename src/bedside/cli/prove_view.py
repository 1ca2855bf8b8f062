"""`bedside ingest --prove`: the geometry proof as a table."""

from itertools import groupby
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from bedside.cli import show
from bedside.cli.bars import bars
from bedside.core.errors import GateRefused

if TYPE_CHECKING:
    from bedside.ingest.prove import Proof, Row

_MANY = 10


def run(*, json: bool, verbose: bool, what_if: bool) -> None:
    """Prove, print, and refuse (exit 5) when a row is not as expected."""
    from bedside.ingest.prove import prove
    from bedside.ingest.prove_cases import proof_cases

    if what_if:
        groups = {group: len(list(cases)) for group, cases in groupby(proof_cases(), key=lambda case: case.group)}
        text = f"ingest --prove would write and read {sum(groups.values())} phantoms in a temporary folder; no study is touched"
        return show.as_json({"cases": dict(groups)}) if json else typer.echo(text)
    with bars(quiet=json) as progress:
        proof = prove(progress=progress)
    if json:
        show.as_json(proof)
    else:
        _show(proof, verbose=verbose)
    return refuse_wrong(proof)


def refuse_wrong(proof: "Proof") -> None:
    """Raise GateRefused when a row is not as expected."""
    wrong = [f"{row.group} ({row.case})" for row in proof.rows if not row.passed]
    if wrong:
        raise GateRefused(f"Geometry is not proved: {len(wrong)} of {len(proof.rows)} cases failed: {'; '.join(wrong[:5])}.")


def _show(proof: "Proof", *, verbose: bool) -> None:
    table = Table(title="geometry proof: the largest distance between where a voxel was put and where it was read")
    for column in ("case", "", "mm", "verdict", "decoder"):
        table.add_column(column, justify="right" if column == "mm" else "left")
    for _, members in groupby(proof.rows, key=lambda row: row.group):
        rows = list(members)
        whole = len(rows) > _MANY and len({(row.expected, row.verdict, row.decoder) for row in rows}) == 1
        if whole and not verbose and all(row.passed for row in rows):
            rows = [_worst(rows)]
        for row in rows:
            said = row.verdict if row.passed else f"WRONG: {row.verdict or 'unknown'}; expected {row.expected}"
            table.add_row(row.group, row.case, "-" if row.error_mm is None else f"{row.error_mm:.3f}", said, row.decoder)
    out = show.console()
    out.print(table)
    good = sum(row.passed for row in proof.rows)
    refused = sum(row.passed and row.error_mm is None for row in proof.rows)
    verdict = "proved" if proof.passed else "NOT proved"
    out.print(
        f"{verdict}: {good} of {len(proof.rows)} cases as expected, {refused} of them refused by name, {proof.seconds:.0f} s"
    )


def _worst(rows: "list[Row]") -> "Row":
    """One row for many of a kind."""
    worst = max(rows, key=lambda row: row.error_mm or 0.0)
    return worst.model_copy(update={"case": f"all {len(rows)}"})
