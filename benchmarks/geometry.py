"""The geometry proof's table for other readers beside ours: where does each put voxels that know their own place?

python benchmarks/geometry.py > benchmarks/results/geometry.md

Every reader gets the same files and its own default settings. Readers that raise refuse, with the name of what they raised; a
reader that writes several versions of one series (dcm2niix: `_Tilt`, `_Eq`) is judged by the corrected one. What it warned of
counts when it is about this series' geometry, not about names and plug-ins.
"""

import argparse
import json
import logging
import multiprocessing
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bedside import __version__
from bedside.core.errors import InputRejected
from bedside.core.volume import Volume
from bedside.ingest.prove import EXACT_MM, OURS, UNREFUSED, Readout, Row, prove
from bedside.ingest.prove_cases import proof_cases

NOT_GEOMETRY = (
    "nvImageCodec",
    "NvImgCodec",
    "Empty protocol name",
    "Patient Position (0018,5100) not specified",
    "Unable to determine manufacturer",
    "if conversion fails decompress",
)
Grids = list[tuple[np.ndarray, np.ndarray]]
"""Arrays (I, J, K) or (I, J, K, T) with their affines to RAS+ mm."""


def by_monai(folder: Path) -> Grids:
    """MONAI's reader as LoadImage uses it."""
    from monai.transforms import LoadImage

    image = LoadImage(reader="PydicomReader", image_only=True)(folder)
    return [(image.numpy(), np.asarray(image.affine, dtype=np.float64))]


def by_dicom2nifti(folder: Path) -> Grids:
    import dicom2nifti

    with TemporaryDirectory() as out:
        dicom2nifti.dicom_series_to_nifti(str(folder), str(Path(out) / "series.nii"))
        return niftis(Path(out))


def by_dcm2niix(folder: Path) -> Grids:
    import dcm2niix

    with TemporaryDirectory() as out:
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "series", "-o", out, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if line.startswith(("Warning", "Error")):
                warnings.warn(line.partition(":")[2].strip() or line, stacklevel=2)
        found = niftis(Path(out))
        if not found:
            raise NothingWritten
        return found


class NothingWritten(Exception):
    """A converter ended without a volume."""


def niftis(folder: Path) -> Grids:
    """Every NIfTI file of a folder; corrected ones instead of those they correct."""
    import nibabel

    paths = sorted(folder.glob("*.nii"))
    corrected = [path for path in paths if "_Tilt" in path.name or "_Eq" in path.name]
    images = [nibabel.load(path) for path in corrected or paths]
    return [(np.asanyarray(image.dataobj), image.affine) for image in images]


def warned(read: Callable[[Path], Grids], folder: Path) -> tuple[Grids, list[str]]:
    """Read in a process of its own, and keep what was warned of or logged."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grids = read(folder)
    logging.getLogger().removeHandler(handler)
    said += [str(one.message) for one in caught if not issubclass(one.category, (DeprecationWarning, FutureWarning))]
    return grids, [text for text in said if not any(words in text for words in NOT_GEOMETRY)]


class Other:
    """Another library's reader behind the proof's `Reader`: it may raise, or even die."""

    def __init__(self, read: Callable[[Path], Grids]) -> None:
        self.read = read
        self.pool = self.fresh()

    @staticmethod
    def fresh() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __call__(self, folder: Path) -> Readout:
        future = self.pool.submit(warned, self.read, folder)
        problem = future.exception()
        if problem is not None:
            if type(problem).__name__ == "BrokenProcessPool":
                self.pool = self.fresh()
            return Readout(refused=(type(problem).__name__,))
        grids, said = future.result()
        volumes: list[Volume] = []
        for array, affine in grids:
            parts = list(np.moveaxis(array, -1, 0)) if array.ndim == 4 else [array[..., None] if array.ndim == 2 else array]
            try:
                volumes += [Volume.of(part, affine) for part in parts]
            except InputRejected as refused:
                return Readout(refused=(f"its affine: {refused.code}",))
        return Readout(tuple(volumes), remarks=tuple(said))


def harmless(row: Row) -> bool:
    """Read where a refusal is asked for, and still every voxel in its place (a slice that came twice was dropped)."""
    return row.error_mm is not None and row.error_mm < EXACT_MM and row.verdict == UNREFUSED


def cell(row: Row) -> str:
    """One reader's answer to one case."""
    warned = "warned" if row.remarks else "no warning"
    if row.error_mm is None:
        return row.verdict if row.verdict.startswith("refused") else f"{row.verdict}, {warned}"
    if row.passed or harmless(row):
        return f"{row.error_mm:.3f}"
    complaint = row.verdict.removeprefix(UNREFUSED).removeprefix("; ").replace("misplaced", "")
    return ", ".join(part for part in (f"**{row.error_mm:.3f}**", complaint, warned) if part)


