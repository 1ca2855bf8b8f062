"""Arrays as `.npy` files that are named by their content, encrypted where the site asks for it."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from bedside.core.errors import disk_errors
from bedside.core.sealing import SUFFIX, cipher
from bedside.core.volume import Array

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

    Several workers may write the same content at once: each writes a file of its own, and the last to finish names it.

    Args:
        folder: takes the file.
        form: what `stored_form` gave.
        seal: encrypt the file; its name is then that of the sealed bytes, and tells nothing of the voxels.

    Raises:
        UsageError: the file is to be sealed and there is no key in the environment (NO_STORE_KEY).
        ResourceError: the disk is full.
    """
    pieces = _outer(form, seal=seal)
    # Not numpy.save: on a full disk it raises an OSError without a number, which nobody can tell from another failure.
    with disk_errors("writing a case"):
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
        total = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as stream:
            for piece in pieces:
                total.update(piece)
                stream.write(piece)
        name = _name(total.hexdigest(), seal=seal)
        Path(temporary).rename(folder / name)
    return name


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
