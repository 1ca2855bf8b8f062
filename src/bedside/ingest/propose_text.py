"""A proposed study as a commented file: what was seen stands beside each line, and what a person must decide is said."""

import json
import math
from collections.abc import Iterator
from importlib.resources import files

import numpy as np

from bedside.core.clinical import MISSING, Column
from bedside.ingest.propose import Sight

_SPACING_ROOM = 1.25
_CT_LOW, _CT_HIGH = -2048.0, 4096.0
_FEW_PATIENTS = 12


def study_text(sight: Sight, *, name: str = "new-study") -> str:
    """Write `study.yaml` from what was seen.

    Args:
        sight: as `look_around` returned it.
        name: of the study; never taken from a folder, whose name may be a patient's.
    """
    template = files("bedside.ingest").joinpath("propose.txt").read_text(encoding="utf-8")
    values = {
        "NAME": json.dumps(name),
        "SEEN": _seen(sight),
        "CONTRACT": "\n".join(_indented(_contract(sight))),
        "SOURCE": "\n".join(_indented(_source(sight))),
        "SPLIT": _split(sight),
        "FOLD": f"{'0' if sight.patients > 1 else 'null':<13}",
    }
    for key, value in values.items():
        template = template.replace(f"<{key}>", value)
    return template


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _seen(sight: Sight) -> str:
    part = "all" if sight.whole else "a sample"
    refused = ", ".join(f"{code} {count}" for code, count in list(sight.refused.items())[:8])
    volumes = f"{sight.volumes} sound volumes of {sight.patients} patients"
    lines = [f"# Seen: {sight.files} files, {part} of them looked at; {volumes}; {sight.masks} masks read."]
    if refused:
        lines.append(f"# Files that would be refused, by reason: {refused}.")
    return "\n".join(lines)


def _contract(sight: Sight) -> Iterator[str]:
    others = ", ".join(f"{name or 'unnamed'} {count}" for name, count in sight.modalities.items())
    why = "guessed from the values: NIfTI names none; correct it if it is wrong" if sight.guessed else f"volumes: {others}"
    yield f"modality: {sight.modality}   # {why}"
    spacings = np.asarray(sight.spacings_mm)
    low, high = float(spacings.min()), float(spacings.max())
    yield (
        f"spacing_mm: [{_down(low / _SPACING_ROOM):g}, {_up(high * _SPACING_ROOM):g}]   # found {low:.3g} to {high:.3g} mm;"
        " narrow it to what the model should see"
    )
    looked, plausible = sight.hounsfield
    if sight.modality == "CT":
        lowest, highest = sight.values
        floor, ceiling = min(_CT_LOW, _down(lowest * 1.25)), max(_CT_HIGH, _up(highest * 1.25))
        yield "unit: HU"
        yield f"value_range: [{floor:g}, {ceiling:g}]   # found {lowest:g} to {highest:g}"
        if plausible < looked:
            yield f"hu_check: false   # {looked - plausible} of {looked} hold no plausible HU; look at them"
        else:
            yield f"hu_check: true   # air near -1000 where there is air; all {looked} volumes that were read pass"
    else:
        yield "unit: arbitrary   # MR values have no unit; any finite value passes"
    yield from _labels(sight)
    shapes = np.asarray(sight.shapes)
    yield f"min_extent_voxels: {max(1, min(16, int(shapes.min()) // 2))}   # the smallest axis has {int(shapes.min())}"
    extent = (spacings * shapes).min(axis=0)
    yield f"# min_extent_mm: [{', '.join(f'{_down(float(mm) * 0.9):g}' for mm in extent)}]   # right-left, front-back, head-foot"
    if sight.sheared:
        found = f"{sight.sheared} of {sight.volumes} volumes have axes that are not perpendicular, and are refused (SHEAR)"
        yield f"# sheared: true   # {found}; know why before you take the first # away"
    if sight.body_parts:
        counted = ", ".join(f"{part} {count}" for part, count in sight.body_parts.items())
        yield f"# body_part: [{', '.join(sight.body_parts)}]   # headers say: {counted}; take the first # away to refuse others"
    yield "plane: any   # or axial, coronal, sagittal"
    yield from _clinical(sight)


