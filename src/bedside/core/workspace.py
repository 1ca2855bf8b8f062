"""A study folder on disk: ledger, content-addressed store, quarantine, reports."""

import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bedside.core.digest import canonical_json, digest_json, digest_tree, file_table
from bedside.core.errors import IntegrityError, UsageError, disk_errors
from bedside.core.files import Syncing, sync_folder, write_atomic
from bedside.core.ledger import Ledger
from bedside.core.record import Record

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{4,64}\Z")


@dataclass(frozen=True)
class Workspace:
    """The folder of one study. Nothing is made on disk before it is needed."""

    folder: Path

    @cached_property
    def ledger(self) -> Ledger:
        """The study's chain of custody."""
        return Ledger(self.folder / "ledger.jsonl")

    @property
    def store(self) -> Path:
        """Folder of values, each in a folder named by its digest."""
        return self.folder / "store"

    @property
    def quarantine(self) -> Path:
        """Folder of refused bytes, each file named by its digest."""
        return self.folder / "quarantine"

    @property
    def reports(self) -> Path:
        """Folder of what people open."""
        return self.folder / "reports"

    @property
    def scratch(self) -> Path:
        """Folder of caches and checkpoints of unfinished work; may be deleted, is not versioned."""
        return self.folder / "scratch"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh folder on the store's disk, removed at the end; fill it and hand it to `put`.

        What a killed process left is removed on the way: a staging folder is in use as long as its maker holds the lock on it.
        """
        with disk_errors("making room in the store"):
            self.store.mkdir(parents=True, exist_ok=True)
        with staging_in(self.store, prefix=".staging-") as folder:
            yield folder

    def put(self, staged: Path, *, known: Mapping[str, str] | None = None, syncing: Syncing | None = None) -> str:
        """Move a staged folder into the store and return its digest; putting the same content twice is a no-op.

        Files are fsynced and made read-only before the rename, so a reader never sees a part of a value.

        Args:
            staged: the folder.
            known: relative name to SHA-256 of files whose bytes were hashed as they were written; they are not read again. Every
                byte is hashed when the value is loaded, so a disk that wrote something else is found out then.
            syncing: what forces some of the files to disk already.
        """
        with disk_errors("writing to the store"):
            files = [path for path in staged.rglob("*") if path.is_file()]
            with nullcontext(syncing) if syncing else Syncing() as waiting:
                waiting.finish(files)
            for path in files:
                path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
            for path in [staged, *staged.rglob("*")]:
                if path.is_dir():
                    sync_folder(path)
            digest = digest_json(file_table(staged, known=known))
            target = self.store / digest
            if target.exists():
                return digest
            staged.chmod(0o755)
            try:
                staged.rename(target)
            except OSError:
                if not target.exists():  # another writer may have put the same content first
                    raise
            sync_folder(self.store)
        return digest

    def put_record(self, name: str, record: Record, *, doing: str) -> str:
        """Put a value that is one record into the store, as canonical JSON in the file `name`, and return its digest.

        Args:
            name: of the file.
            record: equal records give equal digests.
            doing: what is said of it when the disk is full.
        """
        with self.staging() as staged:
            write_atomic(staged / name, canonical_json(record.model_dump(mode="json")), doing=doing)
            return self.put(staged)

    def get(self, digest: str) -> Path:
        """Return the folder of a value after hashing all of it again.

        Raises:
            IntegrityError: MISSING (fetch it: dvc pull) or CHANGED (the bytes are not those that were stored).
        """
        if not _DIGEST.match(digest):
            raise UsageError("A digest is 64 hexadecimal digits.", code="DIGEST")
        folder = self.store / digest
        if not folder.is_dir():
            raise IntegrityError(
                f"The value {digest[:12]} is not in the store; fetch it (dvc pull) or make it again.", code="MISSING"
            )
        if digest_tree(folder) != digest:
            raise IntegrityError(
                f"The bytes of {digest[:12]} have changed since they were stored; restore them (dvc checkout, dvc pull).",
                code="CHANGED",
            )
        return folder

    def find(self, prefix: str) -> str:
        """Return the one digest in the store that begins with `prefix` (at least 4 hexadecimal digits)."""
        if not _PREFIX.match(prefix):
            raise UsageError("Give at least 4 hexadecimal digits of a digest.", code="DIGEST")
        names = [path.name for path in self.store.glob(f"{prefix}*") if _DIGEST.match(path.name)] if self.store.exists() else []
        if len(names) != 1:
            found = f"{len(names)} values" if names else "no value"
            raise UsageError(f"There is {found} in the store whose digest begins with {prefix}.", code="DIGEST")
        return names[0]

    def digests(self) -> tuple[str, ...]:
        """Every digest in the store, sorted."""
        return tuple(sorted(p.name for p in self.store.iterdir() if _DIGEST.match(p.name))) if self.store.exists() else ()

    def exists(self) -> bool:
        """Whether anything was done here yet."""
        return self.ledger.path.exists()


@contextmanager
def staging_in(place: Path, *, prefix: str) -> Iterator[Path]:
    """A fresh folder inside `place`, removed at the end with what is left in it.

    What a killed process left under the same prefix is removed on the way: a folder is in use as long as its maker holds the lock
    on it.
    """
    with disk_errors("making a folder for unfinished work"):
        folder, lock = _reserve(place, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _reserve(place: Path, prefix: str) -> tuple[Path, int]:
    """Make a locked folder; the lock on the place keeps another process from seeing it before it is locked."""
    outer = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(outer, fcntl.LOCK_EX)
        for old in place.glob(f"{prefix}*"):
            if _is_abandoned(old):
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=place, prefix=prefix))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(outer)
    return folder, lock


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock of a staging folder any more."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):  # put away or removed a moment ago; or not one of ours
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def read_json(path: Path) -> object:
    """Read a JSON file of the store; one that is not JSON is an integrity error."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"The stored file {path.name} is missing or not JSON.", code="CHANGED") from error


def free_bytes(folder: Path) -> int:
    """Free disk space for this user where `folder` is, or will be made."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
