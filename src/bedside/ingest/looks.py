"""What the header pass saw of every DICOM file, packed into columns: some 200 bytes for a file of one frame.

Objects are made of it again for one series at a time, when its volumes are put together and when they are converted.
"""

import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from bedside.core.errors import InputRejected
from bedside.core.volume import Array
from bedside.formats.dicom import Look, assemble
from bedside.formats.dicom_header import Facts, Header
from bedside.formats.dicom_pixels import Slice
from bedside.formats.found import Found, Reading, Refused
from bedside.ingest.names import Files, Paths

_ROW = struct.Struct("<2I16s5d3q2I")
"""Facts, marks, stand-in of the SOPInstanceUID, position, slope, intercept, place of the pixels, instance, frame, frames."""
_DIGEST_BYTES, _UID_BYTES = 32, 16
_NOT_SEEN, _SOUND = -2, -1
_KEPT_SLICES = 1 << 13
"""Slices whose volumes are kept as they were put together, so that small folders need it once: some 10 MB."""
_Kind = TypeVar("_Kind", bound=Hashable)
_Series = tuple[Path | None, str]


class _Table(Generic[_Kind]):
    """Equal things under one number."""

    def __init__(self) -> None:
        self.items: list[_Kind] = []
        self._numbers: dict[_Kind, int] = {}

    def number(self, item: _Kind) -> int:
        """Its number; a new one for what is new."""
        found = self._numbers.setdefault(item, len(self.items))
        if found == len(self.items):
            self.items.append(item)
        return found


