"""A hospital's export with a seed wherever one can be: headers, names of files and folders, tables, damaged and odd files."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from bedside.data.identities import Person, Seeds
from bedside.formats.identity_phantom import (
    SeededSeries,
    add_grey,
    part10,
    seeded_instance,
    slice_of,
    write_seeded_nifti,
)
from bedside.formats.nifti import write_nifti

_SHAPE = (16, 16, 4)
_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CUTS = (200, 700, 3000, 0.3, 0.6, 0.99)


@dataclass(frozen=True)
class SeededExport:
    """What was written.

    Attributes:
        seeds: how many values that must not be found again.
        files: how many files, the clinical table not counted.
    """

    seeds: int
    files: int


def write_export(root: Path, *, patients: int = 3, besides: str = "pq") -> SeededExport:
    """Write `images/`, `labels/` and `clinical.csv` below `root`.

    Args:
        root: must be empty.
        patients: with one sound CT series and a mask each.
        besides: option columns whose attributes are left out, see `identity_phantom.seeded_attributes`.
    """
    seeds = Seeds()
    images, labels = root / "images", root / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    people = [Person.of(seeds) for _ in range(patients)]
    for number, person in enumerate(people):
        name = f"{seeds.text()} {person.name}"
        series = SeededSeries.of(person, seeds, besides=besides)
        _write_series(images / name, series, seeds, random=np.random.default_rng(number))
        mask = np.zeros(_SHAPE, np.uint8)
        mask[4:10, 4:10, 1:3] = 1
        _write_mask(labels / f"{name}.nii", mask, seeds)
    _write_odd(images, people, seeds, besides=besides)
    with (root / "clinical.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["PatientID", "age", "remark", seeds.text()])
        writer.writerows([person.patient_id, 40 + row, seeds.text(), seeds.text()] for row, person in enumerate(people))
        writer.writerow([seeds.text(), seeds.text(), seeds.text(), seeds.text()])
        writer.writerow([people[0].patient_id, 400, "", ""])
        writer.writerow([seeds.text()] * 9)
    files = [path for folder in (images, labels) for path in folder.rglob("*") if path.is_file()]
    return SeededExport(seeds.count, len(files))


def _write_series(folder: Path, series: SeededSeries, seeds: Seeds, *, random: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number in range(_SHAPE[2]):
        plane = random.integers(-1000, 1000, _SHAPE[:2]).astype(np.int16)
        data = seeded_instance(series, seeds, number=number + 1, add=slice_of(plane, number))
        (folder / f"{seeds.text()}.dcm").write_bytes(data)


def _write_mask(path: Path, mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], seeds: Seeds) -> None:
    write_nifti(path, mask, _AFFINE)
    write_seeded_nifti(path, path.read_bytes(), seeds)


def _write_odd(images: Path, people: list[Person], seeds: Seeds, *, besides: str) -> None:
    """Everything that is refused: cut, damaged, of another modality, suspicious, no image at all."""
    series = SeededSeries.of(people[0], seeds, besides=besides)
    plane = np.zeros(_SHAPE[:2], np.int16)
    whole = seeded_instance(series, seeds, number=1, add=slice_of(plane, 0))
    odd: dict[str, bytes] = {f"cut {cut}": whole[: cut if isinstance(cut, int) else int(len(whole) * cut)] for cut in _CUTS}
    odd["wrong position"] = whole.replace(b"0\\0\\0 ", seeds.text().encode()[:6], 1)
    odd["wrong length"] = whole.replace(b"\xe0\x7f\x10\x00OW\0\0", b"\xe0\x7f\x10\x00OW\0\1", 1)
    odd["text.txt"] = f"Dear {people[0].name}, {seeds.text()}".encode()
    odd["report.json"] = f'{{"name": "{seeds.text()}"}}'.encode()
    odd["bad.nii"] = whole[:400]
    odd["MR"] = _made(series, seeds, slice_of(plane, 0, modality="MR"))
    odd["head"] = _made(series, seeds, slice_of(np.zeros((128, 128), np.int16), 0, body_part="HEAD"))
    odd["burned in"] = _made(series, seeds, _burned)
    for branch, modality in (("6.1", "US"), ("7", "OT"), ("88.11", "SR"), ("104.1", "DOC"), ("66.4", "SEG"), ("11.1", "PR")):
        odd[modality] = _made(series, seeds, _other(branch, modality, seeds))
    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", str(seeds.value("UI"))
    directory.FileSetID, directory.PatientName = seeds.text(), people[0].name
    odd["DICOMDIR"] = part10(directory, seeds)
    for name, data in odd.items():
        folder = images / f"{seeds.text()} {name}"
        folder.mkdir()
        (folder / f"{seeds.text()} {name}").write_bytes(data)
    (images / f"{seeds.text()} link").symlink_to(f"/nowhere/{seeds.text()}")


def _made(series: SeededSeries, seeds: Seeds, add: Callable[[Dataset], None]) -> bytes:
    return seeded_instance(series, seeds, number=1, add=add)


def _burned(data: Dataset) -> None:
    slice_of(np.zeros(_SHAPE[:2], np.int16), 0)(data)
    data.BurnedInAnnotation = "YES"


def _other(branch: str, modality: str, seeds: Seeds) -> Callable[[Dataset], None]:
    """Sets a class that is no CT slice, with what such objects hold."""

    def add(data: Dataset) -> None:
        data.SOPClassUID, data.Modality = _STORAGE + branch, modality
        if modality == "DOC":
            data.EncapsulatedDocument = b"%PDF-1.7 " + seeds.text().encode() + b" "
        elif modality in {"US", "OT", "SEG"}:
            add_grey(data, np.zeros(_SHAPE[:2], np.uint8))

    return add
