"""Arrays as `.npy` files that are named by their content, encrypted where the site asks for it."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bedside.core.errors import disk_errors
from bedside.core.sealing import SUFFIX, cipher
from bedside.core.volume import Array

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_PIECE_BYTES = 1 << 22


def stored_form(array: Array) -> Array:
    """The same values in Fortran order and little endian, so that equal arrays have equal bytes on every machine.

    Fortran order, because a stack of DICOM slices and a NIfTI file have it already: most volumes are stored without a copy.
    """
    return np.asfortranarray(array, dtype=array.dtype.newbyteorder("<"))


def content_name(form: Array, *, seal: bool = False) -> str:
    """The file name that `store_array` gives a stored form: the SHA-256 of its `.npy` bytes, or of them sealed."""
    return _name(_digest(_outer(form, seal=seal)), seal=seal)


def store_array(folder: Path, form: Array, *, seal: bool = False) -> str:
    """Write a stored form under the name of its content, and return the name; content that is there already stays.

    Several workers may write the same content at once: each writes a file of its own, and the last to finish names it. A file
    that has the name is whole, because it got it after its last byte. Large arrays are hashed while they are written.

    Args:
        folder: takes the file.
        form: what `stored_form` gave.
        seal: encrypt the file; its name is then that of the sealed bytes, and tells nothing of the voxels.

    Raises:
        UsageError: the file is to be sealed and there is no key in the environment (NO_STORE_KEY).
        ResourceError: the disk is full.
    """
    # Not numpy.save: on a full disk it raises an OSError without a number, which nobody can tell from another failure.
    with disk_errors("writing a case"):
        if form.nbytes <= _PIECE_BYTES and not seal:
            name = content_name(form)
            if not (folder / name).exists():
                _write(folder, _pieces(form)).rename(folder / name)
            return name
        if seal:
            total = hashlib.sha256()
            temporary = _write(folder, _noted(_outer(form, seal=True), total))
            digest = total.hexdigest()
        else:
            with ThreadPoolExecutor(1) as second:
                hashing = second.submit(_digest, _pieces(form))
                temporary = _write(folder, _pieces(form))
                digest = hashing.result()
        temporary.rename(folder / _name(digest, seal=seal))
    return _name(digest, seal=seal)


def _noted(pieces: Iterable[bytes | memoryview], total: "Hash") -> Iterator[bytes | memoryview]:
    for piece in pieces:
        total.update(piece)
        yield piece


def _write(folder: Path, pieces: Iterable[bytes | memoryview]) -> Path:
    """A new file of these pieces, under a name that means that it is unfinished."""
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[stream.write(rest) :]
        if stream.tell() > _PIECE_BYTES:
            # Pages that nobody wants to keep are written back now, beside the next case, and not all of them in the end.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Path(temporary)


def _name(digest: str, *, seal: bool) -> str:
    return f"{digest}.npy{SUFFIX if seal else ''}"


def _outer(form: Array, *, seal: bool) -> Iterable[bytes | memoryview]:
    """What the file of a stored form holds."""
    return cipher().seal(_pieces(form), content=_digest(_pieces(form))) if seal else _pieces(form)


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def _pieces(form: Array) -> Iterator[bytes | memoryview]:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(form))
    yield header.getvalue()
    data = form.T.reshape(-1).view(np.uint8).data
    yield from (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