class Looks:
    """The looks at some files, by the numbers of the files.

    Args:
        files: what was received.
        digests: of all of them, 32 bytes each, filled by the header pass.
    """

    def __init__(self, files: Files, digests: bytearray) -> None:
        count = len(files)
        self._files, self._digests = files, digests
        self._unread: set[int] = set()
        self._states: bytearray = bytearray()
        self._first, self._count = array("Q", bytes(8 * count)), array("I", bytes(4 * count))
        self._series_of, self._problem_of = array("I", bytes(4 * count)), array("i", [_NOT_SEEN]) * count
        self._state_at = array("Q", bytes(8 * count))
        self._rows = bytearray()
        self._series, self._facts, self._marks = _Table[_Series](), _Table[Facts](), _Table[tuple[str, ...]]()
        self._problems = _Table[tuple[str, str]]()
        self._pixels: dict[tuple[int, int], tuple[int, int]] = {}
        self._latest: tuple[int, tuple[Found, ...]] = (-1, ())
        self._kept: dict[int, tuple[Found, ...]] = {}

    def add(self, number: int, look: Look) -> None:
        """Keep what was seen of a file."""
        if not look.digest:
            self._unread.add(number)
        self._series_of[number] = self._series.number(look.series)
        problem = look.problem
        self._problem_of[number] = _SOUND if problem is None else self._problems.number((problem.code, problem.sentence))
        self._first[number], self._count[number] = len(self._rows) // _ROW.size, len(look.slices)
        state = look.slices[0].state if look.slices else b""
        self._state_at[number] = len(self._states)
        self._states += bytes([len(state)]) + state
        for one in look.slices:
            self._rows += self._row(one.header)

    def _row(self, header: Header) -> bytes:
        return _ROW.pack(
            self._facts.number(header.facts),
            self._marks.number(header.marks),
            blake2b(header.sop_uid.encode("utf-8", "surrogatepass"), digest_size=_UID_BYTES).digest(),
            *header.position_mm,
            header.slope,
            header.intercept,
            *header.pixels,
            header.instance,
            header.frame,
            header.frames,
        )

    def look(self, number: int) -> Look:
        """What was seen of a file; instead of the SOPInstanceUID stands a digest of it, which is as good for comparing."""
        path = self._files.path(number)
        text = "" if number in self._unread else self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)].hex()
        series = self._series.items[self._series_of[number]]
        if self._problem_of[number] >= 0:
            code, sentence = self._problems.items[self._problem_of[number]]
            return Look(path, text, series, problem=InputRejected(sentence, code=code))
        at = self._state_at[number]
        state = bytes(self._states[at + 1 : at + 1 + self._states[at]])
        first = self._first[number]
        headers = (self._header(row) for row in range(first, first + self._count[number]))
        return Look(path, text, series, tuple(Slice(path, text, header, state) for header in headers))

    def _header(self, row: int) -> Header:
        facts, marks, uid, *numbers, instance, frame, frames = _ROW.unpack_from(self._rows, _ROW.size * row)
        x, y, z, slope, intercept, start, end = numbers
        return Header(
            sop_uid=uid.hex(),
            facts=self._facts.items[facts],
            position_mm=(x, y, z),
            slope=slope,
            intercept=intercept,
            pixels=self._pixels.setdefault((start, end), (start, end)),
            marks=self._marks.items[marks],
            instance=instance,
            frame=frame,
            frames=frames,
        )

    def reading(self, *, resample: bool) -> Reading:
        """Put the volumes together, one series after the other, as `assemble` does it with all of them.

        Returns:
            Volumes without slices, which come back when they are loaded or asked for with `whole`; files as `Paths`.
        """
        duplicates = self._duplicates()
        numbers = [n for n, problem in enumerate(self._problem_of) if problem != _NOT_SEEN and n not in duplicates]
        damaged = [n for n in numbers if self._problem_of[n] >= 0]
        refused = list(assemble(map(self.look, damaged)).refused)
        self._members = self._grouped(numbers, damaged)
        found: list[Found] = []
        self._kept, room = {}, _KEPT_SLICES
        for series, members in self._members.items():
            one = self._assembled(series, resample=resample)
            room -= sum(self._count[number] for number in members)
            if room >= 0:
                self._kept[series] = one.found
            found.extend(self._light(volume, series, place, resample) for place, volume in enumerate(one.found))
            refused.extend(one.refused)
        packed = tuple(replace(one, files=self._files.all_of(one.files)) for one in refused)
        return Reading(tuple(found), packed, Paths(self._files, array("I", sorted(duplicates))))

    def _duplicates(self) -> frozenset[int]:
        """Files whose content an earlier one has."""
        seen = [n for n, problem in enumerate(self._problem_of) if problem != _NOT_SEEN and n not in self._unread]
        words = np.frombuffer(bytes(self._digests), dtype=">u8").reshape(-1, _DIGEST_BYTES // 8)[seen]
        order = np.lexsort((np.arange(len(words)), *words.T))
        again = np.flatnonzero((words[order][1:] == words[order][:-1]).all(axis=1)) + 1
        return frozenset(seen[place] for place in order[again])

    def _grouped(self, numbers: Sequence[int], damaged: Sequence[int]) -> dict[int, "array[int]"]:
        """Series to its files, damaged ones included; and those too damaged to name one, where their folder holds only one."""
        groups: dict[int, array[int]] = {}
        for number in numbers:
            if self._problem_of[number] == _SOUND:
                groups.setdefault(self._series_of[number], array("I")).append(number)
        nameless = [n for n in damaged if not self._series.items[self._series_of[n]][1]]
        owners: dict[str, set[int]] = defaultdict(set)
        folders = {self._folder(n) for n in nameless}
        for series, members in groups.items() if nameless else ():
            for folder in folders & {self._folder(n) for n in members}:
                owners[folder].add(series)
        for number in damaged:
            if self._series_of[number] in groups:
                groups[self._series_of[number]].append(number)
            elif len(owner := owners.get(self._folder(number), set())) == 1 and number in set(nameless):
                groups[next(iter(owner))].append(number)
        return groups

    def _folder(self, number: int) -> str:
        return self._files.name(number).rpartition("/")[0]

    def _assembled(self, series: int, *, resample: bool) -> Reading:
        """The volumes of one series, and what of its sound files is refused."""
        looks = [self.look(number) for number in sorted(self._members[series])]
        reading = assemble(looks, resample=resample, alike=True)
        damages = {one.path for one in looks if one.problem is not None}
        kept = tuple(one for one in reading.refused if not damages.issuperset(one.files))
        return Reading(reading.found, kept, ())

    def _light(self, found: Found, series: int, place: int, resample: bool) -> Found:
        volume = found.volume.loaded_by(Again(self, series, place, resample))
        return replace(found, volume=volume, files=self._files.all_of(found.files))

    def volume_of(self, series: int, place: int, *, resample: bool) -> Found:
        """One volume of a series with its slices; of a series that is asked for again and again, it is put together once.

        `resample` is as it was when `reading` was asked for it.
        """
        if series in self._kept:
            return self._kept[series][place]
        if self._latest[0] != series:
            self._latest = series, self._assembled(series, resample=resample).found
        return self._latest[1][place]


@dataclass(frozen=True)
class Again:
    """Loads a volume whose slices are packed away."""

    looks: Looks
    series: int
    place: int
    resample: bool

    def whole(self) -> Found:
        """The volume with its slices, as a worker can be given it."""
        return self.looks.volume_of(self.series, self.place, resample=self.resample)

    def __call__(self) -> Array:
        """Decode it here."""
        return self.whole().volume.load()


def whole(found: Found) -> Found:
    """The same volume with all that is needed to decode it elsewhere."""
    load: Callable[[], Array] = found.volume.load
    if not isinstance(load, Again):
        return replace(found, files=tuple(found.files))
    full = load.whole()
    return replace(found, volume=full.volume, files=tuple(full.files))


def packed(files: Files, refusals: Iterable[Refused]) -> Iterator[Refused]:
    """The same refusals, their files held as numbers."""
    return (replace(one, files=files.all_of(one.files)) for one in refusals)
