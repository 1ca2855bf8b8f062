"""How fast ingest is, beside dcm2niix on the same files, and what ingesting again costs.

python benchmarks/ingest_speed.py --from ../shared/data/dicom_conversion_dev --times 20 --times 100 --series 3 --series 10

Ours is the whole of `bs.ingest` with two processes, three times: with a new interpreter (from its start to its end), with new
workers, and with waiting workers. dcm2niix is one process that writes NIfTI (`-z n`). They take turns, in an order that changes.
Ours does more: it hashes every file and every array, checks each volume against the contract, writes the ledger, and waits for
the disk (fsync). Series that either does not take are left out, and each gets a patient of its own, because a dataset is split by
patients; where a series is there several times, its values or its place differ. It begins when every file is a minute old, as
received files are: younger ones are hashed once more when their pixels are read.
"""

import argparse
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import dcm2niix
import numpy as np
import pydicom
from ingest_child import PROCESSES, config

import bedside as bs
from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import Executor
from bedside.core.volume import Volume
from bedside.formats.dicom import look, read_folder
from bedside.formats.dicom_write import SeriesIdentity, uid_of, write_series

_SETTLED_SECONDS = 61


@dataclass(frozen=True)
class Received:
    """Series folders of one modality below `images/`."""

    name: str
    folder: Path
    modality: str
    series: int

    @property
    def files(self) -> int:
        return sum(path.is_file() for path in self.folder.rglob("*"))


def generated(root: Path, series: int, slices: int, size: int = 512) -> Received:
    """CT series; those after the first are its files with other UIDs, another patient and one other voxel per slice."""
    base = np.random.default_rng(0).integers(-1000, 1000, (size, size), dtype=np.int16)
    array = np.stack([np.roll(base, 7 * k, axis=0) for k in range(slices)], axis=-1)
    volume = Volume.of(array, np.diag([-0.7, -0.7, 1.0, 1.0]))
    paths = write_series(root / "images" / "s00000", volume, identity=SeriesIdentity.of("P00000"))
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    pixels = 2 * size * size
    for number in range(1, series):
        folder = root / "images" / f"s{number:05d}"
        folder.mkdir()
        for path, header in zip(paths, headers, strict=True):
            data = path.read_bytes()
            head, first = data[:-pixels].replace(b"P00000", f"P{number:05d}".encode()), number.to_bytes(2, "little")
            for uid in (header.SeriesInstanceUID, header.SOPInstanceUID):
                head = head.replace(uid.encode(), f"{uid[:-6]}{number + 100000}".encode())
            (folder / path.name).write_bytes(head + first + data[2 - pixels :])
    return Received(f"generated, {series} x {size} x {size} x {slices}", root, "CT", series)


def real(source: Path, root: Path, times: int) -> list[Received]:
    """Copies of the sound series of a folder, by modality, each with a patient of its own."""
    made = []
    found = read_folder(source).found
    for modality in sorted({one.modality for one in found}):
        folder, count = root / modality, 0
        chosen = [one.files for one in found if one.modality == modality]
        for paths in chosen * max(times, 1 if len(chosen) > 1 else 2):
            place = folder / "images" / f"s{count:05d}"
            copied(paths, place, count)
            if by_dcm2niix(place) is None:
                shutil.rmtree(place)
            else:
                count += 1
        if count > 1:
            name = f"{source.name}, {modality}" if times == 1 else f"{source.name}, {modality}, {times} times over"
            made.append(Received(name, folder, modality, count))
    return made


def copied(paths: Sequence[Path], place: Path, number: int) -> None:
    """Copy a series for patient `number`; its values and its place move with the number, so that no two are the same."""
    place.mkdir(parents=True)
    for index, path in enumerate(sorted(set(paths))):
        data = pydicom.dcmread(path)
        data.PatientID, data.SeriesInstanceUID = f"P{number}", uid_of(str(place), data.get("SeriesInstanceUID") or "")
        if "RescaleIntercept" in data:
            data.RescaleIntercept = float(data.RescaleIntercept) + number
        for frame in (data, *(group.PlanePositionSequence[0] for group in data.get("PerFrameFunctionalGroupsSequence", ()))):
            if "ImagePositionPatient" in frame:
                x, y, z = frame.ImagePositionPatient
                frame.ImagePositionPatient = [x, y, f"{z + number:.4f}"]
        data.save_as(place / f"{index:05d}.dcm")


def by_dcm2niix(folder: Path) -> float | None:
    """Seconds for a folder; None when it wrote nothing."""
    with TemporaryDirectory() as out:
        started = perf_counter()
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-d", "9", "-f", "%s_%j", "-o", out, str(folder)]
        subprocess.run(command, capture_output=True, check=False)
        seconds = perf_counter() - started
        return seconds if list(Path(out).glob("*.nii")) else None


