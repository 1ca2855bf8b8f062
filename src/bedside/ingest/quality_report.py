"""The quality report of a dataset: one HTML file that opens offline, and the same numbers as JSON beside it."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined

from bedside.core.dataset import Dataset
from bedside.core.digest import canonical_json
from bedside.core.errors import disk_errors
from bedside.core.files import write_atomic
from bedside.core.progress import SILENT, Progress
from bedside.ingest.quality import OUTLIER_Z, CaseQuality, QualityReport, volume_of
from bedside.ingest.quality_figures import data_address, histograms, thumbnail

MOST_PICTURES = 60
_MOST_ROWS = 400


@dataclass(frozen=True)
class Picture:
    """Three planes of one case."""

    case: str
    data: str
    why: str


@dataclass(frozen=True)
class Spread:
    """One number over all cases, in words."""

    name: str
    smallest: str
    median: str
    largest: str
    n: int


def write_quality(report: QualityReport, dataset: Dataset, *, progress: Progress = SILENT) -> Path:
    """Write `quality-<digest>.html` and `.json` into the study's reports and return the path of the HTML.

    Pictures are of development cases only, outliers first: whoever looks at the locked test split learns something of it.

    Raises:
        ResourceError: the disk is full; no half-written report is left.
    """
    name = f"quality-{report.dataset[:12]}"
    folder = dataset.workspace.reports
    html = render(report, dataset, progress=progress)
    with disk_errors("writing the quality report"):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.json", canonical_json(report.model_dump(mode="json")), doing="writing the quality report")
    write_atomic(folder / f"{name}.html", html.encode(), doing="writing the quality report")
    return folder / f"{name}.html"


def render(report: QualityReport, dataset: Dataset, *, progress: Progress = SILENT) -> str:
    """The report as HTML. Every string is escaped by the template engine."""
    template = files("bedside.ingest").joinpath("quality.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        pictures=_pictures(report, dataset, progress),
        histogram=data_address(histograms(report.measured)) if report.measured else "",
        spreads=spreads(report.measured),
        most=_MOST_ROWS,
        z=OUTLIER_Z,
    )


def spreads(measured: tuple[CaseQuality, ...]) -> tuple[Spread, ...]:
    """Smallest, median and largest of every number."""
    found = []
    for name in dict.fromkeys(name for case in measured for name in case.numbers):
        values = np.array([case.numbers[name] for case in measured if name in case.numbers])
        low, middle, high = (f"{value:.4g}" for value in (values.min(), np.median(values), values.max()))
        found.append(Spread(name.replace("_", " "), low, middle, high, len(values)))
    return tuple(found)


def _pictures(report: QualityReport, dataset: Dataset, progress: Progress) -> tuple[Picture, ...]:
    """Thumbnails of at most 60 development cases: outliers and leaks first, the rest spread evenly."""
    shown = {case.case for case in report.measured if case.side != "test"}
    why: dict[str, str] = {}
    for outlier in report.outliers:
        if outlier.case in shown:
            why.setdefault(outlier.case, f"{outlier.number.replace('_', ' ')}: z {outlier.z:g}")
    for leak in report.leaks:
        for case in {leak.first, leak.second} & shown:
            why.setdefault(case, "like another case")
    chosen = list(why)[:MOST_PICTURES]
    rest = [case.case for case in report.measured if case.case in shown and case.case not in why]
    room = MOST_PICTURES - len(chosen)
    if rest and room > 0:
        chosen += [rest[round(place)] for place in np.linspace(0, len(rest) - 1, min(room, len(rest)))]
    records = {case.id: case for case in dataset.manifest.cases}
    progress.start("drawing cases", len(chosen))
    found = []
    for number, case in enumerate(chosen, start=1):
        image = volume_of(dataset, records[case], "image")
        if image is not None:
            png = thumbnail(image, volume_of(dataset, records[case], "label"))
            found.append(Picture(case, data_address(png), why.get(case, "")))
        progress.advance(number)
    return tuple(found)
