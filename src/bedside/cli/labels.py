"""`bedside labels`: what a study's masks mean, and what differs between two label maps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from pydantic import ValidationError
from rich.table import Table

from bedside.cli import show
from bedside.cli.app import HERE, Comparing, app
from bedside.cli.options import Json, load_config
from bedside.core.errors import GateRefused, UsageError

if TYPE_CHECKING:
    from bedside.core.labels import LabelDiff, LabelMap


@app.command(cls=Comparing)
def labels(
    before: Annotated[
        Path, typer.Argument(metavar="V1", help="Study file or folder, JSON label map, or STUDY@DATASET.", show_default=True)
    ] = HERE,
    after: Annotated[Optional[Path], typer.Argument(metavar="V2", help="The other one, of any of these kinds.")] = None,  # noqa: UP045
    json: Json = False,
) -> None:
    """Show a label map, or what differs between two; exits 5 when a model of one would be wrong on the other.

    A model puts out training ids, so structures that are added, removed, reordered or given another term break it. Other codes in
    the masks do not: ingest maps codes to ids. DATASET is a digest, its beginning, or latest. `bedside labels diff V1 V2` is the
    same as `bedside labels V1 V2`; a folder called diff is then ./diff.
    """
    first = read_label_map(before)
    if after is None:
        return show.as_json({"digest": first.digest, **first.model_dump(mode="json")}) if json else _show_map(first)
    from bedside.core.labels import diff_labels

    found = diff_labels(first, read_label_map(after))
    if json:
        show.as_json({**found.model_dump(mode="json"), "breaks": found.breaks})
    else:
        _show_diff(found)
    if found.breaks:
        count = sum(change.breaks for change in found.changes)
        raise GateRefused(
            f"{count} {'change breaks' if count == 1 else 'changes break'} every model trained on the first label map; train"
            " again, or keep to one map.",
            code="LABEL_MAP",
        )
    return None


def read_label_map(place: Path) -> "LabelMap":
    """Read the label map of a study, of a dataset in it (STUDY@DATASET), or of a JSON file.

    Raises:
        UsageError: there is none.
        ConfigError: the study is wrong.
    """
    from bedside.cli.options import find_dataset
    from bedside.core.labels import LabelMap

    study, at, dataset = str(place).rpartition("@")
    if at and not place.exists():
        return find_dataset(load_config(Path(study), None, None), dataset).contract.label_map
    if place.suffix.lower() != ".json":
        return load_config(place, None, None).study.contract.label_map
    try:
        return LabelMap.model_validate_json(place.read_bytes())
    except OSError as error:
        raise UsageError("There is no such label map; check the path.", code="NO_LABELS") from error
    except ValidationError as error:
        raise UsageError(
            'The file is no label map; it must hold {"labels": [[name, code], ...]}, and may hold terms and version.',
            code="NO_LABELS",
        ) from error


def _show_map(found: "LabelMap") -> None:
    table = Table(title=f"label map {found.digest[:12]}, version {found.version}")
    for name in ("id", "structure", "code", "term"):
        table.add_column(name)
    for number, (name, code) in enumerate(found.labels.items()):
        term = found.terms.get(name)
        table.add_row(str(number), name, str(code), f"{term.scheme} {term.value} ({term.meaning})" if term else "")
    show.console().print(table)


def _show_diff(found: "LabelDiff") -> None:
    if not found.changes:
        return show.console().print(f"both are label map {found.before[:12]}")
    table = Table(title=f"label map {found.before[:12]} -> {found.after[:12]}")
    for name in ("what", "structure", "before", "after", "breaks a model"):
        table.add_column(name)
    for change in found.changes:
        table.add_row(change.kind, change.name, change.before, change.after, "yes" if change.breaks else "no")
    return show.console().print(table)
