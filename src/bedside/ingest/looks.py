"""What the header pass saw of every DICOM file, packed into columns: some 200 bytes for a file of one frame.

Of a volume it is kept where its slices lie, 12 bytes each, and how they become an array. Objects are made again for
one series at a time, when its volumes are put together and when they are converted.
"""

import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
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
_Kind = TypeVar("_Kind", bound=Hashable)
_Series = tuple[Path | None, str]
_Way = tuple[Callable[..., Array], tuple[tuple[str, object], ...]]
"""A function that makes an array of slices, and what it is told beside them."""


class _Table(Generic[_Kind]):
    """Equal things under one number."""

    def __init__(self) -> None:
        self.items: list[_Kind] = []
        self._numbers: dict[_Kind, int] = {}
        self._latest: tuple[_Kind | None, int] = None, 0

    def number(self, item: _Kind) -> int:
        """Its number; a new one for what is new."""
        if item is self._latest[0]:  # that of the file before, as nearly always: what is large to hash is not hashed
            return self._latest[1]
        found = self._numbers.setdefault(item, len(self.items))
        if found == len(self.items):
            self.items.append(item)
        self._latest = item, found
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
        self._ways = _Table[_Way]()

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
        path, series = self._files.path(number), self._series.items[self._series_of[number]]
        if self._problem_of[number] >= 0:
            code, sentence = self._problems.items[self._problem_of[number]]
            return Look(path, self._digest(number), series, problem=InputRejected(sentence, code=code))
        rows = range(self._first[number], self._first[number] + self._count[number])
        return Look(path, self._digest(number), series, tuple(self._slices(number, path, rows)))

    def _digest(self, number: int) -> str:
        return "" if number in self._unread else self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)].hex()

    def _slices(self, number: int, path: Path, rows: Iterable[int]) -> Iterator[Slice]:
        """Some slices of a file."""
        digest, at = self._digest(number), self._state_at[number]
        state = bytes(self._states[at + 1 : at + 1 + self._states[at]])
        return (Slice(path, digest, self._header(row), state) for row in rows)

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

    def reading(self, *, resample: bool, keep_reformats: bool = False) -> Reading:
        """Put the volumes together, one series after the other, as `assemble` does it with all of them.

        Returns:
            Volumes without slices, which come back when they are loaded or asked for with `whole`; files as `Paths`.
        """
        duplicates = self._duplicates()
        numbers = [n for n, problem in enumerate(self._problem_of) if problem != _NOT_SEEN and n not in duplicates]
        damaged = [n for n in numbers if self._problem_of[n] >= 0]
        refused = list(assemble(map(self.look, damaged)).refused)
        found: list[Found] = []
        for members in self._grouped(numbers, damaged).values():
            looks = [(number, self.look(number)) for number in sorted(members)]
            reading = assemble((one for _, one in looks), resample=resample, keep_reformats=keep_reformats, alike=True)
            damages = {one.path for _, one in looks if one.problem is not None}
            refused.extend(one for one in reading.refused if not damages.issuperset(one.files))
            places = {id(each): (number, k) for number, one in looks for k, each in enumerate(one.slices, self._first[number])}
            found.extend(self._light(one, places) for one in reading.found)
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

    def _light(self, found: Found, places: Mapping[int, tuple[int, int]]) -> Found:
        """The volume without its slices: only where they are is kept, and how they become an array."""
        load = found.volume.load
        assert isinstance(load, partial)
        numbers, rows = zip(*(places[id(one)] for one in load.args[0]), strict=True)
        way = self._ways.number((load.func, tuple(load.keywords.items())))
        again = Again(self, array("I", numbers), array("Q", rows), way)
        return replace(found, volume=found.volume.loaded_by(again), files=self._files.all_of(found.files))

    def loading(self, numbers: "array[int]", rows: "array[int]", way: int) -> Callable[[], Array]:
        """How a volume is loaded whose slices lie in these rows, those of these files."""
        function, keywords = self._ways.items[way]
        slices: list[Slice] = []
        for number, group in groupby(zip(numbers, rows, strict=True), key=itemgetter(0)):
            slices.extend(self._slices(number, self._files.path(number), [row for _, row in group]))
        return partial(function, tuple(slices), **dict(keywords))


@dataclass(frozen=True, repr=False)
class Again:
    """Loads a volume whose slices are packed away.

    Attributes:
        looks: where they are packed.
        numbers, rows: of its slices in their order: the file of each, and its place among all slices.
        way: number of the function that makes an array of them.
    """

    looks: Looks
    numbers: "array[int]"
    rows: "array[int]"
    way: int

    def whole(self) -> Callable[[], Array]:
        """The same for another process, which has nothing of what is packed here."""
        return self.looks.loading(self.numbers, self.rows, self.way)

    def __call__(self) -> Array:
        """Decode it here."""
        return self.whole()()


def whole(found: Found) -> Found:
    """The same volume with all that is needed to decode it elsewhere."""
    load: Callable[[], Array] = found.volume.load
    volume = found.volume.loaded_by(load.whole()) if isinstance(load, Again) else found.volume
    return replace(found, volume=volume, files=tuple(found.files))


def packed(files: Files, refusals: Iterable[Refused]) -> Iterator[Refused]:
    """The same refusals, their files held as numbers."""
    return (replace(one, files=files.all_of(one.files)) for one in refusals)
