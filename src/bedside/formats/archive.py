"""One received archive (.zip, .tar, .tar.gz) unpacked into scratch: plain files only, counted and bounded as they are written.

An archive is a program for making files: where they go, how many there are and how large they become is for its writer to say.
So nothing of it is believed. What goes up (`..`), out (absolute) or elsewhere (links), what is no file (devices, pipes), what is
too many, too large or packed too well to be images, and what holds another archive is refused as unsafe, and all that was
written until then is removed.
"""

import gzip
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from bedside.core.errors import InputRejected, UnsafeArtefact, UsageError, disk_errors
from bedside.core.record import Record
from bedside.core.workspace import staging_in
from bedside.formats.gate import guarded
from bedside.formats.nifti import nifti_stem

_PIECE_BYTES = 1 << 20
_ZIP_MAGICS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
_OTHER_MAGICS = (b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"MSCF")
_ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_LOCAL_HEADER_BYTES = 30
_HEADER_BYTES = 4 << 20
"""Of a tar between two files, read-ahead included: names and attributes of the next one, which are read whole."""
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"


class ArchiveLimits(Record):
    """How much an archive may ask for.

    Attributes:
        max_entries: files and folders.
        max_bytes: of all files together, unpacked.
        max_ratio: unpacked to packed bytes, beyond `free_bytes`.
        free_bytes: an archive that unpacks to less may be packed as well as it likes.
        max_depth: folders above a file.
        max_name_bytes: of one part of a path.
        max_index_bytes: of a zip's central directory, which is read whole.
    """

    max_entries: int = 500_000
    max_bytes: int = 256 << 30
    max_ratio: int = 200
    free_bytes: int = 16 << 20
    max_depth: int = 32
    max_name_bytes: int = 200
    max_index_bytes: int = 256 << 20


ARCHIVE_LIMITS = ArchiveLimits()


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def inspect_archive(path: Path, *, limits: ArchiveLimits = ARCHIVE_LIMITS) -> None:
    """Read an archive to its end without writing anything.

    Raises:
        UnsafeArtefact: ARCHIVE_UNSAFE.
        UsageError: ARCHIVE_KIND: this is no archive of a kind that is read; ONE_IMAGE: it is a NIfTI file.
        InputRejected: ARCHIVE_KIND (an encrypted one) or ARCHIVE_DAMAGED.
    """
    for _, stream in _files(path, limits):
        while stream.read(_PIECE_BYTES):
            pass


@contextmanager
def received(path: Path, scratch: Path, *, limits: ArchiveLimits = ARCHIVE_LIMITS) -> Iterator[Path]:
    """Give the folder of what was received: `path` itself, or, if it is a file, where it was unpacked to until the end.

    What a kill left unpacked is removed the next time.

    Args:
        path: a folder (or nothing: the caller says so better), or an archive.
        scratch: where to unpack.
        limits: of the archive.

    Raises:
        UnsafeArtefact, UsageError, InputRejected: as `inspect_archive`.
        ResourceError: the disk is full.
    """
    if not path.is_file():
        yield path
        return
    with disk_errors("unpacking an archive"):
        scratch.mkdir(parents=True, exist_ok=True)
    with staging_in(scratch, prefix="unpacked-") as folder:
        for name, stream in _files(path, limits):
            with disk_errors("unpacking an archive"):
                _write(folder.joinpath(*name), stream)
        yield folder


def _write(target: Path, stream: _Readable) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            while piece := stream.read(_PIECE_BYTES):
                out.write(piece)
    except (FileExistsError, NotADirectoryError):
        raise _unsafe("has two entries of one name") from None


def _files(path: Path, limits: ArchiveLimits) -> Iterator[tuple[tuple[str, ...], _Readable]]:
    """Yield (parts of the name, bytes) of every file of an archive; each is to be read before the next is asked for."""
    if nifti_stem(path.name) is not None:
        raise UsageError(
            "What was given is one NIfTI image; give the folder that holds it (and its mask, where the study has masks).",
            code="ONE_IMAGE",
        )
    with _damage(), path.open("rb") as stream:
        start = stream.read(512)
        stream.seek(0)
        if start.startswith(_ZIP_MAGICS):
            yield from _zip_files(stream, path.stat().st_size, limits)
        elif start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
            yield from _tar_files(stream, packed=start.startswith(b"\x1f\x8b"), size=path.stat().st_size, limits=limits)
        else:
            raise UsageError(
                "What was given is one file and no .zip, .tar or .tar.gz archive; give the folder that holds the scans.",
                code="ARCHIVE_KIND",
            )


@contextmanager
def _damage() -> Iterator[None]:
    """Map what the libraries raise on damaged archives."""
    sentence = "The archive cannot be read to its end; fetch it again."
    try:
        with guarded("ARCHIVE_DAMAGED", sentence):
            yield
    except (zipfile.BadZipFile, tarfile.TarError):
        raise InputRejected(sentence, code="ARCHIVE_DAMAGED") from None


