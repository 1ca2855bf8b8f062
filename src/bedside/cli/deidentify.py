"""The verb that takes identity out of a received folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, app
from bedside.cli.bars import bars
from bedside.cli.options import Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.ingest.certificate import Certificate, Plan

Source = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--from", help="Folder of DICOM files as received; it is not changed."),
]
Target = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--to", help="Folder for the files without identity, named by hashes."),
]


@app.command()
def deidentify(
    study: StudyPath = HERE,
    source: Source = None,
    target: Target = None,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Take identity out of DICOM files (PS3.15 Basic Profile), and certify it; what cannot be cleaned waits in quarantine."""
    if source is None or (target is None and not what_if):
        raise UsageError("Say from where and to where: bedside deidentify STUDY --from FOLDER --to FOLDER.", code="NO_SOURCE")
    config = options.load_config(study, overrides, folder)
    from bedside.adapters.site import executor_for
    from bedside.ingest.deidentify import deidentify as step
    from bedside.ingest.deidentify import plan

    with bars(quiet=json) as progress, executor_for(config) as executor:
        if target is None or what_if:
            planned = plan(config, source, executor=executor, progress=progress)
            return show.as_json(planned) if json else _show_plan(planned)
        digest, certificate = step(config, source, target, executor=executor, progress=progress)
    if json:
        return show.as_json({"certificate": digest, **certificate.model_dump(mode="json")})
    return _show_certificate(digest, certificate)


def _show_plan(planned: "Plan") -> None:
    """Each action, without any value."""
    title = "bedside deidentify would do this (nothing was done)"
    table = Table(title=title, min_width=len(title) + 4)
    for name in ("tag", "attribute", "what", "rule", "files"):
        table.add_column(name, justify="right" if name == "files" else "left")
    for one in planned.actions:
        table.add_row(one.tag, one.keyword, one.what, one.because, str(one.count))
    out = show.console()
    out.print(table)
    rejected = ", ".join(f"{count} {code}" for code, count in planned.would_reject.items()) or "none"
    out.print(f"files: {planned.received}; to be written: {planned.would_write}; duplicates: {planned.duplicates}")
    out.print(f"rejected: {rejected}")


def _show_certificate(digest: str, certificate: "Certificate") -> None:
    """Counts, codes and the certificate's digest."""
    table = Table(title=f"de-identification certificate {digest[:12]}", show_header=False)
    table.add_row("files received", str(certificate.received))
    rejected = sum(certificate.rejected.values())
    table.add_row("written / rejected / duplicate", f"{certificate.written} / {rejected} / {certificate.duplicates}")
    for code, count in certificate.rejected.items():
        table.add_row(f"  {code}", f"{count} in quarantine")
    table.add_row("patients / studies / series", f"{certificate.patients} / {certificate.studies} / {certificate.series}")
    table.add_row("profile", certificate.profile.partition(";")[0])
    table.add_row("codes", ", ".join(certificate.codes))
    table.add_row("key", certificate.key_id)
    table.add_row("attributes changed", str(sum(one.count for one in certificate.actions)))
    table.add_row("searches for what was known", f"{certificate.searched}, none found")
    if certificate.masked or certificate.faces_waived:
        table.add_row("masked / faces waived", f"{certificate.masked} / {certificate.faces_waived}")
    show.console().print(table)
