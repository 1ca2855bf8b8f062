"""`bedside recreate`: a run done again in a folder of its own, and compared with itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, app
from bedside.cli.bars import bars
from bedside.cli.options import Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import IntegrityError

if TYPE_CHECKING:
    from bedside.core.recreation import Recreated

RunName = Annotated[str, typer.Option("--run", help="Digest of a run or of its model (or the beginning), or latest.")]


@app.command()
def recreate(
    study: StudyPath = HERE,
    run: RunName = "latest",
    to: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option("--to", help="Folder to do it in: a new one, or one where this was interrupted. Default: beside the study."),
    ] = None,
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Only score the recorded model again, on the same split by the same settings.")
    ] = False,
    environment: Annotated[
        bool,
        typer.Option("--environment", help="Build the recorded packages into .venv there, from a package index, and use it."),
    ] = False,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Do a run again from what was recorded of it; exit 4 when it does not come out the same."""
    config = options.load_config(study, overrides, folder)
    from bedside.recreate import check, plan
    from bedside.recreate import recreate as step
    from bedside.second import find_run

    wanted = find_run(config.workspace, run)
    if what_if:
        planned = plan(config, wanted, to=to, score_only=score_only)
        return show.as_json(planned) if json else show.plan(planned, verb="recreate")
    with bars(quiet=json) as progress:
        found = step(config, wanted, to=to, score_only=score_only, rebuild=environment, progress=progress)
    if json:
        show.as_json(found)
        if not found.agrees:
            raise typer.Exit(IntegrityError.exit_code)
        return None
    _show(found)
    return check(found)


def _show(found: "Recreated") -> None:
    verdict = "the same" if found.same else "within the noise" if found.agrees else "NOT the same"
    table = Table(title=f"run {found.run[:12]} {found.how} again: {verdict}", show_header=False)
    table.add_row("environment", "as recorded" if found.environment_same else "another one")
    if found.built:
        table.add_row("  built of", found.built)
    for line in found.differences:
        table.add_row("  differs", line)
    if found.weights_was:
        table.add_row("weights", f"{found.weights_was[:12]}, now {found.weights_now[:12]}")
    if found.score_was is not None and found.score_now is not None:
        table.add_row(found.metric, f"{found.score_was:.4f}, now {found.score_now:.4f}")
    out = show.console()
    out.print(table)
    out.print(found.because)
