"""Received files read and decoded in limited workers: one that crashes, swells or hangs a decoder is refused, and nothing ends.

Voxels come back through a file that has no name any more as soon as it is open here.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bedside.core.errors import UsageError, disk_errors
from bedside.core.ports import Executor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.core.volume import Array, Volume
from bedside.formats.dicom import Look, assemble
from bedside.formats.found import Found, Reading, Refused
from bedside.formats.header_pass import header_pass

MODULES = ("bedside.formats.header_pass", "bedside.formats.limited")
"""Where the functions that workers run are."""


def read_limited(source: Path, executor: Executor, *, keep_reformats: bool = False, progress: Progress = SILENT) -> Reading:
    """Read the headers of a folder, or of one file, in workers; no voxel is decoded.

    Args:
        source: a folder of DICOM files in any order, one DICOM file, or one NIfTI file, known by its name.
        executor: where files are read.
        keep_reformats: see `dicom.assemble`.
        progress: advances with the files.

    Raises:
        UsageError: NO_INPUT: nothing is there.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.is_symlink() or not path.is_dir())
    elif source.is_file():
        paths = [source]
    else:
        raise UsageError("There is no file or folder at the path to read; check it.", code="NO_INPUT")
    seen = dict(header_pass(paths, executor, progress=progress))
    contents = [seen[place].content for place in range(len(paths))]
    reading = assemble((one for one in contents if isinstance(one, Look)), keep_reformats=keep_reformats)
    volumes = tuple(volume for one in contents if isinstance(one, Found) for volume in one.volumes)
    refused = [one for one in contents if isinstance(one, Refused)]
    if source.is_dir():
        sentence = "A NIfTI file among others says nothing of what it is, an image or a mask; give it by itself."
        refused += [Refused(one.files, "NII_IN_FOLDER", sentence) for one in volumes]
        volumes = ()
    return Reading((*volumes, *reading.found), (*refused, *reading.refused), reading.duplicates)


def limited(found: Found, executor: Executor, folder: Path) -> Found:
    """The same volume, not loaded, whose voxels a worker will decode.

    Args:
        found: as `read_limited` gave it.
        executor: must be open when the voxels are first looked at.
        folder: takes the decoded voxels for a moment; workers and this process see it under one path.
    """
    volume = found.volume
    return replace(found, volume=Volume(volume.affine, volume.shape, partial(_decoded, volume.load, executor, folder)))


def _decoded(load: Callable[[], Array], executor: Executor, folder: Path) -> Array:
    """The voxels, mapped from a file without a name: what is not looked at takes no memory, and writing changes a copy.

    Raises:
        InputRejected: LOST_DIED, LOST_MEMORY, LOST_TIME, or why they cannot be decoded.
        IntegrityError: the file changed since its header was read.
        ResourceError: the disk is full.
    """
    (name,) = executor.map(partial(put_decoded, folder), [load])
    if isinstance(name, Lost):
        raise name.refusal
    path = folder / name
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    path.unlink()
    return np.asarray(array)


def put_decoded(folder: Path, load: Callable[[], Array]) -> str:
    """Decode a volume into a new file of a folder and give the file's name; runs in a worker."""
    array = np.asfortranarray(load())
    with disk_errors("decoding a volume"):
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="voxels-")
        with os.fdopen(descriptor, "wb") as stream:  # not numpy.save: on a full disk its error has no number
            np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
            stream.write(array.T.reshape(-1).view(np.uint8).data)
    return Path(name).name
