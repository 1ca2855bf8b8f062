"""Durable writes: temporary file in the same folder, fsync, rename, fsync the folder; and what may be read as a file at all."""

import os
import stat
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bedside.core.errors import disk_errors

_SYNCING = 16
"""Files that are waited for at once."""


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Force a file's bytes to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Force many files to disk. The disk is waited for by several threads at once, because it writes waiting files together."""
    with ThreadPoolExecutor(_SYNCING) as pool:
        for done in [pool.submit(sync_file, path) for path in paths]:
            done.result()


def is_plain(path: Path | str) -> bool:
    """Whether this is a regular file and no link: nothing else that was received is ever opened."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes | bytearray, *, doing: str = "writing a file") -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part, also after a power cut.

    Raises:
        ResourceError: the disk is full; the old content is intact and no temporary file is left.
    """
    with disk_errors(doing):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
