"""A folder of received files to volumes. Every file ends in one place: part of a volume, refused by name, or a duplicate."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from bedside.core.digest import digest_bytes, digest_json
from bedside.core.errors import InputRejected, UsageError
from bedside.core.volume import Volume
from bedside.formats.dicom_geometry import stack
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_pixels import Slice, decoder_of, load_stack
from bedside.formats.found import Found, Reading, Refused
from bedside.formats.gate import LIMITS, Limits, receive

_SAME_DIRECTION = 1e-4
_DAMAGE = frozenset({"FILE_EMPTY", "FILE_UNREADABLE", "DCM_TRUNCATED", "DCM_STRUCTURE"})

_Series = tuple[Path | None, str]
"""What slices are grouped by: the series' name, and their folder where the name was emptied."""
_Damage = tuple[Path, InputRejected]


def read_folder(folder_or_files: Path | Iterable[Path], *, limits: Limits = LIMITS) -> Reading:
    """Read every single-frame CT and MR series among some files.

    Files are grouped by SeriesInstanceUID (by folder and frame of reference where that was emptied) and ordered by position
    along the normal. A series with one damaged member is refused as a whole: without its last slice it would look sound.

    Args:
        folder_or_files: a folder, looked through to the bottom, or the files themselves.
        limits: the gate's.

    Returns:
        What was found, refused and received twice, in an order that depends on the files only.

    Raises:
        UsageError: the folder does not exist.
    """
    return assemble((look(path, limits=limits) for path in _files(folder_or_files)), limits=limits)


@dataclass(frozen=True)
class Look:
    """What the header pass learns of one file: its slices, or why it is refused. Small, and no pixel was touched.

    Attributes:
        path: the received file.
        digest: SHA-256 of its bytes; "" when they could not be read.
        series: what slices are grouped by: the series' name, and the file's folder where the name was emptied.
        slices: one of a single-frame file, one per frame of a multi-frame file; empty when refused.
        problem: why it is refused.
    """

    path: Path = field(repr=False)
    digest: str
    series: tuple[Path | None, str] = field(repr=False)
    slices: tuple[Slice, ...] = ()
    problem: InputRejected | None = None


def look(path: Path, *, limits: Limits = LIMITS) -> Look:
    """Read one file's header behind the gate. Nothing is raised: a refusal is part of the answer."""
    try:
        data = receive(path, limits=limits)
    except InputRejected as problem:
        return Look(path, "", (None, ""), problem=problem)
    inspection = inspect(data, limits=limits)
    digest = digest_bytes(data)
    series = (path.parent if inspection.series.startswith("frame ") else None, inspection.series)
    if inspection.header is None:
        return Look(path, digest, series, problem=inspection.problem or InputRejected("The file cannot be read."))
    return Look(path, digest, series, (Slice(path, digest, inspection.header),))


def assemble(looks: Iterable[Look], *, limits: Limits = LIMITS) -> Reading:
    """Group what the header pass saw into volumes whose pixels are decoded when first looked at.

    Args:
        looks: in any order that depends on the files only; exact repetitions of one content are duplicates.
        limits: the gate's.
    """
    slices: dict[_Series, list[Slice]] = defaultdict(list)
    damaged: dict[_Series, list[_Damage]] = defaultdict(list)
    duplicates: list[Path] = []
    seen: set[str] = set()
    for one in looks:
        if one.digest and one.digest in seen:
            duplicates.append(one.path)
            continue
        seen.add(one.digest)
        if one.problem is None:
            slices[one.series].extend(one.slices)
        else:
            damaged[one.series].append((one.path, one.problem))
    found: list[Found] = []
    refused = _gather(damage for damages in damaged.values() for damage in damages)
    for series, members in slices.items():
        own = [*damaged.get(series, []), *_strays(series, slices, damaged)]
        volumes, leftovers = _assemble(members, own, limits)
        found.extend(volumes)
        refused.extend(leftovers)
    return Reading(tuple(found), tuple(refused), tuple(duplicates))


def _strays(
    series: _Series, slices: Mapping[_Series, Sequence[Slice]], damaged: Mapping[_Series, Sequence[_Damage]]
) -> list[_Damage]:
    """Damaged files too short to name a series, in a folder whose only series is this one: they count as its own."""
    strays = [damage for (_, name), damages in damaged.items() if not name for damage in damages]
    owners = {
        folder: [other for other, members in slices.items() if any(one.path.parent == folder for one in members)]
        for folder in {path.parent for path, _ in strays}
    }
    return [(path, problem) for path, problem in strays if problem.code in _DAMAGE and owners[path.parent] == [series]]


