"""Prepared cases on disk: each is known by a digest of all that its bytes depend on, so versions of a dataset share them.

A file whose size, inode, time of change and status time are those of its writing has the bytes that were written: no program can
set a status time (ctime). Any other file is hashed before it is used. What a disk itself gets wrong is not noticed; the weights
of a suspicious run are compared by `bedside recreate` in another study folder, which prepares anew.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from bedside.core.case import Case
from bedside.core.dataset import CaseRecord, content_of
from bedside.core.digest import canonical_json, digest_file, digest_json
from bedside.core.errors import ResourceError, disk_errors
from bedside.core.files import sync_files
from bedside.core.lesson import target_settings
from bedside.core.model import Preprocessing
from bedside.core.record import Record
from bedside.core.task import Task
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace, staging_in
from bedside.data.patches import Example, find_foreground, open_example
from bedside.data.transforms import prepare, prepare_label

FORM = 3
"""Counts up whenever the files of a prepared case mean something else, or the same case would give others."""
ARRAYS = ("image.npy", "label.npy", "foreground.npy")
WRITTEN = "written.json"


class _File(Record):
    """A file as it was written: its SHA-256, and (bytes, mtime_ns, inode, ctime_ns)."""

    sha256: str
    look: tuple[int, int, int, int]


class _Written(Record):
    """`written.json` of a prepared case: its files by name."""

    files: dict[str, _File]


def prepared_folder(workspace: Workspace) -> Path:
    """Where prepared cases lie, each in a folder named by its key."""
    return workspace.scratch / "prepared"


def case_key(record: CaseRecord, case: Case, *, dataset: str, preprocessing: Preprocessing, task: Task) -> str:
    """Digest of all that the bytes of a prepared case depend on, and of nothing else.

    Args:
        record: of the case in the manifest.
        case: the same, opened.
        dataset: digest of the version that the record stands in.
        preprocessing: of the plan.
        task: makes the label.
    """
    volumes = {
        role: {"content": content_of(volume, dataset), "affine": volume.affine, "shape": volume.shape}
        for role, volume in record.volumes.items()
    }
    computed_by = {"form": FORM, "numpy": np.__version__, "torch": str(torch.__version__)}
    asked = {"preprocessing": preprocessing.model_dump(mode="json"), "target": target_settings(task, case)}
    return digest_json({**computed_by, **asked, "volumes": volumes})


def open_prepared(folder: Path, case: Case, *, preprocessing: Preprocessing, task: Task) -> tuple[Example, bool]:
    """Open a prepared case as memory maps, or prepare it first; and whether that was done because it had been damaged.

    Trainings may do this at the same time: the first to be ready keeps its files, and the others take them.

    Raises:
        ResourceError: the disk is full, or it does not give back what was written (DISK).
    """
    if _is_whole(folder):
        return open_example(folder, case.id), False
    damaged = folder.exists()
    with disk_errors("preparing cases"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staging_in(folder.parent, prefix=".preparing-") as staged:
            _write(case, staged / "new", preprocessing, task)
            _put(staged, folder)
    if not _is_whole(folder):
        raise ResourceError("A prepared case does not read as it was written; see whether the disk is sound.", code="DISK")
    return open_example(folder, case.id), damaged


def _write(case: Case, folder: Path, preprocessing: Preprocessing, task: Task) -> None:
    folder.mkdir()
    truth = case.volumes.get("label", case.image)
    label = prepare_label(Volume.of(np.asarray(task.target(case)), truth.affine), preprocessing)
    arrays: tuple[NDArray[np.generic], ...] = (prepare(case.image, preprocessing).array, label, find_foreground(label))
    digests = {name: _save(folder / name, array) for name, array in zip(ARRAYS, arrays, strict=True)}
    sync_files(folder / name for name in ARRAYS)
    files = {name: _File(sha256=digest, look=_look(folder / name)) for name, digest in digests.items()}
    (folder / WRITTEN).write_bytes(canonical_json(_Written(files=files).model_dump(mode="json")))


def _save(path: Path, array: NDArray[np.generic]) -> str:
    """Write the bytes of `numpy.save`, whose error on a full disk has no number and could be any; returns their SHA-256."""
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array)))
    total = sha256()
    with path.open("wb") as stream:
        for piece in (head.getvalue(), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data):
            total.update(piece)
            stream.write(piece)
    return total.hexdigest()


def _put(staged: Path, folder: Path) -> None:
    """Move what was written to its place, unless another training was first; what is damaged there goes with the staging."""
    with _alone(folder.parent):
        if _is_whole(folder):
            return
        if folder.exists():
            folder.rename(staged / "damaged")
        (staged / "new").rename(folder)


def _is_whole(folder: Path) -> bool:
    """Whether the files of a prepared case are those that were written."""
    try:
        files = _Written.model_validate_json((folder / WRITTEN).read_bytes()).files
        return set(files) == set(ARRAYS) and all(
            _look(folder / name) == file.look or _is_same(folder / name, file) for name, file in files.items()
        )
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return False


def _is_same(path: Path, file: _File) -> bool:
    return path.stat().st_size == file.look[0] and digest_file(path) == file.sha256


def _look(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock that `staging_in` takes too; a process that dies lets go by itself."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
