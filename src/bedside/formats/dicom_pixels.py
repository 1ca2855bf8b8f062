"""Pixels of an accepted series to one array, when they are first looked at: one frame at a time, straight to its place."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected
from bedside.core.volume import Array
from bedside.formats.dicom_decode import Plane, decode
from bedside.formats.dicom_deflated import Inflating
from bedside.formats.dicom_header import Header, dataset_bytes
from bedside.formats.dicom_native import AIR_HU, is_plain, made_values
from bedside.formats.dicom_syntax import DEFLATED
from bedside.formats.dicom_tilt import Shear, untilt_plane
from bedside.formats.gate import LIMITS, Limits, changed, receive_again, unchanged_part

_LEAST_TISSUE_HU, _MOST_TISSUE_HU = -1000.0, 3071.0
_INT16 = np.iinfo(np.int16)
_INT32_SAFE = 1 << 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Slice:
    """One frame that is part of a volume.

    Attributes:
        path: where its file lies.
        digest: SHA-256 of the file when it was accepted.
        header: what the frame says of itself, and which frame of the file it is.
        state: of the file when it was hashed, see `gate.unchanged_part`; b"" where it is to be hashed again.
    """

    path: Path
    digest: str
    header: Header
    state: bytes = b""


def load_stack(
    slices: Sequence[Slice],
    *,
    shear: Shear | None = None,
    blend: Sequence[tuple[int, float]] = (),
    limits: Limits = LIMITS,
) -> Array:
    """Decode a stack, one frame at a time.

    Args:
        slices: in order along the normal, all of one size.
        shear: of a tilted stack, which is brought onto a grid with perpendicular axes.
        blend: of an uneven stack, see `dicom_geometry.Stack.blend`.
        limits: the gate's.

    Returns:
        (1, I, J, K): I is DICOM's column, J its row, K the slice. The rescaled values: int16 where every one of them is an
        integer that fits, else the stored 16-bit numbers where nothing is rescaled, else float32.

    Raises:
        InputRejected: a frame cannot be decoded (DCM_DECODE).
        IntegrityError: a file changed since it was accepted.
    """
    facts = slices[0].header.facts
    grown = shear.grown if shear else (facts.columns, facts.rows, len(blend) or len(slices))
    canvas = _Canvas(grown, [one.header for one in slices])
    source = _Source(limits)
    if shear:
        for k, one in _in_file_order(slices):
            plane = _values(one.header, source.frame(one))
            canvas.write(k, untilt_plane(plane, shear, k), shear.inside(k))
        canvas.fill(shear)
    elif blend:
        planes = (_values(one.header, source.frame(one)) for one in slices)
        for k, plane in enumerate(_blended(planes, blend)):
            canvas.write(k, plane)
    else:
        for k, one in _in_file_order(slices):
            _place(one, canvas, k, source)
    return canvas.array.transpose(2, 1, 0)[np.newaxis]


def _in_file_order(slices: Sequence[Slice]) -> list[tuple[int, Slice]]:
    """Slices with their places in the stack; those of deflated files in the order in which inflating gives them."""
    numbered = list(enumerate(slices))
    if slices[0].header.facts.syntax == DEFLATED:
        numbered.sort(key=lambda one: (one[1].path, one[1].header.pixels))
    return numbered


def _place(one: Slice, canvas: "_Canvas", k: int, source: "_Source") -> None:
    """Bring a slice into its place; most go there straight from the disk, and are made values of in place."""
    plane, header = canvas.array[k], one.header
    value: bytes | memoryview | None = None
    if plane.dtype == np.int16 and is_plain(header) and _read(one, plane):
        if made_values(plane, header, air=padding_is_air(header)):
            return
        value = plane.tobytes()
    canvas.write(k, _values(header, source.frame(one) if value is None else value))


def _read(one: Slice, plane: NDArray[np.int16]) -> bool:
    """Fill a plane with a frame's bytes, if its file did not change."""
    return unchanged_part(one.path, one.state, one.header.pixels[0], plane.reshape(-1).view(np.uint8).data)


def padding_is_air(header: Header) -> bool | None:
    """Whether a CT's padding is mapped to `AIR_HU`.

    Padding says that nothing was measured there (PS3.3 C.7.5.1.1.2), outside the round field of view for example, and scanners
    give it values below any tissue. It becomes air. A padding value that tissue has too is not to be believed (headers name 0
    by mistake): values are kept, and False says so. None: there is no padding, or it is air already.
    """
    padding = header.facts.padding
    if padding is None:
        return None
    ends = [value * header.slope + header.intercept for value in padding]
    if ends == [AIR_HU, AIR_HU]:
        return None
    return max(ends) <= _LEAST_TISSUE_HU or min(ends) > _MOST_TISSUE_HU


