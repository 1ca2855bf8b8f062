"""What lies in a received folder, before any of it is opened: cases with their masks, and files that can be neither."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bedside.core.config import Source
from bedside.core.errors import UsageError
from bedside.formats.found import Refused

_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Candidate:
    """Files that share one name below the images and the labels folder.

    Attributes:
        key: the images' relative name without suffix, or the series folder's relative path; comes from outside.
        niftis: NIfTI files of that name (more than one: `a.nii` beside `a.nii.gz`).
        series: every other file of the folder of that name.
        masks: NIfTI files of that name below the labels folder.
    """

    key: str
    niftis: tuple[Path, ...]
    series: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Discovery:
    """Every received file, once.

    Attributes:
        candidates: sorted by key, so that the order of directory entries plays no part.
        refused: files that are part of no case.
        files: relative name to path of all of them, sorted.
    """

    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    files: tuple[tuple[str, Path], ...]

    @property
    def received(self) -> int:
        """How many files came in."""
        return len(self.files)


def discover(source: Path, layout: Source) -> Discovery:
    """List the images and labels folders below `source`.

    Links are not followed, so that a received folder cannot name a file outside it.

    Raises:
        UsageError: NO_SOURCE (a folder is missing) or SOURCE_UNREADABLE.
    """
    images = _folder(source, layout.images, "images")
    labels = None if layout.labels is None else _folder(source, layout.labels, "labels")
    if labels is not None and images.samefile(labels):
        raise UsageError("source.images and source.labels name the same folder; each needs its own.", code="NO_SOURCE")
    received = dict(_walk(images, labels))
    masks = {} if labels is None else dict(_walk(labels, images))
    plain, odd = _regular([*received.values(), *masks.values()])
    image_names = {name: path for name, path in received.items() if path in plain}
    mask_names = {name: path for name, path in masks.items() if path in plain}
    candidates, refused = _group(image_names, mask_names)
    everything = [(f"images/{name}", path) for name, path in received.items()]
    everything += [(f"labels/{name}", path) for name, path in masks.items()]
    return Discovery(candidates, (*odd, *refused), tuple(sorted(everything)))


def _folder(source: Path, name: str, what: str) -> Path:
    folder = source / name
    if not folder.is_dir():
        raise UsageError(
            f"There is no {what} folder {folder}; give the folder that holds it, or set source.{what} in the study.",
            code="NO_SOURCE",
        )
    return folder


def _walk(root: Path, other: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield (relative name, path) of everything below `root` that is not a folder, `other` left out."""

    def stop(error: OSError) -> None:
        raise UsageError(
            "A folder below the source cannot be listed; give this user the right to read it.", code="SOURCE_UNREADABLE"
        ) from error

    for place, folders, files in os.walk(root, onerror=stop):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not (other and (here / name).samefile(other))]
        for name in sorted([*files, *links]):
            yield (here / name).relative_to(root).as_posix(), here / name


def is_plain(path: Path) -> bool:
    """Whether this is a regular file and no link: nothing else is ever opened."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _regular(paths: Iterable[Path]) -> tuple[frozenset[Path], tuple[Refused, ...]]:
    """Divide into files that can be opened without surprises, and the rest."""
    everything = sorted(paths)
    plain = frozenset(path for path in everything if is_plain(path))
    sentence = "This is a link, pipe or device, or no longer there, not a file; copy the file itself."
    return plain, tuple(Refused((path,), "FILE_KIND", sentence) for path in everything if path not in plain)


def _group(images: dict[str, Path], masks: dict[str, Path]) -> tuple[tuple[Candidate, ...], tuple[Refused, ...]]:
    niftis: dict[str, list[Path]] = {}
    series: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    refused = []
    for name, path in sorted(images.items()):
        key, _, _ = name.rpartition("/")
        if (stem := _stem(name)) is not None:
            niftis.setdefault(stem, []).append(path)
        elif key:
            series.setdefault(key, []).append(path)
        else:
            refused.append(
                Refused((path,), "LOOSE_FILE", "The file is no NIfTI and lies outside a series folder; give each series its own.")
            )
    for name, path in sorted(masks.items()):
        if (stem := _stem(name)) is not None:
            labels.setdefault(stem, []).append(path)
        else:
            refused.append(Refused((path,), "LABEL_FORMAT", "A mask must be a NIfTI file (.nii or .nii.gz)."))
    keys = sorted(niftis.keys() | series.keys())
    alone = sorted(labels.keys() - set(keys))
    refused.extend(Refused(tuple(labels[stem]), "LABEL_ORPHAN", "There is no image of the mask's name.") for stem in alone)
    candidates = (
        Candidate(key, tuple(niftis.get(key, ())), tuple(series.get(key, ())), tuple(labels.get(key, ()))) for key in keys
    )
    return tuple(candidates), tuple(refused)


def _stem(name: str) -> str | None:
    """The name without its NIfTI suffix, or None where it has none."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name.rpartition("/")[2]) > len(suffix):
            return name[: -len(suffix)]
    return None
