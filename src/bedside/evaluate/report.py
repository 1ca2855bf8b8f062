"""One self-contained HTML file of some evidence, and the same as JSON beside it. It opens offline, and no network is asked.

Nothing in it comes from a clock: the date is that of the `evaluated` event, so equal evidence in one ledger gives equal bytes.
"""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bedside.core.errors import disk_errors
from bedside.core.evidence import Evidence
from bedside.core.files import write_atomic
from bedside.core.workspace import Workspace
from bedside.evaluate.pipeline import digest_of, encoded
from bedside.evaluate.view import view


def write_report(evidence: Evidence, workspace: Workspace) -> Path:
    """Write `evaluation-<digest>.html` and `.json` into the study's reports and return the path of the HTML.

    Args:
        evidence: as `evaluate` returned it.
        workspace: the study; its ledger gives date and head, its scratch folder the pictures of the worst and the median case.

    Raises:
        ResourceError: the disk is full; no half-written report is left.
    """
    digest = digest_of(evidence)
    name = f"evaluation-{digest[:12]}"
    html = render(evidence, workspace)
    with disk_errors("writing the report"):
        workspace.reports.mkdir(parents=True, exist_ok=True)
    write_atomic(workspace.reports / f"{name}.json", encoded(evidence), doing="writing the report")
    path = workspace.reports / f"{name}.html"
    write_atomic(path, html.encode(), doing="writing the report")
    return path


def render(evidence: Evidence, workspace: Workspace) -> str:
    """The report as HTML. Every string is escaped by the template engine."""
    template = files("bedside.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(report=view(evidence, workspace))
