"""`bedside init`: look at a received folder and propose a study for it."""

import re
from pathlib import Path
from typing import Annotated

import typer

from bedside.cli import show
from bedside.cli.app import app
from bedside.cli.bars import bars
from bedside.cli.options import Json
from bedside.core.errors import UsageError, disk_errors

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@app.command()
def init(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A hospital's export, or NIfTI images and masks.")],
    out: Annotated[Path, typer.Option("--out", help="Study file to write; one that is there already is never touched.")] = Path(
        "study.yaml"
    ),
    name: Annotated[str, typer.Option("--name", help="Name of the study: letters, digits, dots, dashes.")] = "new-study",
    json: Json = False,
) -> None:
    """Look at a folder of scans and write a commented study.yaml with a contract that they keep.

    A sample of headers, voxels, masks and a clinical table is read. No name, id or text of a header or cell is written.
    """
    if not _NAME.match(name):
        raise UsageError("A study's name has letters, digits, dots, dashes and underscores only, at most 64.", code="NAME")
    if out.exists():
        raise UsageError(f"{out} is there already and is not touched; choose another file with --out.", code="EXISTS")
    from bedside.ingest.propose import look_around
    from bedside.ingest.propose_text import study_text

    with bars(quiet=json) as progress:
        sight = look_around(source, progress=progress)
    text = study_text(sight, name=name)
    with disk_errors("writing the study file"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as stream:
            stream.write(text)
    if json:
        return show.as_json({"study": str(out), "volumes": sight.volumes, "masks": sight.masks, "modality": sight.modality})
    return typer.echo(
        f"{out}: {sight.modality}, {sight.volumes} volumes and {sight.masks} masks looked at;"
        " read it, rename the structures, then:\n"
        f"  bedside ingest {out} --from FOLDER"
    )
