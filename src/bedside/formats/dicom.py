"""A folder of received files to volumes. Every file ends in one place: part of a volume, refused by name, or a duplicate."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected, UsageError
from bedside.core.identity import Identity
from bedside.formats.dicom_header import NOTHING_DECIDED, Facts, inspect
from bedside.formats.dicom_pixels import Slice
from bedside.formats.dicom_series import Damage, Rules, gather, volumes_of
from bedside.formats.found import Found, Reading
from bedside.formats.gate import LIMITS, Limits, receive_for_headers

_DAMAGE = frozenset({"FILE_EMPTY", "FILE_UNREADABLE", "DCM_TRUNCATED", "DCM_STRUCTURE", "LOST_DIED", "LOST_MEMORY", "LOST_TIME"})

_Series = tuple[Path | None, str]
"""What slices are grouped by: the series' name, and their folder where the name was emptied."""


def read_folder(
    folder_or_files: Path | Iterable[Path],
    *,
    limits: Limits = LIMITS,
    resample: bool = False,
    keep_reformats: bool = False,
    identity: Identity | None = None,
) -> Reading:
    """Read every CT and MR series among some files: single frames, and enhanced multi-frame images.

    Files are grouped by SeriesInstanceUID (by folder and frame of reference where that was emptied) and ordered by position
    along the normal. A series with one damaged member is refused as a whole: without its last slice it would look sound. A series
    that holds several volumes (echoes, times, directions) gives several; see `dicom_split`.

    Args:
        folder_or_files: a folder, looked through to the bottom, or the files themselves.
        limits: the gate's.
        resample: see `assemble`.
        keep_reformats: see `assemble`.
        identity: makes a stand-in for the institution's name in `Found.acquisition`; without one it is left out.

    Returns:
        What was found, refused and received twice, in an order that depends on the files only.

    Raises:
        UsageError: the folder does not exist.
    """
    looks = (look(path, limits=limits, identity=identity) for path in _files(folder_or_files))
    return assemble(looks, limits=limits, resample=resample, keep_reformats=keep_reformats)


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


def look(
    path: Path, *, limits: Limits = LIMITS, identity: Identity | None = None, pixels: Deidentification = NOTHING_DECIDED
) -> Look:
    """Read one file's header behind the gate. Nothing is raised: a refusal is part of the answer.

    Args:
        path: the received file.
        limits: the gate's.
        identity: makes a stand-in for the institution's name in `Found.acquisition`.
        pixels: the study's mask rules and releases; without them a file whose pixels may carry names is refused.
    """
    try:
        data, digest, state = receive_for_headers(path, limits=limits)
    except InputRejected as problem:
        return Look(path, "", (None, ""), problem=problem)
    inspection = inspect(data, limits=limits, identity=identity, pixels=pixels, digest=digest)
    series = (path.parent if inspection.series.startswith("frame ") else None, inspection.series)
    if not inspection.headers:
        return Look(path, digest, series, problem=inspection.problem or InputRejected("The file cannot be read."))
    return Look(path, digest, series, tuple(Slice(path, digest, header, state) for header in inspection.headers))