class _Canvas:
    """The volume while it is filled, (K, J, I) so that each plane is one piece; its kind of number grows when it must."""

    def __init__(self, shape: tuple[int, int, int], headers: Sequence[Header]) -> None:
        whole = all(header.slope.is_integer() and header.intercept.is_integer() for header in headers)
        plain = all((header.slope, header.intercept) == (1.0, 0.0) for header in headers)
        unsigned = not any(header.facts.signed for header in headers)
        self._wider = np.dtype(np.float32 if not plain else np.uint16 if unsigned else np.int32)
        self.array = np.zeros(shape[::-1], np.int16 if whole else np.float32)
        self._smallest = np.inf

    def write(self, k: int, plane: Plane, inside: tuple[slice, slice] | None = None) -> None:
        """Put rescaled values, (J, I), into slice k, or into the part of it that is `inside` (along i, along j)."""
        low, high = float(plane.min()), float(plane.max())
        self._smallest = min(self._smallest, low)
        if self.array.dtype == np.int16 and not (low >= _INT16.min and high <= _INT16.max):
            self.array = self.array.astype(self._wider)
        place = self.array[k] if inside is None else self.array[k, inside[1], inside[0]]
        if plane.dtype.kind == "f" and place.dtype.kind != "f":
            np.rint(plane, out=place, casting="unsafe")
        else:
            place[...] = plane

    def fill(self, shear: Shear) -> None:
        """Give the places that the scanner's planes do not reach the smallest value there is: air, in a CT."""
        smallest = np.array(self._smallest).astype(self.array.dtype)
        for k, plane in enumerate(self.array):
            i, j = shear.inside(k)
            for outside in ((slice(0, j.start), slice(None)), (slice(j.stop, None), slice(None))):
                plane[outside] = smallest
            for outside in ((slice(None), slice(0, i.start)), (slice(None), slice(i.stop, None))):
                plane[outside] = smallest


def _values(header: Header, value: bytes | memoryview) -> Plane:
    """The rescaled values of a slice, (J, I)."""
    plane, padding = decode(value, header.facts)
    values = _rescaled(plane, header)
    if padding is not None and padding_is_air(header):
        values = np.where(padding, values.dtype.type(AIR_HU), values)
    return values


def _rescaled(plane: Plane, header: Header) -> Plane:
    """Stored numbers to values (PS3.3 C.11.1.1.2), exactly: in whole numbers where they are, else in 64 bits."""
    slope, intercept = header.slope, header.intercept
    if (slope, intercept) == (1.0, 0.0):
        return plane if header.facts.padding is None else plane.astype(np.int32)
    if slope.is_integer() and intercept.is_integer() and abs(slope) * 65536 + abs(intercept) < _INT32_SAFE:
        values = plane.astype(np.int32)
        if slope != 1:
            values *= int(slope)
        values += int(intercept)
        return values
    return np.asarray(plane.astype(np.float64) * slope + intercept)


def _blended(planes: Iterator[Plane], blend: Sequence[tuple[int, float]]) -> Iterator[Plane]:
    """Slices of the regular row between the received ones, by linear interpolation; two of those are held at a time."""
    at, before, after = 0, next(planes), next(planes)
    for index, share in blend:
        while at < index:
            at, before, after = at + 1, after, next(planes)
        yield before if share == 0 else before.astype(np.float64) * (1 - share) + after.astype(np.float64) * share


class _Source:
    """Each frame's bytes, out of files that are as they were when they were accepted."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: tuple[Path, bytes] | None = None
        self._inflating: Inflating | None = None

    def frame(self, one: Slice) -> bytes | memoryview:
        """The bytes of one frame; a deflated file is inflated once for all its frames, and held whole only to go back in it.

        Raises:
            InputRejected: the file is gone or cannot be read.
            IntegrityError: it changed since it was accepted.
        """
        header = one.header
        first, last = header.pixels
        if header.facts.syntax != DEFLATED:
            part = bytearray(last - first)
            if unchanged_part(one.path, one.state, first, memoryview(part)):
                return memoryview(part)
            if header.frames > 1:
                return _part(one, first, last)
        elif header.frames > 1 and (inflated := self._inflated(one)) is not None:
            return inflated
        if self._held is None or self._held[0] != one.path:
            self._held = None
            data = receive_again(one.path, one.digest, limits=self._limits)
            self._held = one.path, dataset_bytes(data, limits=self._limits) if header.facts.syntax == DEFLATED else data
        return memoryview(self._held[1])[first:last]

    def _inflated(self, one: Slice) -> bytes | None:
        """One of several frames of a deflated file, None where it has gone by; raises as `frame`."""
        if self._inflating is None or self._inflating.path != one.path:
            try:
                _check_unchanged(one)
            except OSError:
                raise _unreadable() from None
            self._inflating = Inflating(one.path, self._limits)
        return self._inflating.part(*one.header.pixels)


def _part(one: Slice, first: int, last: int) -> bytes:
    """One frame of a file of many, which is never held whole."""
    try:
        with one.path.open("rb") as stream:
            _check_unchanged(one)
            stream.seek(first)
            return stream.read(last - first)
    except OSError:
        raise _unreadable() from None


def _check_unchanged(one: Slice) -> None:
    status = one.path.stat()
    if _digest_of(one.path, (status.st_size, status.st_mtime_ns, status.st_ino)) != one.digest:
        raise changed()


def _unreadable() -> InputRejected:
    return InputRejected("The file cannot be read; check its permissions and the disk.", code="FILE_UNREADABLE")


@lru_cache(maxsize=16)
def _digest_of(path: Path, state: tuple[int, int, int]) -> str:
    """SHA-256 of a file in its present state, asked once for all its frames."""
    del state
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()
