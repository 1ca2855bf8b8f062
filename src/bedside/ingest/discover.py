"""What lies in a received folder, before any of it is opened: possible images, masks, and what is no file at all."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.core.errors import UsageError
from bedside.core.files import is_plain
from bedside.formats.found import Refused
from bedside.formats.nifti import nifti_stem
from bedside.ingest.names import Files, Names

if TYPE_CHECKING:
    from bedside.core.config import Source


@dataclass(frozen=True)
class Discovery:
    """Every received file, once. Names are relative to the images or the labels folder, sorted, and come from outside.

    Attributes:
        images: name to path of what may be (part of) an image: NIfTI files, and everything else, whatever it is called.
        masks: name without suffix to the NIfTI files of that name below the labels folder.
        refused: links, pipes, devices, and what no mask can be.
        files: "images/" or "labels/" and the name, to path, of all of them.
    """

    images: Names
    masks: Mapping[str, tuple[Path, ...]]
    refused: tuple[Refused, ...]
    files: Files

    @property
    def received(self) -> int:
        """How many files came in."""
        return len(self.files)


def discover(source: Path, layout: "Source") -> Discovery:
    """List the images and labels folders below `source`, to the bottom.

    Links are not followed, so that a received folder cannot name a file outside it. The table of clinical values is no received
    file, wherever it lies.

    Raises:
        UsageError: NO_SOURCE (a folder is missing) or SOURCE_UNREADABLE.
    """
    if not source.is_dir():
        raise UsageError("There is no such folder of scans; check the path after --from.", code="NO_SOURCE")
    images = _folder(source, layout.images, "images")
    labels = None if layout.labels is None else _folder(source, layout.labels, "labels")
    if labels is not None and images.samefile(labels):
        raise UsageError("source.images and source.labels name the same folder; each needs its own.", code="NO_SOURCE")
    table = None if layout.clinical is None else (source / layout.clinical).absolute()
    received = Names(images, _walk(images, labels, table))
    masks = Names(images if labels is None else labels, () if labels is None else _walk(labels, images, table))
    odd = [names[name] for names in (received, masks) for name, path in names.texts() if not is_plain(path)]
    odd_images = {path for path in odd if received.place_of(path) is not None}
    stems, others = _stems({name: path for name, path in masks.items() if path not in odd})
    sentence = "This is a link, pipe or device, or no longer there, not a file; copy the file itself."
    refused = tuple(Refused((path,), "FILE_KIND", sentence) for path in sorted(odd))
    sound = Names(images, (name for name in received if images / name not in odd_images)) if odd_images else received
    return Discovery(sound, stems, (*refused, *others), Files(received, masks))


def _folder(source: Path, name: str, what: str) -> Path:
    folder = source / name
    if not folder.is_dir():
        raise UsageError(
            f"There is no {what} folder called {name} in what was received; give the folder that holds it, or set source.{what}.",
            code="NO_SOURCE",
        )
    return folder


def _walk(root: Path, other: Path | None, table: Path | None) -> Iterator[str]:
    """Yield the relative name of everything below `root` that is not a folder, `other` and one file left out."""

    def stop(error: OSError) -> None:
        raise UsageError(
            "A folder below the source cannot be listed; give this user the right to read it.", code="SOURCE_UNREADABLE"
        ) from error

    for place, folders, files in os.walk(root, onerror=stop):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not (other and (here / name).samefile(other))]
        below = here.relative_to(root).as_posix()
        left_out = table.name if table is not None and table.parent == here.absolute() else None
        for name in (*files, *links):
            if name != left_out:
                yield name if below == "." else f"{below}/{name}"


def _stems(masks: Mapping[str, Path]) -> tuple[Mapping[str, tuple[Path, ...]], tuple[Refused, ...]]:
    """Masks by name without suffix, and the files that can be no masks."""
    found: dict[str, tuple[Path, ...]] = {}
    others = []
    for name, path in masks.items():
        stem = nifti_stem(name)
        if stem is None:
            others.append(path)
        else:
            found[stem] = (*found.get(stem, ()), path)
    sentence = "A mask must be a NIfTI file (.nii or .nii.gz)."
    return found, tuple(Refused((path,), "LABEL_FORMAT", sentence) for path in others)
