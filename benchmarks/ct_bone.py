"""Bone in CT, on real patients that the model has not seen: leave one real patient out, train on the others and on phantoms.

python benchmarks/ct_bone.py --from ../shared/data/ct_bone_totalseg --minutes 10 --folder /tmp/ct-bone

Three real patients are labelled, and their labels are other models' outputs (see the data's PROVENANCE): a trunk at 3 mm,
20 DICOM slices of another trunk at 0.98 x 0.98 x 2 mm, and a crop of the lumbar spine at 1.5 mm. Three patients say whether the
chain works, not how good a product would be.
"""

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from hippocampus import Lines, machine
from scipy.ndimage import binary_closing, binary_fill_holes
from scipy.ndimage import label as components

import bedside as bs
from bedside.core.case import Case
from bedside.core.volume import Volume
from bedside.data.phantom_trunk import trunks
from bedside.formats.nifti import read_nifti, write_nifti
from bedside.metrics.segmentation import score

STUDY = Path(__file__).resolve().parents[1] / "studies" / "ct-bone.yaml"
PHANTOM_SEED = 7
THRESHOLD_HU = 200
CLOSING_MM = 3
SMALLEST_PART_MM3 = 1000
REAL = ("trunk", "slices", "lumbar")


def bones(data: Path) -> list[int]:
    """Codes of the collection's label map that are bone."""
    with (data / "labels_total.csv").open(newline="") as stream:
        return [int(row["value"]) for row in csv.DictReader(stream) if row["is_bone"] == "1"]


def prepare(folder: Path, data: Path, *, phantoms: int) -> None:
    """Write images/ and labels/ of three real patients and some phantoms, every mask with the codes 0 and 1."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    known = bones(data)
    shutil.copyfile(data / "example_ct.nii.gz", folder / "images" / "trunk.nii.gz")
    write_mask(folder, "trunk", data / "example_seg_fast_force_split.nii.gz", known)
    shutil.copytree(data / "example_ct_dicom", folder / "images" / "slices", dirs_exist_ok=True)
    write_mask(folder, "slices", data / "example_seg_dicom.nii.gz", known)
    crop = data / "tptbox" / "sample_ct"
    shutil.copyfile(crop / "sub-ct_label-22_ct.nii.gz", folder / "images" / "lumbar.nii.gz")
    write_mask(folder, "lumbar", crop / "sub-ct_seg-vert_label-22_msk.nii.gz", None)
    for trunk in trunks(phantoms, seed=PHANTOM_SEED):
        write_nifti(folder / "images" / f"{trunk.name}.nii.gz", trunk.image.array[0], trunk.image.affine)
        write_nifti(folder / "labels" / f"{trunk.name}.nii.gz", trunk.label.array[0], trunk.label.affine)


def write_mask(folder: Path, name: str, source: Path, codes: list[int] | None) -> None:
    """Write the union of some codes, or of all but 0, as code 1."""
    volume = read_nifti(source).volume
    found = np.isin(volume.array[0], codes) if codes else volume.array[0] > 0
    write_nifti(folder / "labels" / f"{name}.nii.gz", found.astype(np.uint8), volume.affine)


def by_threshold(image: Volume) -> np.ndarray:
    """What one gets without a model: bright voxels, small parts left out."""
    parts, _ = components(image.array[0] >= THRESHOLD_HU)
    sizes = np.bincount(parts.ravel()) * np.prod(image.spacing_mm)
    sizes[0] = 0
    return (sizes >= SMALLEST_PART_MM3)[parts].astype(np.uint8)


def filled(image: Volume) -> np.ndarray:
    """What a careful person adds to a threshold: close gaps, and fill what is enclosed in any plane of the grid."""
    bright = by_threshold(image) > 0
    reach = [max(1, round(CLOSING_MM / step)) for step in image.spacing_mm]
    bright |= binary_closing(bright, np.ones([2 * voxels + 1 for voxels in reach], bool))
    for axis in range(3):
        bright |= np.stack([binary_fill_holes(plane) for plane in np.moveaxis(bright, axis, 0)], axis)
    return bright.astype(np.uint8)


def row(name: str, how: str, mask: np.ndarray, case: Case, tolerance_mm: float) -> str:
    """One line of the table."""
    truth, spacing_mm = case.volumes["label"].array[0], case.image.spacing_mm
    scores = score(mask, truth, structures=("background", "bone"), spacing_mm=spacing_mm, tolerance_mm=tolerance_mm).values
    cells = [scores[metric]["bone"] for metric in ("dice", "surface_dice", "hd95_mm")]
    return f"| {name} | {how} | {cells[0]:.3f} | {cells[1]:.3f} | {cells[2]:.2f} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--from", dest="source", type=Path, required=True)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--steps", type=int, help="exact number of steps instead of minutes")
    arguments.add_argument("--phantoms", type=int, default=8)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--leave-out", nargs="*", default=list(REAL))
    arguments.add_argument("--set", action="append", default=[])
    given = arguments.parse_args()
    prepare(given.folder / "received", given.source, phantoms=given.phantoms)
    lines = []
    for name in given.leave_out:
        budget = [f"train.steps={given.steps}", "train.minutes=null"] if given.steps else [f"train.minutes={given.minutes:g}"]
        overrides = [*budget, "split.test=0", f"split.always_test=[{name}]", *given.set]
        config = bs.load(STUDY, overrides=overrides, folder=given.folder / f"without-{name}")
        dataset = bs.ingest(config, given.folder / "received")
        run = bs.train(config, dataset, progress=Lines())
        (case,) = dataset.cases("test")
        tolerance_mm = config.study.evaluate.surface_tolerance_mm
        record = run.record
        how = f"model: {record.steps} steps of {record.seconds_per_step:.2f} s, {record.peak_memory_mb:.0f} MB"
        lines.append(row(name, how, bs.open(run.best())(case).value, case, tolerance_mm))
        lines.append(row(name, f"threshold {THRESHOLD_HU} HU", by_threshold(case.image), case, tolerance_mm))
        lines.append(row(name, "the same, closed and filled", filled(case.image), case, tolerance_mm))
        print("\n".join(lines[-3:]), flush=True)
    print(f"\nmachine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print("| left out | how | Dice | surface Dice at 3 mm | HD95 in mm |\n|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
