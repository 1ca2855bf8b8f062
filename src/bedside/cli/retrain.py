"""`bedside retrain`: the same training on a newer version of the dataset, and what `--control` prints."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, app, mirrored
from bedside.cli.bars import bars
from bedside.cli.options import Folder, Json, Overrides, StudyPath, WhatIf

if TYPE_CHECKING:
    from bedside.core.transfer import Retrained, Transfer


@app.command()
def retrain(
    study: StudyPath = HERE,
    run: Annotated[
        str, typer.Option("--from", help="The old run: its digest or its model's (or the beginning), or latest.")
    ] = "latest",
    data: Annotated[
        str, typer.Option("--data", help="The new version of the dataset: digest (or its beginning) or latest.")
    ] = "latest",
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Begin with the old model's weights; without it, by chance as the old run did.")
    ] = False,
    control: Annotated[
        bool,
        typer.Option(
            "--control", help="With --fine-tune: also train from scratch, and judge on the left-out fold which is better."
        ),
    ] = False,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Train on a newer version with plan and test patients frozen, and compare the old model with the new one."""
    config = options.load_config(study, overrides, folder)
    dataset = options.find_dataset(config, data)
    from bedside.adapters.live import tracked
    from bedside.retrain import plan
    from bedside.retrain import retrain as step
    from bedside.second import find_run

    old = find_run(config.workspace, run)
    if what_if:
        planned = plan(config, old, dataset, fine_tune=fine_tune, control=control)
        return show.as_json(planned) if json else show.plan(planned, verb="retrain")
    with bars(quiet=json) as shown, tracked(config, shown) as progress:
        found = step(config, old, dataset, fine_tune=fine_tune, control=control, progress=progress)
    mirrored(config, quiet=json)
    return show.as_json(found) if json else _show(found)


def _show(found: "Retrained") -> None:
    how = "fine-tuned" if found.fine_tuned else "trained"
    title = f"model {found.from_model[:12]} and, {how} on {found.dataset[:12]}, {found.model[:12]}"
    table = Table(title=title)
    for name in ("patients", "n", f"old {found.metric}", f"new {found.metric}", "new - old, with its interval"):
        table.add_column(name, justify="left" if name == "patients" else "right")
    for row in found.rows:
        apart = row.difference
        said = f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"
        table.add_row(row.of, str(row.n), f"{row.old:.4f}", f"{row.new:.4f}", said)
    out = show.console()
    out.print(table)
    if found.verdict:
        out.print(f"control from scratch: {found.verdict} ({found.transfer[:12]})")


def show_transfer(found: "Transfer", digest: str) -> None:
    """The verdict on beginning with other weights."""
    out = show.console()
    out.print(f"{found.verdict}: {found.because}")
    out.print(f"control {found.control[:12]}, finding {digest[:12]}")
