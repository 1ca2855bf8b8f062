"""Surfaces and DICOM segmentations: closed, outward, near the mask, without gaps; and 25 segments within a minute.

python benchmarks/surfaces.py --from ../shared/data/ct_bone_totalseg

Beside ours stands what is usually done: marching cubes on each structure alone (scikit-image, level 0.5, outward normals).
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
from hippocampus import machine
from skimage.measure import marching_cubes

from bedside.core.volume import Affine, Volume
from bedside.data.surface import SurfaceSettings, surfaces
from bedside.data.surface_check import is_watertight, signed_volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.nifti import read_nifti
from bedside.formats.seg import Kind, SegMaker, read_seg, write_seg

MAKER = SegMaker("0" * 64, "benchmark", "0")


def bones(data: Path) -> dict[int, str]:
    """Codes and names of the bones in the collection's label map."""
    with (data / "labels_total.csv").open(newline="") as stream:
        return {int(row["value"]): row["name"] for row in csv.DictReader(stream) if row["is_bone"] == "1"}


def usual(mask: np.ndarray, affine: Affine, names: Mapping[int, str]) -> list[tuple[bool, float]]:
    """Whether each structure's marching-cubes surface is closed, and its volume in ml."""
    found = []
    for number in names:
        if not (mask == number).any():
            continue
        padded = np.pad((mask == number).astype(np.float32), 1)
        points, faces, _, _ = marching_cubes(padded, 0.5, gradient_direction="ascent")
        points_mm = (points - 1) @ affine[:3, :3].T + affine[:3, 3]
        faces = faces[:, ::-1] if np.linalg.det(affine[:3, :3]) < 0 else faces
        found.append((is_watertight(points_mm, faces), signed_volume(points_mm, faces) / 1000))
    return found


def row(what: str, mask: np.ndarray, affine: Affine, names: Mapping[int, str], faces: int | None) -> str:
    """One line of the table."""
    begun = perf_counter()
    made = [one.check for one in surfaces(mask, affine, structures=names, settings=SurfaceSettings(faces=faces))]
    seconds = perf_counter() - begun
    sound = sum(check.watertight and check.outward for check in made)
    near = sorted(check.within_half_voxel for check in made)
    change = max(abs(check.volume_change) for check in made)
    over = sum(not check.within_budget for check in made)
    total = sum(check.faces for check in made)
    budget = f"{faces:,}" if faces else "none"
    return (
        f"| {what} | {budget} | {sound} of {len(made)} | {total:,} | {100 * near[0]:.1f} % | {100 * near[len(near) // 2]:.1f} %"
        f" | {100 * change:.2f} % | {over} | {seconds:.1f} |"
    )


def volumes(what: str, mask: np.ndarray, affine: Affine, names: Mapping[int, str]) -> str:
    """How much of the space between touching structures is lost or counted twice: the sum of parts against the whole."""
    whole = {1: "all"}
    union = np.isin(mask, list(names)).astype(np.uint8)
    settings = SurfaceSettings(faces=None)
    ours = sum(one.check.volume_ml for one in surfaces(mask, affine, structures=names, settings=settings))
    ours_whole = surfaces(union, affine, structures=whole, settings=settings)[0].check.volume_ml
    theirs = sum(volume for _, volume in usual(mask, affine, names))
    theirs_whole = usual(union, affine, whole)[0][1]
    closed = [closed for closed, _ in usual(mask, affine, names)]
    mine, other = (100 * (parts / together - 1) for parts, together in ((ours, ours_whole), (theirs, theirs_whole)))
    return f"| {what} | {mine:+.3f} % | {other:+.3f} % | {sum(closed)} of {len(closed)} |"


def segments(kind: Kind) -> str:
    """Write and read 25 segments of 512 x 512 x 100."""
    shape = (512, 512, 100)
    mask = np.zeros(shape, dtype=np.uint8)
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for number in range(25):
        row, column = 55 + 100 * (number // 5), 55 + 100 * (number % 5)
        mask[((i - row) / 46) ** 2 + ((j - column) / 46) ** 2 + ((k - 50) / 48) ** 2 < 1] = number + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = Volume.of(np.zeros(shape, dtype=np.int16), np.diag([-0.8, -0.8, 1.5, 1.0]))
        write_series(folder / "series", image, identity=SeriesIdentity.of("benchmark"))
        (found,) = read_folder(folder / "series").found
        begun = perf_counter()
        names = {number: f"segment {number}" for number in range(1, 26)}
        write_seg(folder / "seg.dcm", mask, found, structures=names, maker=MAKER, kind=kind)
        written = perf_counter()
        same = np.array_equal(read_seg(folder / "seg.dcm", found), mask)
        read = perf_counter()
        megabytes = (folder / "seg.dcm").stat().st_size / 1e6
    return f"| {kind} | {written - begun:.1f} | {read - written:.1f} | {megabytes:.0f} | {'yes' if same else 'NO'} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--from", dest="source", type=Path, required=True)
    given = arguments.parse_args()
    data = given.source
    trunk = read_nifti(data / "example_seg_fast_force_split.nii.gz").volume
    lumbar = read_nifti(data / "tptbox" / "sample_ct" / "sub-ct_seg-vert_label-22_msk.nii.gz").volume
    present = set(np.unique(trunk.array).tolist())
    each = {number: name for number, name in bones(data).items() if number in present}
    every = {int(number): f"label {number:g}" for number in np.unique(lumbar.array) if number}
    masks = [
        (f"trunk at 3 mm, {len(each)} bones", trunk.array[0].astype(np.uint8), trunk.affine, each),
        (f"lumbar spine at 1.5 mm, {len(every)} labels", lumbar.array[0].astype(np.uint16), lumbar.affine, every),
    ]
    print(f"machine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print(
        "| mask | budget | closed, outward | faces | in half a voxel: worst | median | largest volume change | over budget | s |"
    )
    print("|---" * 9 + "|")
    for what, mask, affine, names in masks:
        for faces in (None, 4000, 1000):
            print(row(what, mask, affine, names, faces), flush=True)
    print("\n| mask | parts against the whole | marching cubes, each alone | of them closed |\n|---|---|---|---|")
    for what, mask, affine, names in masks:
        print(volumes(what, mask, affine, names), flush=True)
    print("\n| 25 segments, 512 x 512 x 100 | write s | read s | MB | voxel-identical |\n|---|---|---|---|---|")
    for kind in ("BINARY", "LABELMAP"):
        print(segments(kind), flush=True)


if __name__ == "__main__":
    main()
