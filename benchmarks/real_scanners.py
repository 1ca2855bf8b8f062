"""Every series of a collection of real scanners, read by bedside, beside its reference NIfTI and beside dcm2niix.

python benchmarks/real_scanners.py --from ../shared/data/dicom_conversion_dev

A collection is a folder of series folders, `NAME_ground_truth.nii.gz` beside `NAME/` where there is a reference. A series is
equal when, after reorientation, every voxel is and the affines differ by at most 0.001 mm; every other answer needs a reason from
`REASONS`.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np

from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder

SAME_MM = 1e-3

_TWO = "four images of two slices: from two slices nobody can see that none is missing, so bedside refuses them"
_TWO_SLICES = "two slices: dcm2niix and the reference take them for a whole volume"
_MISSING = "a slice is missing: dcm2niix writes the stack as it is and one with an interpolated slice, the reference one of them"
_ONE = "one slice is no volume for bedside"
_COLOUR = "colour: a secondary capture is no scan, and bedside sets it aside"
REASONS = {
    "failing/gantrytilting/001": (
        "",
        "tilt: the row of voxels that a moved plane covers in part is air for bedside, half air and half edge for dcm2niix",
    ),
    "failing/notavolume/001": ("", "four images of one place: dcm2niix writes four files of one slice"),
    "failing/slicecount/001": (_TWO_SLICES, _TWO_SLICES),
    "failing/sliceincrement/001": (
        "",
        "a slice is missing: dcm2niix writes the stack as it is, and one with an interpolated slice",
    ),
    "failing/sliceincrement/002": (
        _MISSING,
        _MISSING,
    ),
    "failing/sliceorientation/001": ("", "two slices of each of two directions: dcm2niix writes two files"),
    "ge/anatomical/001_single_slice": (_ONE, _ONE),
    "generic/rgb/001": (_COLOUR, _COLOUR),
    "philips/dti/001": (_TWO, _TWO),
    "philips/fmri/001": (_TWO, _TWO),
    "philips_enhanced/anatomical/001": ("", "dcm2niix uses Philips' private scale, bedside and the reference the rescale slope"),
}
"""Why an answer is another one, by series: than the reference, than dcm2niix. Each names what differs."""
SAME_SHARE = 2.0**-22
"""Values that differ by less than this share of the largest are one value, rounded once in 32 bits and once in 64."""


@dataclass(frozen=True)
class Comparison:
    """Two answers to one series.

    Attributes:
        volumes: how many each gives, ours first.
        affine_mm: largest difference between affines, over the volumes.
        voxels: largest difference between values; None when the grids are not the same.
        largest: largest value.
    """

    volumes: tuple[int, int]
    affine_mm: float | None = None
    voxels: float | None = None
    largest: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether both say the same."""
        if self.affine_mm is None or self.voxels is None:
            return False
        return self.affine_mm <= SAME_MM and self.voxels <= SAME_SHARE * self.largest

    def __str__(self) -> str:
        if self.volumes[0] != self.volumes[1]:
            return f"{self.volumes[0]} : {self.volumes[1]} volumes"
        if self.voxels is None or self.affine_mm is None:
            return "none" if self.volumes == (0, 0) else "another grid"
        return f"{self.affine_mm:.4f} mm, {self.voxels:g}"


@dataclass(frozen=True)
class Row:
    """One series.

    Attributes:
        name: its folder.
        ours: "1 volume", "2 volumes" or the codes of the refusal.
        notes: what bedside put right.
        reference: beside the NIfTI of the collection; None without one.
        peer: beside dcm2niix.
    """

    name: str
    ours: str
    notes: tuple[str, ...]
    reference: Comparison | None
    peer: Comparison

    @property
    def reasons(self) -> tuple[str, str]:
        """Why the reference, and why dcm2niix, say something else; "" when they do not."""
        said = REASONS.get(self.name, ("", ""))
        return (
            "" if self.reference is None or self.reference.equal else said[0],
            "" if self.peer.equal else said[1],
        )


