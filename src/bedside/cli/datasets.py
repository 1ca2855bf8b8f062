"""`bedside datasets`: the versions of a study's dataset, what differs between two, and a version without some cases."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, ComparingVersions, app, mirrored
from bedside.cli.options import Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.ingest.compare import Changes, DatasetDiff, VersionRow

_LISTED = 10


@app.command(cls=ComparingVersions)
def datasets(
    study: StudyPath = HERE,
    diff: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045 - typer reads the annotation
        typer.Option("--diff", metavar="A B", help="What differs between two versions (digests, their beginnings, or latest)."),
    ] = None,
    drop: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--drop", metavar="FILE", help="Make a version without the cases or patients named in FILE, one a line."),
    ] = None,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """List the versions of the dataset; compare two of them; or make one without some cases.

    In a study folder `bedside datasets diff A B` is the same as --diff A B; a study folder called diff is then ./diff.
    """
    config = options.load_config(study, overrides, folder)
    if drop is not None:
        return _dropped(config, drop, json=json, what_if=what_if)
    if what_if:
        return show.nothing("datasets without --drop only reads the ledger and manifests; nothing would change", json=json)
    if diff is not None:
        from bedside.ingest.compare import diff as compare

        found = compare(options.find_dataset(config, diff[0]), options.find_dataset(config, diff[1]))
        return show.as_json(found) if json else _show_diff(found)
    from bedside.ingest.compare import versions

    rows = versions(config.workspace)
    if not rows:
        raise UsageError("There is no dataset in this study folder yet; run bedside ingest first.", code="NOT_YET")
    return show.as_json([row.model_dump(mode="json") for row in rows]) if json else _show_versions(rows)


def _dropped(config: "Config", file: Path, *, json: bool, what_if: bool) -> None:
    from bedside.ingest.pipeline import summary
    from bedside.ingest.versions import drop, latest, without

    try:
        names = {line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "The file of names to drop cannot be read; give a text file, one name a line.", code="NO_FILE"
        ) from error
    if what_if:
        parent = latest(config.workspace)
        left = without(parent, config.study, names)
        count = len(parent.manifest.cases) - len(left.cases)
        said = f"a version of {parent.digest[:12]} without {count} cases, with {len(left.cases)} left"
        return show.as_json({"parent": parent.digest, "dropped": count, "cases": len(left.cases)}) if json else typer.echo(said)
    dataset = drop(config, names)
    mirrored(config, quiet=json)
    return show.as_json(summary(dataset)) if json else show.dataset(dataset)


def _show_versions(rows: "tuple[VersionRow, ...]") -> None:
    table = Table(title="datasets, newest first")
    for name in ("digest", "time (UTC)", "parent", "cases", "patients (locked)", "change", "files", "DVC"):
        table.add_column(name, no_wrap=name != "patients (locked)")
    out = show.console()
    for row in rows:
        change = [f"+{row.added}" if row.added else "", f"-{row.dropped}" if row.dropped else ""]
        change.append(f"~{row.relabelled} relabelled" if row.relabelled else "")
        table.add_row(
            row.digest[:12],
            row.time[:16].replace("T", " "),
            row.parent[:12],
            str(row.cases) if row.here else "not here",
            f"{row.patients} ({row.locked})" if row.here else "",
            " ".join(filter(None, change)),
            f"{row.received} = {row.accepted} + {sum(row.rejected.values())} + {row.duplicates}",
            row.revision[:8],
        )
    out.print(table)
    out.print("files: received = accepted + rejected + duplicate, of each version's own batch")
    for row in rows:
        if row.rejected or row.certificate:
            out.print(f"{row.digest[:12]}:")
        for code, count in sorted(row.rejected.items()):
            out.print(f"  {count:>6} {code}: {row.reasons.get(code, '')}", soft_wrap=True, markup=False)
        if row.certificate:
            out.print(f"  certificate of de-identification {row.certificate[:12]}")


def _show_diff(found: "DatasetDiff") -> None:
    out = show.console()
    table = Table(title=f"dataset {found.before[:12]} to {found.after[:12]}")
    for name in ("cases", "added", "removed", "relabelled", "changed"):
        table.add_column(name)
    table.add_row("all", *_numbers(found.all))
    for what, groups in (("site", found.by_site), ("scanner", found.by_scanner)):
        for name, changes in groups.items():
            table.add_row(f"{what} {name or 'unknown'}", *_numbers(changes))
    out.print(table)
    for kind, names in found.all.model_dump().items():
        if names:
            rest = f", and {len(names) - _LISTED} more (--json lists all)" if len(names) > _LISTED else ""
            out.print(f"{kind}: {', '.join(names[:_LISTED])}{rest}")
    out.print(f"patients in another split: {len(found.moved)}")


def _numbers(changes: "Changes") -> tuple[str, ...]:
    return tuple(str(len(names)) for names in changes.model_dump().values())
