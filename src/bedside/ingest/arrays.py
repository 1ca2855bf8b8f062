"""Arrays as `.npy` files that are named by their content."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from bedside.core.errors import disk_errors
from bedside.core.volume import Array


def stored_form(array: Array) -> Array:
    """The same values in C order and little endian, so that equal arrays have equal bytes on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def content_name(array: Array) -> str:
    """The file name of a stored form: the SHA-256 of its `.npy` bytes."""
    total = hashlib.sha256()
    for piece in _pieces(array):
        total.update(piece)
    return f"{total.hexdigest()}.npy"


def write_array(folder: Path, name: str, array: Array) -> None:
    """Write a stored form under its content name; content that is there already is not written twice.

    Several workers may write the same content at once: each writes a file of its own, and the last to finish names it.

    Raises:
        ResourceError: the disk is full.
    """
    target = folder / name
    if target.exists():
        return
    # Not numpy.save: on a full disk it raises an OSError without a number, which nobody can tell from another failure.
    with disk_errors("writing a case"):
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
        with os.fdopen(descriptor, "wb") as stream:
            for piece in _pieces(array):
                stream.write(piece)
        Path(temporary).rename(target)


def _pieces(array: Array) -> Iterator[bytes | memoryview]:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    yield header.getvalue()
    yield array.reshape(-1).view(np.uint8).data
