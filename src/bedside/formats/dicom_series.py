"""The volumes of one series: what is set aside, what refuses the series as a whole, and what becomes of each part."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bedside.core.case import ClinicalValue
from bedside.core.contract import CORNER_TOLERANCE_MM
from bedside.core.digest import digest_json
from bedside.core.errors import InputRejected
from bedside.core.volume import Frame, Volume
from bedside.formats.dicom_geometry import Stack, stack
from bedside.formats.dicom_header import Facts
from bedside.formats.dicom_pixels import Slice, load_stack, padding_is_air
from bedside.formats.dicom_split import Division, Slices, by_grid, by_marks
from bedside.formats.dicom_syntax import decoder_of
from bedside.formats.dicom_tilt import correction
from bedside.formats.found import Found, Refused
from bedside.formats.gate import Limits

Damage = tuple[Path, InputRejected]

_SET_ASIDE = frozenset(
    {"DCM_LOCALIZER", "DCM_DERIVED", "DCM_DOSE_SCREEN", "DCM_NOT_AN_IMAGE", "DCM_SECONDARY_CAPTURE", "DCM_DIRECTORY"}
)
"""Refusals that leave the rest of a series whole."""
_DERIVED = "This is a derived image among originals; it is set aside."
_REFORMATTED = (
    "This is a reformat, projection or rendering of another series (ImageType); it is set aside unless source.keep_reformats says"
    " otherwise."
)
_MIXED = {
    "FRAME": ("SERIES_MIXED_FRAME", "The slices lie in different frames of reference."),
    "ORIENTATION": ("SERIES_MIXED_ORIENTATION", "The slices point in different directions; split the series."),
    "GRID": ("SERIES_MIXED_GRID", "The slices have different sizes or pixel spacings; split the series."),
}


@dataclass(frozen=True)
class Rules:
    """How series are made volumes.

    Attributes:
        limits: the gate's.
        resample: bring slices at unequal distances onto a regular row; otherwise they are refused.
        keep_reformats: take series of nothing but reformats, projections and renderings; otherwise those are set aside.
    """

    limits: Limits
    resample: bool = False
    keep_reformats: bool = False


def volumes_of(name: str, members: Sequence[Slice], damaged: Sequence[Damage], rules: Rules) -> tuple[list[Found], list[Refused]]:
    """Make volumes of one series' sound slices, or say why there are none.

    Args:
        name: SeriesInstanceUID as received.
        members: the slices, of one patient or not.
        damaged: its files that were refused.
        rules: the limits, and what is done with uneven stacks and with reformats.

    Returns:
        The volumes, and the refused files; a file of several frames is refused only when none of its frames is in a volume.
    """
    slices, aside = _set_aside(members, rules)
    leftovers = gather((one.path, problem) for problem, those in aside for one in those)
    if not slices:
        return [], leftovers
    found, refused = _parts(slices, damaged, rules)
    found = [_with_losses(one, [*leftovers, *refused]) for one in found]
    taken = {path for one in found for path in one.files}
    return [_named(one, name, number if len(found) > 1 else 0) for number, one in enumerate(found, 1)], _once(
        [*leftovers, *refused], taken
    )


def _parts(slices: Slices, damaged: Sequence[Damage], rules: Rules) -> tuple[list[Found], list[Refused]]:
    """The volumes of what was not set aside, or why there are none."""
    try:
        _check_whole(damaged)
        _check_alike(slices)
        division = by_grid(slices)
    except InputRejected as problem:
        return [], [Refused(_files(slices), problem.code, problem.sentence)]
    found, refused = _volumes(division, rules)
    if not found and division.by:
        code, sentence = _MIXED[division.by]
        return [], [Refused(_files(slices), code, sentence)]
    return found, refused


def _once(refused: Sequence[Refused], taken: set[Path]) -> list[Refused]:
    """Each file with its first refusal, and none that is taken: a file of several frames may be refused for several reasons."""
    seen, left = set(taken), []
    for one in refused:
        files = tuple(path for path in one.files if path not in seen)
        seen.update(files)
        if files:
            left.append(Refused(files, one.code, one.sentence))
    return left


def gather(problems: Iterable[Damage]) -> list[Refused]:
    """Files refused with the same sentence become one entry."""
    groups: dict[tuple[str, str], dict[Path, None]] = defaultdict(dict)
    for path, problem in problems:
        groups[problem.code, problem.sentence][path] = None
    return [Refused(tuple(paths), code, sentence) for (code, sentence), paths in groups.items()]


def _files(slices: Iterable[Slice]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(one.path for one in slices))


def _set_aside(members: Sequence[Slice], rules: Rules) -> tuple[Slices, list[tuple[InputRejected, Slices]]]:
    """Split off reformats unless they are kept; and, when there are originals too, a CT's derived images and any reformats."""
    slices, aside = tuple(members), []
    if not rules.keep_reformats:
        reformats = tuple(one for one in slices if _is_reformat(one))
        slices = tuple(one for one in slices if not _is_reformat(one))
        aside.append((InputRejected(_REFORMATTED, code="DCM_REFORMAT"), reformats))
    derived = tuple(
        one for one in slices if one.header.facts.derived and (one.header.facts.modality == "CT" or _is_reformat(one))
    )
    if len(derived) < len(slices):
        names = {id(one) for one in derived}
        slices = tuple(one for one in slices if id(one) not in names)
        aside.append((InputRejected(_DERIVED, code="DCM_DERIVED"), derived))
    return slices, aside


def _is_reformat(one: Slice) -> bool:
    return one.header.facts.derived == "reformat"


