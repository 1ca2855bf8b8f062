"""The bounded door in front of every parser: size, inflation and depth are checked by our own code before a library looks.

What the libraries behind it raise, warn and log is mapped and silenced here, in one place: their messages quote the input.
"""

import logging
import mmap
import os
import stat
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from bedside.core.digest import digest_bytes, digest_file
from bedside.core.errors import InputRejected, IntegrityError
from bedside.core.record import Record

_CHUNK_BYTES = 1 << 20
_FEED_BYTES = 1 << 16
_PIECE_BYTES = 1 << 18
_GZIP_WINDOW = 31
_MAPPED_BYTES = 64 << 20
"""A file that is larger is mapped instead of being read: of a multi-frame image the header pass needs only the header."""

_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_STATE = struct.Struct("<qqqQQ")
_SETTLED_NS = 60_000_000_000
"""A disk's clock has ticks, and what a program writes into a mapped file shows in the times of the file only when the kernel
writes it back, 35 seconds later at most."""

Content = bytes | mmap.mmap
"""A file's bytes: slices of either are `bytes`."""


class Limits(Record):
    """How much of anything a received file may ask for.

    Attributes:
        max_file_bytes: of one file on disk.
        max_inflated_bytes: of what a compressed file becomes.
        max_depth: of nested DICOM sequences.
        max_elements: of DICOM data elements in one file, nested ones included.
        max_items: of DICOM sequences in one file: eight bytes each, and much work for whoever makes objects of them.
        max_voxels: of one volume.
    """

    max_file_bytes: int = 2 << 30
    max_inflated_bytes: int = 512 << 20
    max_depth: int = 64
    max_elements: int = 200_000
    max_items: int = 60_000
    max_voxels: int = 1 << 30


LIMITS = Limits()

FOREIGN_ERRORS = (
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    struct.error,
    zlib.error,
    RecursionError,
    MemoryError,
    LookupError,
    EOFError,
    RuntimeError,
    OSError,
)
"""What pydicom, nibabel and their decoders were seen to raise on hostile bytes (subclasses of theirs included).

Their own errors that are none of these are in `_OWN_ERRORS`.
"""
_OWN_ERRORS = {
    "pydicom.errors": ("InvalidDicomError", "BytesLengthException"),
    "nibabel.spatialimages": ("HeaderDataError", "HeaderTypeError", "ImageDataError"),
    "nibabel.wrapstruct": ("WrapStructError",),
}
"""By module, which is not imported where nothing of it is used: errors without another parent than `Exception`."""


_LIBRARIES = frozenset({"nibabel", "openjpeg", "pydicom", "pylibjpeg"})
_LOGGERS = ("nibabel.global", "openjpeg.decode", "pydicom")
"""Named here because they may be made only while a library is at work, too late to be found."""


class _Silence(logging.Filter):
    """Drops every record: the libraries' messages quote values of the input. One object per use, so that threads do not meet."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing through."""
        del record
        return False


