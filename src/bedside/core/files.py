"""Durable writes: temporary file in the same folder, fsync, rename, fsync the folder; and what may be read as a file at all."""

import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bedside.core.errors import disk_errors

_SYNCING = 16
"""Files that are waited for at once."""
_State = tuple[int, int]


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Syncing:
    """Forces files to disk beside other work, several at once, because a disk writes waiting files together.

    What is on disk is known by inode and status time: a file that was replaced since then is forced to disk again.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_SYNCING)
        self._running: deque[tuple[str, Future[_State | None]]] = deque()
        self._synced: dict[str, _State | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, path: Path) -> None:
        """Let a file that is whole be forced to disk from now on; one that is removed before its turn is no concern.

        Raises:
            OSError: the disk refused an earlier file.
        """
        self._running.append((str(path), self._pool.submit(_sync_if_there, path)))
        while self._running and self._running[0][1].done():
            self._hear()

    def finish(self, paths: Iterable[Path]) -> None:
        """Wait until all that was begun, and these files as they are now, are on disk.

        Raises:
            OSError: the disk refused one, or one of `paths` is not there.
        """
        while self._running:
            self._hear()
        for path in paths:
            if self._synced.get(str(path)) != _state(path.stat()):
                self._running.append((str(path), self._pool.submit(_sync, path)))
        while self._running:
            self._hear()

    def _hear(self) -> None:
        path, done = self._running.popleft()
        self._synced[path] = done.result()


def _state(found: os.stat_result) -> _State:
    return found.st_ino, found.st_ctime_ns


def _sync(path: Path) -> _State:
    """Force a file's bytes to disk, and say which file that was."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        before = _state(os.fstat(descriptor))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return before


def _sync_if_there(path: Path) -> _State | None:
    with suppress(FileNotFoundError):
        return _sync(path)
    return None


def sync_files(paths: Iterable[Path]) -> None:
    """Force many files to disk."""
    with Syncing() as syncing:
        syncing.finish(paths)


def is_plain(path: Path | str) -> bool:
    """Whether this is a regular file and no link: nothing else that was received is ever opened."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes | bytearray, *, doing: str = "writing a file", wait: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part, also after a power cut.

    Args:
        path: of the file.
        data: all of it.
        doing: what is said of it when the disk is full.
        wait: until it is on disk; without, a power cut may leave a part, and the reader has to notice that.

    Raises:
        ResourceError: the disk is full; the old content is intact and no temporary file is left.
    """
    with disk_errors(doing):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                if wait:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if wait:
            sync_folder(path.parent)
