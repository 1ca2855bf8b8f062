"""How much memory ingest takes: the parent and all its workers, as proportional set size, against the largest volume.

python benchmarks/ingest_memory.py --many 1000 > benchmarks/results/ingest_memory.md

Each row is one `bs.ingest` in a process of its own, looked at every 20 ms. "more" is the peak of all processes less what they
held before the first file (interpreter and libraries), and the last column is that in volumes of the largest in the folder. The
rows with many files hold 100 files of 8 x 8 pixels per series and, where it says so, large series in the same folder.
"""

import argparse
import gzip
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import numpy as np
from ingest_speed import generated
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, planes_of, write_planes, write_series
from bedside.formats.dicom_write_frames import write_frames
from bedside.formats.nifti import write_nifti

SIZE = 512
FRAMED = {"enhanced": ExplicitVRLittleEndian, "deflated": DeflatedExplicitVRLittleEndian, "rle": RLELossless}


@dataclass(frozen=True)
class Held:
    """In MB: all processes at most, the parent at most, all before the first file; and seconds."""

    peak: float
    parent: float
    idle: float
    seconds: float


def held(folder: Path, workers: int) -> Held:
    """Watch an ingest."""
    with TemporaryDirectory(dir=folder.parent) as name:
        child = Path(__file__).with_name("ingest_child.py")
        command = [sys.executable, str(child), str(folder), name, "CT", "0.5", str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        sleep(0.2)
        idle, peak, parent = sum(held_mb(process.pid)), 0.0, 0.0
        while process.poll() is None:
            own, others = held_mb(process.pid)
            peak, parent = max(peak, own + others), max(parent, own)
            sleep(0.02)
        assert process.returncode == 0
        return Held(peak, parent, idle, float(process.stdout.readline().split()[0]))


def held_mb(pid: int) -> tuple[float, float]:
    """Proportional set size of a process, and of all below it: a page that several share is counted once."""
    sizes, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            waiting += [
                int(child) for task in Path(f"/proc/{one}/task").iterdir() for child in (task / "children").read_text().split()
            ]
        except OSError:
            continue
        sizes.append(sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024 / 1e6)
    return sum(sizes[:1]), sum(sizes[1:])


def noise(number: int, slices: int) -> np.ndarray:
    """A CT that does not pack well, (I, J, K); no two numbers give the same."""
    base = np.random.default_rng(number).integers(-1000, 1000, (SIZE, SIZE), dtype=np.int16)
    return np.asfortranarray(np.stack([np.roll(base, 7 * k, axis=0) for k in range(slices)], axis=-1))


def series(root: Path, count: int, slices: int) -> None:
    """DICOM series of patients of their own."""
    for number in range(count):
        identity = SeriesIdentity.of(f"Q{number}")
        write_series(
            root / "images" / f"q{number}", Volume.of(noise(number, slices), np.diag([-0.7, -0.7, 1, 1])), identity=identity
        )


def framed(root: Path, count: int, slices: int, syntax: str) -> None:
    """The same as enhanced multi-frame files."""
    for number in range(count):
        planes = planes_of(Volume.of(noise(number, slices), np.diag([-0.7, -0.7, 1, 1])))
        plain = ExplicitVRLittleEndian if syntax == RLELossless else syntax
        (path,) = write_frames(root / "images" / f"q{number}", planes, identity=SeriesIdentity.of(f"Q{number}"), syntax=plain)
        if syntax == RLELossless:
            data = dcmread(path)
            data.PixelData = encapsulate([literal(plane) for plane in data.pixel_array])
            data["PixelData"].is_undefined_length, data.file_meta.TransferSyntaxUID = True, syntax
            data.save_as(path)


def literal(plane: np.ndarray) -> bytes:
    """A frame of 16-bit numbers in RLE (PS3.5 G) without any repetition, as noise has none: two segments of runs of 128 bytes."""
    high_first = np.ascontiguousarray(plane.astype("<i2")).view(np.uint8).reshape(-1, 2)[:, ::-1].T
    segments = [np.insert(segment.reshape(-1, 128), 0, 127, axis=1).tobytes() for segment in high_first]
    return np.array([2, 64, 64 + len(segments[0]), *[0] * 13], "<u4").tobytes() + b"".join(segments)


def tilted(root: Path, count: int, slices: int, degrees: float = 10.0) -> None:
    """The same series from a tilted gantry, which is sheared onto a grid of more rows."""
    angle = np.radians(degrees)
    affine = np.diag([-0.7, -0.7, 1.0, 1.0])
    affine[:3, 1] = 0.7 * np.array([0.0, -np.cos(angle), np.sin(angle)])
    for number in range(count):
        planes = planes_of(Volume.of(noise(number, slices), affine))
        identity = SeriesIdentity.of(f"Q{number}")
        write_planes(root / "images" / f"q{number}", planes, identity=identity, tilt_degrees=degrees)


def packed(root: Path, count: int, slices: int, *, masks: bool = False) -> None:
    """The same as .nii.gz, with masks of one byte where they are asked for."""
    for number in range(count):
        array = noise(number, slices)
        _packed(root / "images" / f"n{number}.nii.gz", array)
        if masks:
            _packed(root / "labels" / f"n{number}.nii.gz", (array > 700).astype(np.uint8))


def _packed(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_suffix("")
    write_nifti(plain, array, np.diag([0.7, 0.7, 1, 1]))
    with plain.open("rb") as source, gzip.open(path, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    plain.unlink()


def row(name: str, make: Callable[[Path], object], slices: int, workers: tuple[int, ...]) -> None:
    """One folder, ingested with several numbers of workers."""
    volume_mb = SIZE * SIZE * slices * 2 / 1e6 if slices else 0.0
    with TemporaryDirectory() as place:
        root = Path(place) / "received"
        make(root)
        files = sum(path.is_file() for path in root.rglob("*"))
        for count in workers:
            found = held(root, count)
            more = found.peak - found.idle
            volumes = f"{volume_mb:.0f} | {more / volume_mb:.2f}" if slices else "0 | -"
            print(
                f"| {name} | {files} | {count} | {found.idle:.0f} | {found.parent:.0f} | {found.peak:.0f} | {more:.0f} |"
                f" {volumes} | {found.seconds:.0f} |",
                flush=True,
            )


def both(root: Path, many: int, slices: int) -> None:
    """Tiny files, and two large series among them."""
    generated(root, many, 100, size=8)
    series(root, 2, slices)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--many", type=int, default=0, help="Series of 100 slices of 8 x 8 pixels: 1000 give 100,000 files.")
    arguments.add_argument(
        "--rows", default="large,eight,enhanced,deflated,rle,tilted,packed,masks,many", help="Which rows, with commas between."
    )
    given = arguments.parse_args()
    wanted = set(given.rows.split(","))
    print("# Memory of ingest\n\n" + str(__doc__).partition("\n\n")[0] + "\n")
    print(f"`python {shlex.join(sys.argv)}`, {len(os.sched_getaffinity(0))} cores\n")
    print("| folder | files | workers | MB idle | parent MB at most | all MB at most | more MB | volume MB | volumes | s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    if "large" in wanted:
        row("2 series, 512 x 512 x 400", lambda root: series(root, 2, 400), 400, (2,))
    if "eight" in wanted:
        row("8 series, 512 x 512 x 200", lambda root: series(root, 8, 200), 200, (2, 4))
    for kind, syntax in FRAMED.items():
        if kind in wanted:
            row(f"2 multi-frame files, {kind}, 512 x 512 x 200", partial(framed, count=2, slices=200, syntax=syntax), 200, (2,))
    if "tilted" in wanted:
        row("2 series, tilted by 10 degrees, 512 x 512 x 200", partial(tilted, count=2, slices=200), 200, (2,))
    if "packed" in wanted:
        row("4 .nii.gz, 512 x 512 x 400", lambda root: packed(root, 4, 400), 400, (2, 4))
    if "masks" in wanted:
        row("3 .nii.gz with masks, 512 x 512 x 200", lambda root: packed(root, 3, 200, masks=True), 200, (2,))
    if "many" in wanted and given.many:
        row(f"{given.many} series, 8 x 8 x 100", lambda root: generated(root, given.many, 100, size=8), 0, (2,))
        row("the same and 2 series, 512 x 512 x 200", lambda root: both(root, given.many, 200), 200, (2, 4))


if __name__ == "__main__":
    main()