def assemble(
    looks: Iterable[Look],
    *,
    limits: Limits = LIMITS,
    resample: bool = False,
    keep_reformats: bool = False,
    alike: bool = False,
) -> Reading:
    """Group what the header pass saw into volumes whose pixels are decoded when first looked at.

    Args:
        looks: in any order that depends on the files only; exact repetitions of one content are duplicates.
        limits: the gate's.
        resample: interpolate slices at unequal distances (SERIES_JITTER, SERIES_TWO_INCREMENTS, SERIES_IRREGULAR) along the
            normal onto the regular row of the smallest distance, and note RESAMPLED. The way back from there is not exact, so
            `Found.frame` stays None. Missing and doubled slices are refused all the same.
        keep_reformats: take a series of nothing but reformats, projections and renderings, and note DERIVED; without it they are
            refused (DCM_REFORMAT). Among originals they are set aside either way.
        alike: equal parts of the looks are one object already.
    """
    slices: dict[_Series, list[Slice]] = defaultdict(list)
    damaged: dict[_Series, list[Damage]] = defaultdict(list)
    duplicates: list[Path] = []
    seen: set[str] = set()
    shared = Shared()
    for one in looks:
        if one.digest and one.digest in seen:
            duplicates.append(one.path)
            continue
        seen.add(one.digest)
        if one.problem is None:
            slices[one.series].extend(one.slices if alike else (shared.slice(each, one.path) for each in one.slices))
        else:
            damaged[one.series].append((one.path, one.problem))
    found: list[Found] = []
    refused = gather(damage for damages in damaged.values() for damage in damages)
    strays = _strays(slices, damaged)
    rules = Rules(limits, resample, keep_reformats)
    for series, members in slices.items():
        volumes, leftovers = volumes_of(series[1], members, [*damaged.get(series, []), *strays.get(series, [])], rules)
        found.extend(volumes)
        refused.extend(leftovers)
    return Reading(tuple(found), tuple(refused), tuple(duplicates))


class Shared:
    """One object for all equal parts of looks, so that memory does not grow with what 100,000 headers repeat."""

    def __init__(self) -> None:
        self._facts: dict[Facts, Facts] = {}
        self._latest: tuple[Facts | None, Facts | None] = None, None
        self._marks: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._series: dict[_Series, _Series] = {}
        self._pixels: dict[tuple[int, int], tuple[int, int]] = {}

    def look(self, one: Look, path: Path) -> Look:
        """The same answer about the file that lies at `path`, made of shared parts."""
        series = self._series.setdefault(one.series, one.series)
        return Look(path, one.digest, series, tuple(self.slice(each, path) for each in one.slices), one.problem)

    def slice(self, one: Slice, path: Path) -> Slice:
        """The same slice, made of shared parts."""
        header = one.header
        known, facts = self._latest
        if facts is None or known is not header.facts:  # mostly those of the file before: what is large to hash is not hashed
            facts = self._facts.setdefault(header.facts, header.facts)
            self._latest = header.facts, facts
        marks = self._marks.setdefault(header.marks, header.marks)
        pixels = self._pixels.setdefault(header.pixels, header.pixels)
        if path is one.path and facts is header.facts and marks is header.marks and pixels is header.pixels:
            return one
        return Slice(path, one.digest, replace(header, facts=facts, marks=marks, pixels=pixels), one.state)


def _strays(
    slices: Mapping[_Series, Sequence[Slice]], damaged: Mapping[_Series, Sequence[Damage]]
) -> dict[_Series, list[Damage]]:
    """Damaged files too short to name a series, in a folder with only one series: they count as its own."""
    nameless = [damage for (_, name), damages in damaged.items() if not name for damage in damages]
    strays: dict[_Series, list[Damage]] = defaultdict(list)
    if not nameless:
        return strays
    owners: dict[Path, set[_Series]] = defaultdict(set)
    for series, members in slices.items():
        for folder in {one.path.parent for one in members}:
            owners[folder].add(series)
    for path, problem in nameless:
        if problem.code in _DAMAGE and len(owners[path.parent]) == 1:
            strays[next(iter(owners[path.parent]))].append((path, problem))
    return strays


def _files(folder_or_files: Path | Iterable[Path]) -> list[Path]:
    """All files and links, sorted; a link is listed so that it can be refused, not followed."""
    if not isinstance(folder_or_files, Path):
        return sorted(set(folder_or_files))
    if not folder_or_files.is_dir():
        raise UsageError("There is no such folder to read DICOM files from; check the path.", code="NO_FOLDER")
    return sorted(path for path in folder_or_files.rglob("*") if path.is_symlink() or not path.is_dir())
