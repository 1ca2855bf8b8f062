"""`bedside init`: look at a received folder and propose a study for it."""

import re
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from bedside.cli import show
from bedside.cli.app import app
from bedside.cli.bars import bars
from bedside.cli.options import Json, WhatIf
from bedside.core.errors import UsageError, disk_errors

if TYPE_CHECKING:
    from bedside.ingest.propose import Sight

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@app.command()
def init(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A hospital's export, or NIfTI images and masks.")],
    out: Annotated[Path, typer.Option("--out", help="Study file to write; one that is there already is never touched.")] = Path(
        "study.yaml"
    ),
    name: Annotated[str, typer.Option("--name", help="Name of the study: letters, digits, dots, dashes.")] = "new-study",
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Look at a folder of scans and write a commented study.yaml with a contract that they keep.

    A sample of headers, voxels, masks and a clinical table is read. No name, id or text of a header or cell is written.
    """
    if not _NAME.match(name):
        raise UsageError("A study's name has letters, digits, dots, dashes and underscores only, at most 64.", code="NAME")
    if out.exists() and not what_if:
        raise UsageError(f"{out} is there already and is not touched; choose another file with --out.", code="EXISTS")
    from bedside.ingest.propose import look_around
    from bedside.ingest.propose_text import study_text

    with bars(quiet=json) as progress:
        sight = look_around(source, progress=progress)
    text = study_text(sight, name=name)
    if what_if:
        return show.as_json({"text": text, **_seen(sight)}) if json else typer.echo(text, nl=False)
    with disk_errors("writing the study file"):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
            raise UsageError("No new file can be made at the place of --out; choose another one.", code="EXISTS") from error
    if json:
        return show.as_json({"study": str(out), **_seen(sight)})
    refused = sum(sight.refused.values())
    typer.echo(
        f"{out}: {sight.modality}; looked at {_count(sight.volumes, 'volume')} of {_count(sight.patients, 'patient')}"
        f" and {_count(sight.masks, 'mask')};"
        f" {_count(refused, 'file')} would be refused" + (", the file says why" if refused else "")
    )
    typer.echo(
        "Read it, name the structures, keep a secret for the pseudonyms, then ask what would be taken:\n"
        '  export BEDSIDE_KEY="$(openssl rand -hex 16)"\n'
        f"  bedside ingest {quote(str(out))} --from FOLDER --what-if"
    )
    return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _seen(sight: "Sight") -> dict[str, JsonValue]:
    """What a program wants to know of it."""
    return {
        "volumes": sight.volumes,
        "patients": sight.patients,
        "masks": sight.masks,
        "modality": sight.modality,
        "refused": dict(sight.refused),
    }
