"""Deflated data sets (PS3.5 A.5) in little memory: headers without the pixels between them, pixels from front to back."""

import mmap
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bedside.core.errors import InputRejected
from bedside.formats.dicom_elements import PIXEL_DATA, UNDEFINED, Elements, data_set_start, walk
from bedside.formats.dicom_syntax import DEFLATED
from bedside.formats.dicom_vrs import LONG_VRS, SHORT_VRS
from bedside.formats.gate import LIMITS, Content, Limits, changed, forget, inflate_chunks, inflate_pieces, received_pieces

_RAW = -15
_TRANSFER_SYNTAX = 0x00020010
_META_BYTES = 4096
"""Within which the file meta information names the transfer syntax; where it does not, the data set is held whole."""
_LEAST_BYTES = 4 << 20
"""Of an inflated data set; a smaller one is held whole."""
_FORGET_EVERY = 16


def walk_headers(data: Content, into: Elements, *, limits: Limits = LIMITS) -> None:
    """As `walk`, for who looks at no pixel: for a deflated data set's uncompressed pixels stand zeros, which take no memory.

    Raises:
        InputRejected: as `walk`.
    """
    found = _without_pixels(data, limits) if DEFLATED.encode() in data[:_META_BYTES] else None
    if found is None:
        return walk(data, into, limits=limits)
    inflated, pixels = found
    problem = None
    try:
        walk(data, into, limits=limits, inflated=inflated)
    except InputRejected as error:
        problem = error
    place = into.table.get(PIXEL_DATA)
    if place is None or (place.start, place.end) != pixels:  # what was left out is something else
        into.shared.clear()
        into.frames.clear()
        return walk(data, into, limits=limits)
    if problem is not None:
        raise problem
    return None


def _without_pixels(data: Content, limits: Limits) -> tuple[mmap.mmap, tuple[int, int]] | None:
    """The inflated data set but for the uncompressed pixel data of its root, and where that lies; None: to be held whole.

    A page of an anonymous map that nothing is written to takes no memory.
    """
    elements = Elements(data)
    try:
        start = data_set_start(data, elements)
    except InputRejected:
        return None
    if elements.raw(_TRANSFER_SYNTAX).strip(b"\0 ") != DEFLATED.encode():
        return None
    size = sum(map(len, _chunks(data, start, limits)))
    if size < _LEAST_BYTES:
        return None
    target = _Partly(size, _chunks(data, start, limits))
    pixels = target.pixels(limits.max_elements)
    if pixels is None:
        return None
    target.leave_out(*pixels)
    return target.data, pixels


def _chunks(data: Content, start: int, limits: Limits) -> Iterator[bytes]:
    """The inflated data set, at most 1 MiB at once; of a mapped file only what is being read is held."""
    for number, chunk in enumerate(inflate_chunks(memoryview(data)[start:], window_bits=_RAW, code="DCM", limits=limits)):
        if number % _FORGET_EVERY == 0:
            forget(data)
        yield chunk


class _Partly:
    """An inflated data set that is written as far as it is looked at."""

    def __init__(self, size: int, chunks: Iterator[bytes]) -> None:
        self.data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._chunks, self._size, self._filled = chunks, size, 0

    def _fill(self, end: int) -> None:
        while self._filled < end:
            chunk = next(self._chunks)
            self.data[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)

    def leave_out(self, start: int, end: int) -> None:
        """Write all the rest but what lies from start to end."""
        for chunk in self._chunks:
            first, last = self._filled, self._filled + len(chunk)
            if first < start:
                self.data[first : min(last, start)] = chunk[: start - first]
            if last > end:
                self.data[max(first, end) : last] = chunk[max(end - first, 0) :]
            self._filled = last

    def pixels(self, most_elements: int) -> tuple[int, int] | None:
        """Where the root's uncompressed PixelData lies, as far as tags and lengths can say; the walk has the last word."""
        at = depth = 0
        for _ in range(most_elements):
            if at + 12 > self._size:
                return None
            self._fill(at + 12)
            group, number, vr, short = struct.unpack_from("<HH2sH", self.data, at)
            (length,) = struct.unpack_from("<I", self.data, at + (4 if group == 0xFFFE else 8))
            start, tag = at + 12, group << 16 | number
            if group == 0xFFFE:
                start = at + 8
                depth -= number != 0xE000
            elif vr in SHORT_VRS:
                start, length = at + 8, short
            elif vr not in LONG_VRS or (length == UNDEFINED and (vr == b"UN" or tag == PIXEL_DATA)):
                return None
            if tag == PIXEL_DATA and depth == 0:
                return (start, start + length) if start + length <= self._size else None
            depth += length == UNDEFINED
            at = start if length == UNDEFINED else start + length
        return None


class Inflating:
    """The bytes of a received file's inflated data set, from front to back; a megabyte of them is held.

    Args:
        path: of a file that is as it was when it was accepted.
        limits: the gate's.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._chunks = _inflated(path, limits)
        self._chunk, self._at = b"", 0

    def part(self, first: int, last: int) -> bytes | None:
        """The bytes from first to last; None where they have gone by.

        Raises:
            InputRejected: the file cannot be read, or inflated.
            IntegrityError: it ends before them, so it was changed.
        """
        if first < self._at:
            return None
        part = bytearray()
        while (wanted := first + len(part)) < last:
            end = self._at + len(self._chunk)
            if wanted < end:
                part += self._chunk[wanted - self._at : last - self._at]
                continue
            self._at = end
            self._chunk = next(self._chunks, b"")
            if not self._chunk:
                raise changed()
        return bytes(part)


def _inflated(path: Path, limits: Limits) -> Iterator[bytes]:
    pieces = received_pieces(path, limits=limits)
    head, start = b"", None
    while start is None:
        piece = next(pieces, b"")
        if not piece:
            raise changed()
        head += piece
        try:
            found = data_set_start(head)
        except InputRejected:
            continue
        start = found if found + 2 <= len(head) else None
    return inflate_pieces(chain([head[start:]], pieces), code="DCM", window_bits=_RAW, limits=limits)