def _check_whole(damaged: Sequence[Damage]) -> None:
    codes = sorted({problem.code for _, problem in damaged} - _SET_ASIDE)
    if codes:
        raise InputRejected(
            f"The series has files that were refused ({', '.join(codes)}), so slices may be missing; fetch it again.",
            code="SERIES_INCOMPLETE",
        )


def _check_alike(slices: Slices) -> None:
    """All slices of a series share patient, modality and scanner, and each instance has one content."""
    owners: dict[str, str] = {}
    for one in slices:
        if owners.setdefault(one.header.sop_uid, one.digest) != one.digest:
            raise InputRejected("Two different files carry one SOPInstanceUID; one of them is wrong.", code="SERIES_UID_CONFLICT")
    if len({(f.patient_id, f.issuer, f.modality, f.scanner) for f in _facts(slices)}) > 1:
        raise InputRejected("Patient, modality or scanner differ within one series.", code="SERIES_MIXED_SUBJECT")


def _facts(slices: Slices) -> list[Facts]:
    """The slices' facts, each object once."""
    return list({id(one.header.facts): one.header.facts for one in slices}.values())


def _volumes(division: Division, rules: Rules) -> tuple[list[Found], list[Refused]]:
    """Each part of a series by itself: a volume, several, or a refusal that leaves the others alone."""
    found: list[Found] = []
    refused: list[Refused] = []
    for part in division.parts:
        try:
            inner = by_marks(part)
        except InputRejected as problem:
            refused.append(Refused(_files(part), problem.code, problem.sentence))
            continue
        notes = tuple(f"SPLIT_BY_{by}" for by in (division.by, inner.by) if by)
        for one in inner.parts:
            try:
                found.append(_volume(one, notes, rules))
            except InputRejected as problem:
                refused.append(Refused(_files(one), problem.code, problem.sentence))
    return found, refused


def _volume(members: Slices, notes: tuple[str, ...], rules: Rules) -> Found:
    """The volume of one sound stack."""
    first = members[0].header.facts
    if any(one.header.facts.syntax != first.syntax for one in members):
        raise InputRejected("The slices are stored in different transfer syntaxes.", code="SERIES_MIXED_SYNTAX")
    ordered = stack(
        np.array([one.header.position_mm for one in members]),
        np.array([first.row_direction, first.column_direction]),
        first.spacing_mm,
        resample=rules.resample,
    )
    slices = tuple(members[index] for index in ordered.order)
    volume, frame = _grid(slices, ordered, rules.limits)
    padded = {padding_is_air(one.header) for one in slices}
    preambles = sorted({one.preamble for one in _facts(slices)} - {""})
    flags = {
        "DERIVED": bool(first.derived),
        "TILT_CORRECTED": frame is not None,
        "RESAMPLED": bool(ordered.blend),
        "PADDING_MAPPED": True in padded,
        "PADDING_KEPT": False in padded,
        "PIXELS_MASKED": any(one.header.facts.decision.boxes for one in slices),
        "PIXELS_RELEASED": any(one.header.facts.decision.released for one in slices),
    }
    return Found(
        volume=volume,
        source=digest_json({str(index): name for index, name in enumerate(sorted(map(_content, slices)))}),
        geometry="dicom",
        modality=first.modality,
        patient_id=first.patient_id,
        scanner=first.scanner,
        files=_files(slices),
        decoder=decoder_of(first.syntax),
        acquisition=_acquisition(slices),
        frame=frame,
        notes=(*notes, *(note for note, there in flags.items() if there), *(f"PREAMBLE_{kind}" for kind in preambles)),
        issuer=first.issuer,
        sealed=first.sealed,
        voxel_bytes=2 if all(one.header.slope.is_integer() and one.header.intercept.is_integer() for one in slices) else 4,
    )


def _content(one: Slice) -> str:
    """What a slice is made of: its file, which frame of it where there are several, and what was blanked."""
    name = f"{one.digest}#{one.header.frame}" if one.header.frames > 1 else one.digest
    boxes = one.header.facts.decision.boxes
    return f"{name} without {boxes}" if boxes else name


def _grid(slices: Slices, ordered: Stack, limits: Limits) -> tuple[Volume, Frame | None]:
    """The volume on its grid, and the scanner's own grid where that is another one that can be gone back to."""
    facts = slices[0].header.facts
    shape = facts.columns, facts.rows, len(ordered.blend) or len(slices)
    affine, shear, frame = ordered.affine, None, None
    if ordered.tilted:
        frame = Frame(affine, shape)
        shear, affine = correction(affine, shape, tolerance_mm=CORNER_TOLERANCE_MM)
        shape = shear.grown
    voxels = shape[0] * shape[1] * shape[2]
    if voxels > limits.max_voxels:
        raise InputRejected(f"The series has {voxels} voxels; at most {limits.max_voxels} are allowed.", code="DCM_GEOMETRY")
    return Volume(affine, (1, *shape), partial(load_stack, slices, shear=shear, blend=ordered.blend, limits=limits)), frame


def _acquisition(slices: Slices) -> Mapping[str, ClinicalValue]:
    """Facts in which all slices agree."""
    facts = [set(one.acquisition) for one in _facts(slices)]
    return MappingProxyType(dict(sorted(set.intersection(*facts))))


def _with_losses(found: Found, refused: Sequence[Refused]) -> Found:
    """The volume with a note for every part of its own file that was refused: of several frames in one file, some may be."""
    if not refused:
        return found
    lost = dict.fromkeys(f"PARTLY_{one.code}" for one in refused if set(one.files) <= set(found.files))
    return replace(found, notes=(*found.notes, *lost))


def _named(found: Found, series: str, number: int) -> Found:
    """The volume under its series' name, with its number where the series holds several."""
    return replace(found, name=f"{series}#{number}" if number else series)
