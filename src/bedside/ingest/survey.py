"""The header pass: every received file is read once, for its digest and for what it says of itself."""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_file
from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.core.ports import Executor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.formats.dicom import Look, Shared, look
from bedside.formats.dicom_header import NOTHING_DECIDED
from bedside.formats.found import Found, Refused
from bedside.formats.nifti import read_nifti
from bedside.ingest.discover import Discovery, is_plain, nifti_stem

_LEAST_CHUNK, _MOST_CHUNK, _CHUNKS = 2, 32, 32
"""Files for one task: enough that the way to a worker costs little beside them, few enough to be looked at again one by one, and
of a small folder so few that there is some for every worker."""
_HEADER_BYTES = 1 << 20
_SERIES_UID = re.compile(rb"(?s)(?:\x20\x00\x0e\x00|\x00\x20\x00\x0e)(?:UI..|.\x00\x00\x00)([0-9.]{1,64})")
"""Tag, then VR and length (explicit) or length (implicit), then the value; either byte order (PS3.5 7.1)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the pass learnt of one file.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes; "" when it could not be read.
        content: a NIfTI volume (not decoded), a DICOM header, or why neither.
    """

    path: Path = field(repr=False)
    digest: str
    content: Found | Look | Refused


@dataclass(frozen=True)
class Survey:
    """The pass over a whole folder.

    Attributes:
        looks: of every file that is no NIfTI, in the order of their names.
        niftis: path to volume or refusal, masks included.
        digests: path to SHA-256 of every file, "" for what is never opened.
    """

    looks: tuple[Look, ...] = field(repr=False)
    niftis: Mapping[Path, Found | Refused] = field(repr=False)
    digests: Mapping[Path, str] = field(repr=False)


def survey(
    discovery: Discovery,
    executor: Executor,
    identity: Identity,
    *,
    pixels: Deidentification = NOTHING_DECIDED,
    progress: Progress = SILENT,
) -> Survey:
    """Look at every file that may be opened, in workers; a file whose worker was lost is refused by name.

    Args:
        discovery: the received files.
        identity: makes stand-ins for names in headers that are worth keeping as such.
        executor: does the reading.
        pixels: the study's mask rules, and its releases of files whose pixels may carry names.
        progress: advances with the files, and notes how many per second.
    """
    waiting = [*discovery.images.values(), *(path for paths in discovery.masks.values() for path in paths)]
    digests = dict.fromkeys(discovery.files.values(), "")
    looks: list[Look] = []
    niftis: dict[Path, Found | Refused] = {}
    for seen in _every(waiting, executor, partial(look_at_all, identity, pixels), progress):
        digests[seen.path] = seen.digest
        if isinstance(seen.content, Look):
            looks.append(seen.content)
        else:
            niftis[seen.path] = seen.content
    return Survey(tuple(looks), niftis, digests)


def _every(
    paths: Sequence[Path], executor: Executor, look_at_chunk: Callable[[tuple[Path, ...]], tuple[Seen, ...]], progress: Progress
) -> tuple[Seen, ...]:
    """Look at all files, many per task; where a task was lost, one by one, so that only the file at fault is."""
    size = min(max(len(paths) // _CHUNKS, _LEAST_CHUNK), _MOST_CHUNK)
    chunks = [tuple(paths[start : start + size]) for start in range(0, len(paths), size)]
    answers: dict[Path, Seen] = {}
    again: list[Path] = []
    progress.start("reading headers", len(paths))
    start, done, shared = time.monotonic(), 0, Shared()
    for chunk, answer in zip(chunks, executor.map(look_at_chunk, chunks), strict=True):
        if isinstance(answer, Lost):
            again.extend(chunk)
        else:
            answers.update((path, _shared(seen, path, shared)) for path, seen in zip(chunk, answer, strict=True))
        done += len(chunk)
        progress.advance(done, f"{done / max(time.monotonic() - start, 1e-3):.0f} files/s")
    for path, alone in zip(again, executor.map(look_at_chunk, [(path,) for path in again]), strict=True):
        answers[path] = _lost(path, alone) if isinstance(alone, Lost) else alone[0]
    return tuple(answers[path] for path in paths)


def look_at_all(identity: Identity, pixels: Deidentification, paths: Iterable[Path]) -> tuple[Seen, ...]:
    """Look at several files; runs in a worker. What they have in common travels once."""
    shared = Shared()
    return tuple(_shared(look_at(path, identity, pixels), path, shared) for path in paths)


def _shared(seen: Seen, path: Path, shared: Shared) -> Seen:
    """The same, with the path that is known already, and with what other files say too said once."""
    return Seen(path, seen.digest, shared.look(seen.content, path)) if isinstance(seen.content, Look) else seen


def look_at(path: Path, identity: Identity, pixels: Deidentification) -> Seen:
    """Read one file for its digest and its header; runs in a worker. Nothing is raised: a refusal is part of the answer."""
    if nifti_stem(path.name) is None:
        content = look(path, identity=identity, pixels=pixels)
        return Seen(path, content.digest or _digest(path), content)
    try:
        found = read_nifti(path)
    except InputRejected as error:
        return Seen(path, _digest(path), Refused((path,), error.code, error.sentence))
    return Seen(path, found.source, found)


def _lost(path: Path, lost: Lost) -> Seen:
    problem = lost_item(lost)
    if nifti_stem(path.name) is None:
        return Seen(path, _digest(path), Look(path, "", (None, _series_named_in(path)), problem=problem))
    return Seen(path, _digest(path), Refused((path,), problem.code, problem.sentence))


def _series_named_in(path: Path) -> str:
    """The SeriesInstanceUID (0020,000E) that a file's first bytes hold, found without any parser; "" where none is seen.

    A file that no worker survives must not be missing from its series unnoticed: without its last slice it would look whole.
    """
    try:
        with path.open("rb") as stream:
            found = _SERIES_UID.search(stream.read(_HEADER_BYTES))
    except OSError:
        return ""
    return "" if found is None else found[1].decode("ascii")


def lost_item(lost: Lost) -> InputRejected:
    """Why an item whose worker gave no answer is refused: LOST_DIED, LOST_MEMORY or LOST_TIME."""
    said = {
        "died": "The process that read it ended in the middle, as a damaged file can make a decoder do; fetch it again.",
        "memory": "Reading it needs more memory than a worker may use; raise worker_memory_gb in site.yaml, or fetch it again.",
        "time": "Reading it takes longer than a worker may take; raise worker_seconds in site.yaml, or fetch it again.",
    }
    return InputRejected(said[lost.why], code=f"LOST_{lost.why.upper()}")


def _digest(path: Path) -> str:
    """The digest of a file, "" for what cannot be read: that is refused by name."""
    try:
        return digest_file(path) if is_plain(path) else ""
    except OSError:
        return ""