def _labels(sight: Sight) -> Iterator[str]:
    if not sight.codes:
        yield "labels: {background: 0, structure_1: 1}   # no masks were found: name what you want to segment"
        return
    yield "labels:   # rename each structure; the order is the order of the model's outputs"
    names = {0: "background"} | {
        code: f"structure_{number}" for number, code in enumerate((c for c in sight.codes if c), start=1)
    }
    if len(names) == 1:
        names[1] = "structure_1"
    for code, name in sorted(names.items()):
        masks, ml = sight.codes.get(code, (0, 0.0))
        told = f"in {masks} of {sight.masks} masks, about {ml:.3g} ml" if masks else "in no mask that was read"
        yield f"  {name}: {code}   # {told}"
    yield 'label_map_version: "1"'
    yield '# terms: {structure_1: {scheme: SCT, value: "...", meaning: "..."}}   # SNOMED CT, for others'


def _clinical(sight: Sight) -> Iterator[str]:
    if sight.source.clinical is None:
        return
    left = f"; {sight.columns_left} columns with free text, dates or names are left out" if sight.columns_left else ""
    if not sight.columns:
        yield f"# clinical: the table has {sight.rows} rows{left}, and no column is left to be named"
        return
    yield f"clinical:   # {sight.rows} rows{left}"
    for name, column in sight.columns.items():
        yield f"  {json.dumps(name)}: {_column(column)}"


def _column(column: Column) -> str:
    parts = [f"kind: {column.kind}"]
    if column.range is not None:
        parts.append(f"range: [{column.range[0]:g}, {column.range[1]:g}]")
    if column.categories:
        parts.append(f"categories: {json.dumps(list(column.categories))}")
    if column.missing != MISSING:
        parts.append(f"missing: {json.dumps(list(column.missing))}")
    return "{" + ", ".join(parts) + "}"


def _source(sight: Sight) -> Iterator[str]:
    source = sight.source
    everything = "   # the whole folder, in whatever order" if source.images == "." else ""
    yield f"images: {json.dumps(source.images)}{everything}"
    missing = "   # no folder of masks was recognised: without masks there is nothing to train on"
    yield "labels: null" + missing if source.labels is None else f"labels: {json.dumps(source.labels)}"
    if source.clinical is not None:
        yield f"clinical: {json.dumps(source.clinical)}"
    yield "identity: pseudonym   # names become keyed hashes (key: BEDSIDE_KEY); keep only for data without persons behind it"
    if reformats := sight.refused.get("DCM_REFORMAT"):
        yield f"# keep_reformats: true   # {reformats} files are reformats, projections or renderings, and would be set aside"
    yield "# site: north   # name of the hospital, the same for every case"


def _split(sight: Sight) -> str:
    """A division that the patients who were seen can fill."""
    if sight.patients >= _FEW_PATIENTS:
        return "split: {test: 0.2, folds: 5, seed: 0}   # by patient; the test split is locked"
    folds = max(min(2, sight.patients), min(5, sight.patients - 2))
    test = 0.2 if sight.patients > 2 else 0
    why = "so few patients that no score will mean much" if sight.patients > 1 else "one patient: nothing to divide"
    return f"split: {{test: {test}, folds: {folds}, seed: 0}}   # {why}"


def _down(value: float) -> float:
    unit = _unit(value)
    return float(f"{math.floor(value / unit) * unit:.6g}")


def _up(value: float) -> float:
    unit = _unit(value)
    return float(f"{math.ceil(value / unit) * unit:.6g}")


def _unit(value: float) -> float:
    """The place of the second digit."""
    return 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 1.0