def by_ingest(received: Received, executor: Executor | None = None) -> tuple[float, float, int]:
    """Seconds of the first and of the second ingest, and cases."""
    with TemporaryDirectory() as name:
        study = config(Path(name) / "study", received.modality)
        started = perf_counter()
        dataset = bs.ingest(study, received.folder, executor=executor)
        first = perf_counter() - started
        started = perf_counter()
        again = bs.ingest(study, received.folder, executor=executor)
        second = perf_counter() - started
        assert again.digest == dataset.digest
        return first, second, len(dataset.manifest.cases)


def by_new_process(received: Received) -> float:
    """Seconds of an interpreter that ingests, its start included."""
    with TemporaryDirectory() as name:
        started = perf_counter()
        subprocess.run([*_child(received, name), "0"], check=True, capture_output=True)
        return perf_counter() - started


def _child(received: Received, folder: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("ingest_child.py")), str(received.folder), folder, received.modality]


def headers(folder: Path) -> float:
    """Files per second of the header pass, in this one process; the best of three."""
    paths = sorted(path for path in folder.rglob("*.dcm"))
    best = min(timed(lambda: [look(path) for path in paths]) for _ in range(3))
    return len(paths) / best


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def compare(received: Received, repeats: int) -> None:
    """One row: medians, the ratios those of each turn; who begins a turn changes."""
    seconds: dict[str, list[float]] = {"process": [], "workers": [], "waiting": [], "theirs": [], "again": []}
    cpu: dict[str, list[float]] = {"process": [], "theirs": []}
    cases = 0
    with LocalProcesses(PROCESSES, memory_gb=4.0, seconds=300.0) as waiting:
        by_ingest(received, waiting)
        for turn in range(repeats):
            for who in ("process", "workers", "waiting", "theirs")[:: 1 if turn % 2 else -1]:
                before = cpu_of_children()
                if who == "theirs":
                    seconds[who].append(by_dcm2niix(received.folder) or float("nan"))
                elif who == "process":
                    seconds[who].append(by_new_process(received))
                else:
                    first, second, cases = by_ingest(received, waiting if who == "waiting" else None)
                    seconds[who].append(first)
                    seconds["again"] += [second / first] if who == "workers" else []
                if who in cpu:
                    cpu[who].append(cpu_of_children() - before)
    ours = ("process", "workers", "waiting")
    took = " | ".join(f"{statistics.median(seconds[who]):.2f}" for who in (*ours, "theirs"))
    ratios = " | ".join(
        f"{statistics.median(b / a for a, b in zip(seconds[w], seconds['theirs'], strict=True)):.2f}" for w in ours
    )
    spent = " | ".join(f"{statistics.median(cpu[who]):.2f}" for who in ("process", "theirs"))
    again = f"{100 * statistics.median(seconds['again']):.1f} %"
    print(
        f"| {received.name} | {received.files} | {cases} of {received.series} | {took} | {ratios} | {spent} | {again} |",
        flush=True,
    )


def cpu_of_children() -> float:
    """Processor seconds of all processes that were started here and have ended, and of those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def speed(folders: Sequence[Received], repeats: int) -> None:
    print(f"header pass: {headers(folders[0].folder):.0f} files/s on one core (files of 512 x 512 pixels)\n")
    print("Seconds, then series per second against dcm2niix (above 1: ours is faster):\n")
    print("| from | files | series | new process | new workers | waiting workers | dcm2niix |", end="")
    print(" ratio, new process | new workers | waiting workers | CPU s, new process | dcm2niix | again, of the first time |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for received in folders:
        compare(received, repeats)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--from", dest="sources", type=Path, action="append", default=[])
    times = "The real series, each so many times, as one more folder; may be given several times."
    arguments.add_argument("--times", type=int, action="append", help=times)
    arguments.add_argument("--series", type=int, action="append", help="Generated series of a folder; may be repeated.")
    arguments.add_argument("--slices", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    with TemporaryDirectory() as name:
        root = Path(name)
        cores = len(os.sched_getaffinity(0))
        print(f"`python {shlex.join(sys.argv)}`: {cores} cores, {PROCESSES} processes of ours, one of dcm2niix, load")
        print(f"{os.getloadavg()[0]:.1f} at the beginning; medians of {given.repeats} turns\n")
        folders = [generated(root / f"generated{count}", count, given.slices) for count in given.series or [3]]
        for number, source in enumerate(given.sources):
            for times in [1, *(given.times or [20])]:
                folders += real(source, root / f"real{number}x{times}", times)
        sleep(_SETTLED_SECONDS)
        speed(folders, given.repeats)


if __name__ == "__main__":
    main()