@contextmanager
def guarded(code: str, sentence: str) -> Iterator[None]:
    """Run a library behind the gate: whatever it raises becomes one `InputRejected`; its warnings and log lines go nowhere.

    The original error is not chained, because its text may quote a patient's value.
    """
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LIBRARIES]
    loggers = [logging.getLogger(name) for name in {*known, *_LOGGERS}]
    silence = _Silence()
    for logger in loggers:
        logger.addFilter(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _foreign_errors():
        raise InputRejected(sentence, code=code) from None
    finally:
        for logger in loggers:
            logger.removeFilter(silence)


def _foreign_errors() -> tuple[type[BaseException], ...]:
    """`FOREIGN_ERRORS`, and the libraries' own that have no other parent, of those libraries that are at work."""
    own = (getattr(sys.modules[module], name) for module, names in _OWN_ERRORS.items() if module in sys.modules for name in names)
    return *FOREIGN_ERRORS, *own


def receive(path: Path, *, limits: Limits = LIMITS) -> bytes:
    """Read a received file whole, after its kind and size were looked at.

    Raises:
        InputRejected: FILE_KIND (a link, pipe or device), FILE_EMPTY, FILE_SIZE or FILE_UNREADABLE.
    """
    try:
        _checked_size(path, limits)
        return path.read_bytes()
    except OSError:
        raise _unreadable() from None


def receive_for_headers(path: Path, *, limits: Limits = LIMITS) -> tuple[Content, str, bytes]:
    """Read a received file, or map it where it is large; of a mapped file only what is looked at is read.

    Returns:
        The bytes, their SHA-256, and the file's state before they were read (see `unchanged_part`).

    Raises:
        InputRejected: as `receive`.
    """
    try:
        size = _checked_size(path, limits)
        descriptor = os.open(path, _READING)
        try:
            state = _settled_state(descriptor)
            if size <= _MAPPED_BYTES:
                data = b"".join(iter(lambda: os.read(descriptor, size + 1), b""))  # what is asked for is set aside
                return data, digest_bytes(data), state
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), digest_file(path), state
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        raise _unreadable() from None


def _read(descriptor: int, size: int) -> bytes:
    """The bytes of a file of `size`; one that grows meanwhile is cut off, and found to have changed when it is read again."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def unchanged_part(path: Path, state: bytes, first: int, into: memoryview) -> bool:
    """Fill `into` from byte `first` of a file that is as it was when it was hashed.

    Args:
        path: of the file.
        state: of then, as `receive_for_headers` gave it.
        first: where the part starts.
        into: takes the bytes.

    Returns:
        Whether it is filled. Where not, the file has to be read and hashed again: it was changed or touched, is gone, or had been
        changed so shortly before it was hashed that a further change might not show.
    """
    if not state:
        return False
    try:
        descriptor = os.open(path, _READING)
        try:
            return _state(os.fstat(descriptor)) == state and os.preadv(descriptor, [into], first) == into.nbytes
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _state(found: os.stat_result) -> bytes:
    """What is different for every file, and after every change of one; no program can set the time of the change itself."""
    return _STATE.pack(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def _settled_state(descriptor: int) -> bytes:
    """The state of an open file; b"" where it is so young that it may change again and look the same."""
    found = os.fstat(descriptor)
    return _state(found) if max(found.st_mtime_ns, found.st_ctime_ns) < time.time_ns() - _SETTLED_NS else b""


def received_pieces(path: Path, *, limits: Limits = LIMITS) -> Iterator[bytes]:
    """Read a received file piece by piece, at most 256 KiB each, after its kind and size were looked at. Raises as `receive`."""
    try:
        _checked_size(path, limits)
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
    except OSError:
        raise _unreadable() from None


def forget(data: Content) -> None:
    """Let go of the pages of a mapped file that were looked at; they are read again when they are wanted again."""
    if isinstance(data, mmap.mmap):
        data.madvise(mmap.MADV_DONTNEED)


def _checked_size(path: Path, limits: Limits) -> int:
    """Size of a received file, after its kind and size were looked at."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputRejected("This is a link, pipe or device, not a file; copy the file itself.", code="FILE_KIND")
    if status.st_size == 0:
        raise InputRejected("The file is empty; fetch it again.", code="FILE_EMPTY")
    if status.st_size > limits.max_file_bytes:
        raise InputRejected(
            f"The file has {status.st_size} bytes; at most {limits.max_file_bytes} are allowed.", code="FILE_SIZE"
        )
    return status.st_size


def _unreadable() -> InputRejected:
    return InputRejected("The file cannot be read; check its permissions and the disk.", code="FILE_UNREADABLE")


def receive_again(path: Path, digest: str, *, limits: Limits = LIMITS) -> bytes:
    """Read a file that was accepted before.

    Raises:
        IntegrityError: its bytes are no longer those that were accepted (FILE_CHANGED).
        InputRejected: it is gone or cannot be read.
    """
    data = receive(path, limits=limits)
    if digest_bytes(data) != digest:
        raise changed()
    return data