class _Bounded:
    """Counts what is unpacked, and stops it at the limits."""

    def __init__(self, stream: _Readable, packed_bytes: int, limits: ArchiveLimits) -> None:
        self.stream, self.packed_bytes, self.limits = stream, packed_bytes, limits
        self.total, self.allowed = 0, limits.max_bytes

    def read(self, size: int = -1, /) -> bytes:
        """Read as the stream does; a piece larger than 64 MiB is nothing that an honest archive asks for."""
        if not 0 <= size <= 64 << 20:
            raise _unsafe("asks for too much at once")
        data = self.stream.read(size)
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Add to the total."""
        self.total += size
        if self.total > self.limits.max_bytes:
            raise _unsafe(f"unpacks to more than {self.limits.max_bytes} bytes")
        if self.total > max(self.limits.free_bytes, self.limits.max_ratio * self.packed_bytes):
            raise _unsafe(f"unpacks to more than {self.limits.max_ratio} times its size")
        if self.total > self.allowed:
            raise _unsafe("has a name or attributes of many megabytes")


class _Entry:
    """The bytes of one entry, counted, and looked at for an archive inside."""

    def __init__(self, stream: _Readable, total: _Bounded | None) -> None:
        self._stream, self._total, self._first = stream, total, True

    def read(self, size: int = -1, /) -> bytes:
        """Read a piece."""
        with _damage():
            data = self._stream.read(size)
        if self._total is not None:
            self._total.count(len(data))
        if self._first and _is_archive(data):
            raise _unsafe("holds another archive")
        self._first = False
        return data


def _is_archive(start: bytes) -> bool:
    """Whether bytes begin an archive; a DICOM file may have anything before its magic, and gzip alone is how NIfTI is packed."""
    if start[128:132] == b"DICM":
        return False
    return start.startswith((*_ZIP_MAGICS, *_OTHER_MAGICS)) or start[257:262] == b"ustar"


def _zip_files(stream: BinaryIO, size: int, limits: ArchiveLimits) -> Iterator[tuple[tuple[str, ...], _Readable]]:
    _check_index(stream, size, limits)
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        for one, following in pairwise(sorted(entries, key=lambda entry: entry.header_offset)):
            if one.header_offset + _LOCAL_HEADER_BYTES + one.compress_size > following.header_offset:
                raise _unsafe("has entries that share bytes")
        total = _Bounded(stream, size, limits)
        names = set[tuple[str, ...]]()
        for count, entry in enumerate(entries, start=1):
            name = _parts(entry.orig_filename, count, limits)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _unsafe("holds a link, a device or a pipe")
            if entry.flag_bits & 1 or entry.compress_type not in _ZIP_METHODS:
                raise InputRejected("The archive is encrypted or packed by a rare method; unpack it first.", code="ARCHIVE_KIND")
            if name in names:
                raise _unsafe("has two entries of one name")
            names.add(name)
            if not entry.is_dir():
                _check_named(name)
                with archive.open(entry) as content:
                    yield name, _Entry(cast("_Readable", content), total)


def _check_index(stream: BinaryIO, size: int, limits: ArchiveLimits) -> None:
    """Look at the end of a zip (APPNOTE 4.3.16, 4.3.14): how many entries there are, before the list of them is read."""
    stream.seek(max(0, size - (1 << 16) - 22 - 76))
    tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise InputRejected("The archive cannot be read to its end; fetch it again.", code="ARCHIVE_DAMAGED")
    entries, index_bytes = struct.unpack_from("<HI", tail, at + 10)
    if tail[at - 20 : at - 16] == _LOCATOR_64 and at >= 20:
        record = tail[max(at - 76, 0) : at - 20]  # where zipfile looks, whatever place the locator says
        if len(record) != 56 or record[:4] != _END_64:
            raise _unsafe("has a list of its entries in two places")
        entries, index_bytes = struct.unpack_from("<QQ", record, 32)
    if entries > limits.max_entries or index_bytes > limits.max_index_bytes:
        raise _unsafe(f"has {entries} entries")
    stream.seek(0)


def _tar_files(
    stream: BinaryIO, *, packed: bool, size: int, limits: ArchiveLimits
) -> Iterator[tuple[tuple[str, ...], _Readable]]:
    plain = _Bounded(cast("_Readable", gzip.GzipFile(fileobj=stream)) if packed else stream, size, limits)
    plain.allowed = _HEADER_BYTES  # the first header is read as the archive is opened
    with tarfile.open(fileobj=cast("BinaryIO", plain), mode="r|", bufsize=_PIECE_BYTES) as archive:
        for count, member in enumerate(archive, start=1):
            name = _parts(member.name, count, limits)
            plain.allowed = plain.total + member.size + _HEADER_BYTES
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them, for a second look that nobody takes
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if content is None:
                raise _unsafe("holds a link, a device or a pipe")
            _check_named(name)
            yield name, _Entry(cast("_Readable", content), None)


def _parts(name: str, count: int, limits: ArchiveLimits) -> tuple[str, ...]:
    """The parts of an entry's name below the folder."""
    if count > limits.max_entries:
        raise _unsafe(f"has more than {limits.max_entries} entries")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    outside = name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in name[:2]
    lengths = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if outside or len(parts) > limits.max_depth or max(lengths, default=0) > limits.max_name_bytes:
        raise _unsafe("has an entry whose name leads out of its folder or is too long")
    return parts


def _check_named(name: tuple[str, ...]) -> None:
    if not name:
        raise _unsafe("has a file without a name")


def _unsafe(what: str) -> UnsafeArtefact:
    return UnsafeArtefact(
        f"The archive {what}; ask its sender for another, or unpack it where it can do no harm.", code="ARCHIVE_UNSAFE"
    )