def series_of(root: Path) -> list[Path]:
    """The folders that hold files of their own."""
    return sorted({path.parent for path in root.rglob("*.dcm")})


def nifti_volumes(paths: list[Path]) -> list[Volume]:
    """The volumes of some NIfTI files, 4-D ones taken apart, along RAS+."""
    volumes = []
    for path in paths:
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        if values.ndim < 3 or values.dtype.names:
            continue
        times = [values[..., number] for number in range(values.shape[3])] if values.ndim == 4 else [values]
        volumes.extend(Volume.of(time, image.affine).canonical() for time in times)
    return volumes


def compared(ours: list[Volume], theirs: list[Volume]) -> Comparison:
    """Volume by volume; theirs are matched with ours whatever their order, since a converter may put echoes in another one."""
    counts = len(ours), len(theirs)
    if counts[0] != counts[1] or not ours:
        return Comparison(counts)
    affine_mm, voxels = 0.0, 0.0
    left = list(theirs)
    for volume in ours:
        alike = [other for other in left if other.shape == volume.shape]
        if not alike:
            return Comparison(counts)
        pairs = [(_voxels(volume, other), float(np.abs(volume.affine - other.affine).max()), other) for other in alike]
        difference, apart, match = min(pairs, key=lambda pair: pair[:2])
        left = [other for other in left if other is not match]
        affine_mm, voxels = max(affine_mm, apart), max(voxels, difference)
    largest = max(float(np.abs(volume.array).max()) for volume in ours)
    return Comparison(counts, affine_mm, voxels, largest)


def _voxels(first: Volume, second: Volume) -> float:
    return float(np.abs(first.array.astype(np.float64) - second.array.astype(np.float64)).max())


def by_dcm2niix(folder: Path, scratch: Path) -> list[Volume]:
    """What dcm2niix makes of a folder; of a tilted series the corrected volume, not the leaning one that it writes too."""
    scratch.mkdir(parents=True)
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%s_%t_%p", "-o", str(scratch), str(folder)],
        check=False,
        capture_output=True,
        timeout=120,
    )
    paths = sorted(scratch.glob("*.nii"))
    leaning = {path.stem.partition("_Tilt")[0] for path in paths if "_Tilt" in path.stem}
    return nifti_volumes([path for path in paths if path.stem not in leaning])


def row(root: Path, folder: Path, scratch: Path) -> Row:
    """One series by all of them."""
    reading = read_folder(folder)
    ours = [found.volume.canonical() for found in reading.found]
    codes = sorted({refused.code for refused in reading.refused})
    said = " ".join([*([f"{len(ours)} volume{'s' if len(ours) > 1 else ''}"] if ours else []), *codes])
    truth = folder.with_name(f"{folder.name}_ground_truth.nii.gz")
    name = str(folder.relative_to(root))
    return Row(
        name,
        said,
        tuple(sorted({note for found in reading.found for note in found.notes})),
        compared(ours, nifti_volumes([truth])) if truth.exists() else None,
        compared(ours, by_dcm2niix(folder, scratch / name.replace("/", "-"))),
    )


def table(root: Path) -> list[Row]:
    """Every series of a collection."""
    with tempfile.TemporaryDirectory() as scratch:
        return [row(root, folder, Path(scratch)) for folder in series_of(root)]


def main() -> int:
    """Print the table; 1 when a difference has no reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder of the collection")
    rows = table(parser.parse_args().source)
    print("| series | bedside | reference: mm, voxels | dcm2niix: mm, voxels | reason |")
    print("|---|---|---|---|---|")
    unexplained = 0
    for one in rows:
        reasons = one.reasons
        wrong = [
            comparison is not None and not comparison.equal and not reason
            for comparison, reason in zip((one.reference, one.peer), reasons, strict=True)
        ]
        unexplained += any(wrong)
        why = "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or ("UNEXPLAINED" if any(wrong) else "")
        ours = " ".join([one.ours, *one.notes])
        print(f"| {one.name} | {ours} | {one.reference or ''} | {one.peer} | {why} |")
    print(f"\n{len(rows)} series, {unexplained} differences without a reason", file=sys.stderr)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
