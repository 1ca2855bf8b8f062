"""The header pass: every received file is read once, in workers, for its digest and for what it says of itself."""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_file
from bedside.core.errors import InputRejected
from bedside.core.files import is_plain
from bedside.core.identity import Identity
from bedside.core.ports import Executor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.formats.dicom import Look, Shared, look
from bedside.formats.dicom_header import NOTHING_DECIDED
from bedside.formats.found import Found, Refused
from bedside.formats.nifti import nifti_stem, read_nifti_volumes

_LEAST_CHUNK, _MOST_CHUNK, _FEW_CHUNKS, _CHUNKS = 4, 32, 4, 32
"""Files for one task: enough that the way to a worker costs little beside them, few enough to be looked at again one by one, and
of a small folder so few that four workers have some each."""
_HEADER_BYTES = 1 << 20
_SERIES_UID = re.compile(
    rb"(?s)(?:\x20\x00\x0e\x00|\x00\x20\x00\x0e)(?:UI..|UN\x00\x00.\x00\x00\x00|.\x00\x00\x00)([0-9.]{1,64})"
)
"""Tag, then VR and length (explicit; UN has room for a longer one) or length (implicit), then the value; either byte order."""


@dataclass(frozen=True)
class Seen:
    """What the pass learnt of one file.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes; "" when it could not be read.
        content: a NIfTI volume (not decoded) with those that follow it in time, a DICOM header, or why neither.
    """

    path: Path = field(repr=False)
    digest: str
    content: Found | Look | Refused


def header_pass(
    paths: Sequence[Path],
    executor: Executor,
    identity: Identity | None = None,
    *,
    pixels: Deidentification = NOTHING_DECIDED,
    alike: bool = True,
    progress: Progress = SILENT,
) -> Iterator[tuple[int, Seen]]:
    """Look at files in workers, many per task; where a task was lost, one by one, so that only the file at fault is refused.

    Args:
        paths: of the files; any sequence, of which a few are asked for at a time.
        executor: does the reading.
        identity: makes stand-ins for names in headers that are worth keeping as such; None: they are left out.
        pixels: the study's mask rules, and its releases of files whose pixels may carry names.
        alike: make equal parts of all answers one object, for who keeps them; else only those of some files that lie together.
        progress: advances with the files, and notes how many per second.

    Yields:
        The place of a file among the paths, and what was seen; those that were looked at again come last.
    """
    count = len(paths)
    size = min(max(count // _CHUNKS, min(-(-count // _FEW_CHUNKS), _LEAST_CHUNK), 1), _MOST_CHUNK)
    look_at_chunk: Callable[[tuple[Path, ...]], tuple[Seen, ...]] = partial(look_at_all, identity, pixels)
    again: list[int] = []
    progress.start("reading headers", count)
    start, done, shared = time.monotonic(), 0, Shared()
    starts = range(0, count, size)
    asked: deque[tuple[Path, ...]] = deque()

    def chunks() -> Iterator[tuple[Path, ...]]:
        for at in starts:
            asked.append(tuple(paths[at : at + size]))
            yield asked[-1]

    for at, answer in zip(starts, executor.map(look_at_chunk, chunks()), strict=True):
        chunk = asked.popleft()
        if isinstance(answer, Lost):
            again.extend(range(at, at + len(chunk)))
        elif alike:
            yield from ((at + n, _shared(seen, path, shared)) for n, (path, seen) in enumerate(zip(chunk, answer, strict=True)))
        else:
            yield from zip(range(at, at + len(chunk)), answer, strict=True)
        done += len(chunk)
        progress.advance(done, f"{done / max(time.monotonic() - start, 1e-3):.0f} files/s")
    for place, alone in zip(again, executor.map(look_at_chunk, [(paths[place],) for place in again]), strict=True):
        yield place, _lost(paths[place], alone) if isinstance(alone, Lost) else alone[0]


def look_at_all(identity: Identity | None, pixels: Deidentification, paths: Iterable[Path]) -> tuple[Seen, ...]:
    """Look at several files; runs in a worker. What they have in common travels once."""
    shared = Shared()
    return tuple(_shared(look_at(path, identity, pixels), path, shared) for path in paths)


def _shared(seen: Seen, path: Path, shared: Shared) -> Seen:
    """The same, with the path that is known already, and with what other files say too said once."""
    return Seen(path, seen.digest, shared.look(seen.content, path)) if isinstance(seen.content, Look) else seen


def look_at(path: Path, identity: Identity | None, pixels: Deidentification) -> Seen:
    """Read one file for its digest and its header; runs in a worker. Nothing is raised: a refusal is part of the answer."""
    if nifti_stem(path.name) is None:
        content = look(path, identity=identity, pixels=pixels)
        return Seen(path, content.digest or _digest(path), content)
    try:
        volumes, digest = read_nifti_volumes(path)
    except InputRejected as error:
        return Seen(path, _digest(path), Refused((path,), error.code, error.sentence))
    return Seen(path, digest, replace(volumes[0], later=volumes[1:]))


def plain(found: Found) -> Found:
    """The same as it can be sent to a worker."""
    return replace(found, acquisition=dict(found.acquisition))


def _lost(path: Path, lost: Lost) -> Seen:
    problem = lost.refusal
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


def _digest(path: Path) -> str:
    """The digest of a file, "" for what cannot be read: that is refused by name."""
    try:
        return digest_file(path) if is_plain(path) else ""
    except OSError:
        return ""
