"""What people open of a prediction: a picture and one HTML file that needs no network."""

from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bedside.core.files import write_atomic
from bedside.data.surface import Surface
from bedside.predict.records import NOTES, CaseResult

REPORT = "report.html"


def preview(folder: Path, made: Sequence[Surface], name: str) -> bytes:
    """Write `preview.png` of some surfaces and return its bytes; without surfaces there is none."""
    if not made:
        return b""
    from bedside.predict.preview import preview_png

    picture = preview_png(made, title=f"prediction {name}")
    write_atomic(folder / "preview.png", picture, doing="writing a preview")
    return picture


def write_report(folder: Path, result: CaseResult, picture: bytes) -> None:
    """Write `report.html`. Every string is escaped by the template engine."""
    template = files("bedside.predict").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    notes = [NOTES.get(note, note) for note in result.notes]
    html = environment.from_string(template).render(result=result, notes=notes, picture=b64encode(picture).decode("ascii"))
    write_atomic(folder / REPORT, html.encode(), doing="writing a report")