def changed() -> IntegrityError:
    """What is raised when a file is no longer the one that was accepted."""
    return IntegrityError(
        "A received file was changed after it was accepted; put the received bytes back or ingest it again.",
        code="FILE_CHANGED",
    )


def inflate(data: bytes | memoryview, *, window_bits: int, code: str, limits: Limits = LIMITS) -> bytes:
    """Inflate within the limit: counted first in constant memory, kept only when it fits.

    Args:
        data: the compressed bytes.
        window_bits: of zlib: -15 for raw deflate (DICOM), 31 for gzip.
        code: prefix of the refusal's name ("DCM" or "NII").
        limits: the cap is `max_inflated_bytes`.

    Raises:
        InputRejected: <code>_INFLATE_LIMIT, or <code>_TRUNCATED when the stream is cut or damaged.
    """
    total = sum(len(chunk) for chunk in inflate_chunks(data, window_bits=window_bits, code=code, limits=limits))
    whole = bytearray(total)
    at = 0
    for chunk in inflate_chunks(data, window_bits=window_bits, code=code, limits=limits):
        whole[at : at + len(chunk)] = chunk
        at += len(chunk)
    return bytes(whole)


def inflate_chunks(data: bytes | memoryview, *, window_bits: int, code: str, limits: Limits = LIMITS) -> Iterator[bytes]:
    """Inflate piece by piece, at most 1 MiB each; gzip members that follow each other are one stream. Raises as `inflate`."""
    view, at, total = memoryview(data), 0, 0
    while at < len(view):
        stream = zlib.decompressobj(window_bits)
        pending = b""
        while not stream.eof:
            piece = pending or view[at : at + _FEED_BYTES]
            at += 0 if pending else len(piece)
            chunk = _decompress(stream, piece, code)
            pending = stream.unconsumed_tail
            total += len(chunk)
            if total > limits.max_inflated_bytes:
                raise InputRejected(
                    f"The compressed data inflates to more than {limits.max_inflated_bytes} bytes, which is the limit.",
                    code=f"{code}_INFLATE_LIMIT",
                )
            if not piece and not chunk and not stream.eof:
                raise InputRejected("The compressed data ends too early; fetch the file again.", code=f"{code}_TRUNCATED")
            yield chunk
        at = at - len(stream.unused_data) if window_bits > 15 else len(view)


def inflate_pieces(
    pieces: Iterable[bytes], *, code: str, window_bits: int = _GZIP_WINDOW, limits: Limits = LIMITS
) -> Iterator[bytes]:
    """Inflate what is read piece by piece, at most 1 MiB at once; gzip members that follow each other are one stream.

    Raises as `inflate`.
    """
    stream, total = zlib.decompressobj(window_bits), 0
    for piece in chain(pieces, [b""]):
        data = piece
        while True:
            if stream.eof and window_bits < 0:
                return
            if stream.eof and data:
                stream = zlib.decompressobj(window_bits)
            chunk = b"" if stream.eof else _decompress(stream, data, code)
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            total += len(chunk)
            if total > limits.max_inflated_bytes:
                raise InputRejected(
                    f"The compressed data inflates to more than {limits.max_inflated_bytes} bytes, which is the limit.",
                    code=f"{code}_INFLATE_LIMIT",
                )
            if chunk:
                yield chunk
            if not data and (piece or not chunk):
                break
    if not stream.eof:
        raise InputRejected("The compressed data ends too early; fetch the file again.", code=f"{code}_TRUNCATED")


def _decompress(stream: "zlib._Decompress", piece: bytes | memoryview, code: str) -> bytes:
    try:
        return stream.decompress(piece, _CHUNK_BYTES)
    except zlib.error:
        raise InputRejected("The compressed data is damaged; fetch the file again.", code=f"{code}_TRUNCATED") from None
