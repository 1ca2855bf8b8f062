"""`bedside quality`: what a dataset is made of, its outliers, and what stands on both sides of its split."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, app
from bedside.cli.bars import bars
from bedside.cli.options import DatasetName, Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import GateRefused

if TYPE_CHECKING:
    from bedside.ingest.quality import Outlier, QualityReport

_SHOWN = 12


@app.command()
def quality(
    study: StudyPath = HERE,
    dataset: DatasetName = "latest",
    min_count: Annotated[
        int, typer.Option("--min-count", help="Do not count groups with fewer cases: a small group can name a patient.", min=0)
    ] = 0,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Report what a dataset is made of, outliers first, and find scans that stand on both sides of its split.

    Writes reports/quality-<digest>.html and .json. Exits 5 when a scan of the locked test split also stands outside it.
    """
    config = options.load_config(study, overrides, folder)
    found = options.find_dataset(config, dataset)
    if what_if:
        cases = len(found.manifest.cases)
        text = f"quality would measure {cases} cases, compare {cases * (cases - 1) // 2} pairs, and write a report"
        return show.as_json({"dataset": found.digest, "cases": cases}) if json else typer.echo(text)
    from bedside.ingest.quality import measure_quality
    from bedside.ingest.quality_report import write_quality

    with bars(quiet=json) as progress:
        report = measure_quality(found, min_count=min_count, progress=progress)
        path = write_quality(report, found, progress=progress)
    if json:
        show.as_json({"report": str(path), **report.model_dump(mode="json", exclude={"measured"})})
    else:
        _show(report)
        typer.echo(f"report: {path}")
    if report.crossing:
        pairs = len(report.crossing)
        raise GateRefused(
            f"{pairs} {'pair' if pairs == 1 else 'pairs'} of scans that look like one cross between the locked test split and the"
            " rest; remove one of each pair, or give both the name of one patient, and ingest again.",
            code="LEAK",
        )
    return None


def _show(report: "QualityReport") -> None:
    console = show.console()
    sides = ", ".join(f"{side} {count}" for side, count in report.splits.items())
    console.print(f"dataset {report.dataset[:12]}: {report.cases} cases of {report.patients} patients; cases by split: {sides}")
    for name, rows in report.groups.items():
        known = ", ".join(f"{row.value} {'<' + str(report.min_count) if row.suppressed else row.cases}" for row in rows[:6])
        console.print(f"{name.replace('_', ' ')}: {known}{', ...' if len(rows) > 6 else ''}", markup=False)
    if report.outliers:
        worst: dict[str, Outlier] = {}
        for one in report.outliers:
            worst.setdefault(one.case, one)
        table = Table(title=f"outliers, farthest first ({len(worst)} cases; the worst number of each)")
        for name in ("case", "number", "value", "median", "z"):
            table.add_column(name)
        for one in list(worst.values())[:_SHOWN]:
            table.add_row(one.case, one.number.replace("_", " "), f"{one.value:.4g}", f"{one.median:.4g}", f"{one.z:g}")
        console.print(table)
    else:
        console.print("no outliers")
    if report.leaks:
        table = Table(title=f"the same scan twice ({len(report.leaks)} pairs)")
        for name in ("first", "second", "what", "similarity", "crosses"):
            table.add_column(name)
        for leak in report.leaks[:_SHOWN]:
            what = leak.kind.replace("_", " ") + (", one patient" if leak.same_patient else "")
            table.add_row(leak.first, leak.second, what, f"{leak.similarity:.3f}", leak.crosses or "no")
        console.print(table)
    else:
        console.print("no scan stands there twice")