def many(rows: list[Row]) -> str:
    """One reader's answers to many cases of a kind."""
    right = [row for row in rows if row.passed]
    wrong = sorted({cell(row) for row in rows if not row.passed})
    good = f"{max(row.error_mm or 0.0 for row in right):.3f} in {len(right)} of {len(rows)}" if right else ""
    return "; ".join(filter(None, (good, *wrong[:2])))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", type=Path, help="Write every row here too.")
    given = arguments.parse_args()
    names = {
        f"bedside {__version__}": OURS["bedside"],
        f"MONAI {version('monai')} PydicomReader": Other(by_monai),
        f"dicom2nifti {version('dicom2nifti')}": Other(by_dicom2nifti),
        f"dcm2niix {version('dcm2niix')}": Other(by_dcm2niix),
    }
    proof = prove(proof_cases(), readers=names, progress=Dots())
    if given.json:
        given.json.write_text(json.dumps(proof.model_dump(mode="json"), indent=1))
    print("# Geometry: largest distance in mm between where a voxel was put and where it was read\n")
    print(
        f"`python {shlex.join(sys.argv)}`, {proof.seconds:.0f} s. A phantom whose voxel values tell their place; bold is wrong."
    )
    print(
        "Refusing is right where the second column names a refusal, and nowhere else. Where half a voxel is asked for, places are"
    )
    print("read from ramps, one voxel inside the phantom's edge.\n")
    print("| case | right is | " + " | ".join(names) + " |")
    print("|---" * (2 + len(names)) + "|")
    for group, members in groupby(proof.rows, key=lambda row: row.group):
        rows = list(members)
        cases = list(dict.fromkeys(row.case for row in rows))
        if group == "orientation":
            answers = [many([row for row in rows if row.reader == name]) for name in names]
            print(f"| {group}, all {len(cases)} | {rows[0].expected} | " + " | ".join(answers) + " |")
            continue
        for case in cases:
            found = {row.reader: row for row in rows if row.case == case}
            answers = [cell(found[name]) for name in names]
            print(f"| {group}: {case} | {next(iter(found.values())).expected} | " + " | ".join(answers) + " |")
    print("\nRight, where a refusal is asked for: any refusal, or no harm done.\n")
    print("| reader | right | wrong with a warning | wrong without | sound, but refused |")
    print("|---|---|---|---|---|")
    for name in names:
        rows = [row for row in proof.rows if row.reader == name]
        right = [
            row for row in rows if row.passed or harmless(row) or (row.error_mm is None and row.expected.startswith("SERIES"))
        ]
        wrong = [row for row in rows if row not in right and row.error_mm is not None]
        loud = sum(bool(row.remarks) for row in wrong)
        refused = len(rows) - len(right) - len(wrong)
        print(f"| {name} | {len(right)} of {len(rows)} | {loud} | {len(wrong) - loud} | {refused} |")


class Dots:
    """Progress on stderr."""

    def start(self, what: str, total: float | None) -> None:
        print(f"# {what}: {total:g}" if total else f"# {what}", file=sys.stderr, flush=True)

    def advance(self, done: float, note: str = "") -> None:
        print(f"#   {done:g} {note}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