def _files(folder_or_files: Path | Iterable[Path]) -> list[Path]:
    """All files and links, sorted; a link is listed so that it can be refused, not followed."""
    if not isinstance(folder_or_files, Path):
        return sorted(set(folder_or_files))
    if not folder_or_files.is_dir():
        raise UsageError("There is no such folder to read DICOM files from; check the path.", code="NO_FOLDER")
    return sorted(path for path in folder_or_files.rglob("*") if path.is_symlink() or not path.is_dir())


def _gather(problems: Iterable[_Damage]) -> list[Refused]:
    """Files refused with the same sentence become one entry."""
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path, problem in problems:
        groups[problem.code, problem.sentence].append(path)
    return [Refused(tuple(paths), code, sentence) for (code, sentence), paths in groups.items()]


def _assemble(members: Sequence[Slice], damaged: Sequence[_Damage], limits: Limits) -> tuple[list[Found], list[Refused]]:
    """Make a volume of one series' sound slices, or say why there is none."""
    members, derived = _set_derived_aside(members)
    leftovers = _gather(
        (one.path, InputRejected("This is a derived image among originals; it is set aside.", code="DCM_LOCALIZER"))
        for one in derived
    )
    paths = tuple(one.path for one in members)
    try:
        _check_whole(damaged)
        _check_alike(members)
        return [_volume(members, limits)], leftovers
    except InputRejected as problem:
        return [], [*leftovers, Refused(paths, problem.code, problem.sentence)]


def _set_derived_aside(members: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """Split off derived CT images (reformats, screens) when the series has originals too."""
    derived = [one for one in members if one.header.modality == "CT" and one.header.image_type[0] == "DERIVED"]
    if len(derived) == len(members):
        return list(members), []
    return [one for one in members if one not in derived], derived


def _check_whole(damaged: Sequence[_Damage]) -> None:
    codes = sorted({problem.code for _, problem in damaged} - {"DCM_LOCALIZER"})
    if codes:
        raise InputRejected(
            f"The series has files that were refused ({', '.join(codes)}), so slices may be missing; fetch it again.",
            code="SERIES_INCOMPLETE",
        )


def _check_alike(members: Sequence[Slice]) -> None:
    """All slices of a volume share patient, modality, frame of reference, grid, direction and coding."""
    headers = [one.header for one in members]
    first = headers[0]
    if len({header.sop_uid for header in headers}) < len(headers):
        raise InputRejected("Two different files carry one SOPInstanceUID; one of them is wrong.", code="SERIES_UID_CONFLICT")
    if any((h.patient_id, h.modality, h.scanner) != (first.patient_id, first.modality, first.scanner) for h in headers):
        raise InputRejected("Patient, modality or scanner differ within one series.", code="SERIES_MIXED_SUBJECT")
    if any(h.frame_uid != first.frame_uid for h in headers):
        raise InputRejected("The slices lie in different frames of reference.", code="SERIES_MIXED_FRAME")
    apart = max(
        float(np.abs(np.stack([h.row_direction - first.row_direction, h.column_direction - first.column_direction])).max())
        for h in headers
    )
    if apart > _SAME_DIRECTION:
        raise InputRejected("The slices point in different directions; split the series.", code="SERIES_MIXED_ORIENTATION")
    if any(
        (h.rows, h.columns) != (first.rows, first.columns) or not np.allclose(h.spacing_mm, first.spacing_mm) for h in headers
    ):
        raise InputRejected("The slices have different sizes or pixel spacings; split the series.", code="SERIES_MIXED_GRID")
    if any(h.syntax != first.syntax for h in headers):
        raise InputRejected("The slices are stored in different transfer syntaxes.", code="SERIES_MIXED_SYNTAX")


def _volume(members: Sequence[Slice], limits: Limits) -> Found:
    """The volume of one sound series."""
    first = members[0].header
    voxels = first.rows * first.columns * len(members)
    if voxels > limits.max_voxels:
        raise InputRejected(f"The series has {voxels} voxels; at most {limits.max_voxels} are allowed.", code="DCM_GEOMETRY")
    ordered = stack(
        np.stack([one.header.position_mm for one in members]),
        np.stack([first.row_direction, first.column_direction]),
        first.spacing_mm,
    )
    slices = tuple(members[index] for index in ordered.order)
    return Found(
        volume=Volume(ordered.affine, (1, first.columns, first.rows, len(slices)), partial(load_stack, slices, limits=limits)),
        source=digest_json({str(index): digest for index, digest in enumerate(sorted(one.digest for one in slices))}),
        geometry="dicom",
        modality=first.modality,
        patient_id=first.patient_id,
        scanner=first.scanner,
        files=tuple(one.path for one in slices),
        decoder=decoder_of(first.syntax),
    )
