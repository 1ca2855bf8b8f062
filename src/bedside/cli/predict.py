"""`bedside predict`: a model on received series."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from bedside.cli import options, show
from bedside.cli.app import HERE, app
from bedside.cli.bars import bars
from bedside.cli.options import Folder, Json, ModelName, Overrides, StudyPath, WhatIf
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.predict.records import PredictResult

_FORMATS = ("stl", "ply", "obj")


@app.command()
def predict(
    study: StudyPath = HERE,
    source: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option("--from", help="Folder of DICOM series, a DICOM file or a NIfTI file."),
    ] = None,
    to: Annotated[Optional[Path], typer.Option("--to", help="Folder of the results, one folder per series.")] = None,  # noqa: UP045
    model: ModelName = "latest",
    seg: Annotated[bool, typer.Option("--seg/--no-seg", help="Write a DICOM segmentation in the scanner's own slices.")] = True,
    labelmap: Annotated[bool, typer.Option("--labelmap", help="Write it as a label map, the newer and smaller form.")] = False,
    mesh: Annotated[str, typer.Option("--mesh", help="Formats of the surfaces: stl, ply, obj, or none.")] = "stl",
    faces: Annotated[int, typer.Option("--faces", min=100, help="Most triangles of one structure.")] = 200_000,
    smoothing: Annotated[int, typer.Option("--smoothing", min=0, max=200, help="Pairs of smoothing steps; 0: none.")] = 16,
    remove_islands: Annotated[
        bool, typer.Option("--remove-islands", help="Leave parts of a structure below 50 mm3 out of its surface.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put results in the place of those of another model.")] = False,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Predict received series: masks, surfaces in patient millimetres (LPS), DICOM segmentation, preview, report."""
    if source is None or to is None:
        raise UsageError("Say what to predict and where to: bedside predict STUDY --from SERIES --to FOLDER.", code="NO_SOURCE")
    config = options.load_config(study, overrides, folder)
    found = options.find_model(config, model)
    chosen = _formats(mesh)
    from bedside.adapters.site import executor_for
    from bedside.data.surface import SurfaceSettings
    from bedside.formats.limited import MODULES
    from bedside.predict.pipeline import plan
    from bedside.predict.pipeline import predict as step
    from bedside.predict.records import PredictSettings

    surface = SurfaceSettings(smoothing=smoothing, faces=faces, remove_islands=remove_islands)
    asked = {
        "seg": seg,
        "seg_kind": "LABELMAP" if labelmap else "BINARY",
        "meshes": chosen,
        "surface": surface,
        "replace": replace,
    }
    settings = PredictSettings.model_validate({**asked, "keep_reformats": config.study.source.keep_reformats})
    with executor_for(config, modules=MODULES) as executor:
        if what_if:
            planned = plan(found, source, to, settings=settings, executor=executor)
            return show.as_json(planned) if json else show.plan(planned, verb="predict")
        with bars(quiet=json) as progress:
            result = step(found, source, to, settings=settings, executor=executor, progress=progress)
    return show.as_json(result) if json else _show(result, to)


def _formats(text: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if wanted == ("none",):
        return ()
    if not wanted or set(wanted) - set(_FORMATS):
        raise UsageError(f"Write --mesh as some of {', '.join(_FORMATS)} with commas between, or none.", code="MESH_FORMAT")
    return wanted


def _show(result: "PredictResult", to: Path) -> None:
    """One table per series, and what was refused."""
    out = show.console()
    for case in result.cases:
        table = Table(title=f"{to / case.case}")
        for name in ("structure", "ml", "faces", "closed", "95 % within", "in 1/2 voxel", "volume change"):
            table.add_column(name, justify="left" if name == "structure" else "right")
        for one in case.surfaces:
            table.add_row(
                one.structure,
                f"{one.mask_ml:.1f}",
                f"{one.faces}",
                "yes" if one.watertight and one.outward else "NO",
                f"{one.p95_mm:.2f} mm",
                f"{100 * one.within_half_voxel:.1f} %",
                f"{100 * one.volume_change:+.2f} %",
            )
        out.print(table)
        for one in case.surfaces:
            if one.problem:
                out.print(f"{one.structure}: {one.problem}")
        notes = f"; notes: {', '.join(case.notes)}" if case.notes else ""
        out.print(f"{len(case.files)} files, model {case.model[:12]}, {sum(case.seconds.values()):.1f} s{notes}")
    for refusal in result.refused:
        out.print(f"not predicted: {refusal.code} ({refusal.files} files): {refusal.sentence}")
    refused = sum(one.files for one in result.refused)
    out.print(
        f"received {result.received} files: {result.predicted_files} predicted, {refused} refused, {result.duplicates} duplicate"
    )
