"""How fast ingest is, beside dcm2niix on the same files, how much memory it takes, and what ingesting again costs.

python benchmarks/ingest_speed.py --from ../shared/data/dicom_conversion_dev --from ../shared/data/ct_bone_totalseg

Ours is the whole of `bs.ingest` with two processes: every file hashed, checked, converted to a stored array that is hashed again
and flushed to the disk, and all of it written to the ledger; once with workers that are started for it, once with waiting ones.
dcm2niix is one process that writes NIfTI (`-z n`). The three take turns. Series that either does not take are left out, and each
gets a patient of its own, because a dataset is split by patients; of a single series there are two that differ by 1 HU.
"""

import argparse
import os
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

import bedside as bs
from bedside.adapters.processes import LocalProcesses
from bedside.core.config import Config, Site, Study
from bedside.core.ports import Executor
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.formats.dicom import look, read_folder
from bedside.formats.dicom_write import SeriesIdentity, uid_of, write_series

PROCESSES = 2


@dataclass(frozen=True)
class Received:
    """Series folders of one modality below `images/`."""

    name: str
    folder: Path
    modality: str
    series: int


def config(folder: Path, modality: str) -> Config:
    """A study that takes every volume of a modality."""
    study = {
        "study": "speed",
        "contract": {
            "modality": modality,
            "spacing_mm": [0.01, 100.0],
            "labels": {"background": 0, "bone": 1},
            "min_extent_voxels": 1,
            "hu_check": False,
        },
        "source": {"images": "images", "labels": None, "identity": "keep"},
        "split": {"test": 0.0, "folds": 2},
        "task": {"name": "segmentation"},
        "network": {"name": "dynunet"},
        "train": {"patch": [8, 8, 8]},
        "promote": {"gates": [{"name": "absolute", "metric": "dice", "floor": 0.5}]},
        "accelerate": {"stages": [{"name": "onnxruntime"}]},
    }
    site = Site(executor="processes", processes=PROCESSES, versioning="off", tracking="off")
    return Config(Study.model_validate(study), site, Workspace(folder))


def generated(root: Path, series: int, slices: int) -> Received:
    """CT series of 512 x 512 pixels."""
    base = np.random.default_rng(0).integers(-1000, 1000, (512, 512), dtype=np.int16)
    for number in range(series):
        array = np.stack([np.roll(base, 7 * k + number, axis=0) for k in range(slices)], axis=-1)
        affine = np.diag([-0.7, -0.7, 1.0, 1.0])
        write_series(root / "images" / f"s{number}", Volume.of(array, affine), identity=SeriesIdentity.of(f"P{number}"))
    return Received(f"generated, {series} x 512 x 512 x {slices}", root, "CT", series)


def real(source: Path, root: Path) -> list[Received]:
    """Copies of the sound series of a folder, by modality, each with a patient of its own."""
    made = []
    found = read_folder(source).found
    for modality in sorted({one.modality for one in found}):
        folder, count = root / modality, 0
        chosen = [one.files for one in found if one.modality == modality]
        for paths in chosen if len(chosen) > 1 else chosen * 2:
            copied(paths, folder / "images" / f"s{count}", count)
            if by_dcm2niix(folder / "images" / f"s{count}") is None:
                shutil.rmtree(folder / "images" / f"s{count}")
            else:
                count += 1
        if count > 1:
            made.append(Received(f"{source.name}, {modality}", folder, modality, count))
    return made


def copied(paths: Sequence[Path], place: Path, number: int) -> None:
    """Copy a series for patient `number`; the values grow with the number, so that no two are the same."""
    place.mkdir(parents=True)
    for index, path in enumerate(sorted(set(paths))):
        data = pydicom.dcmread(path)
        data.PatientID, data.SeriesInstanceUID = f"P{number}", uid_of(str(place), data.get("SeriesInstanceUID") or "")
        if "RescaleIntercept" in data:
            data.RescaleIntercept = float(data.RescaleIntercept) + number
        data.save_as(place / f"{index:05d}.dcm")


def by_dcm2niix(folder: Path) -> float | None:
    """Seconds for a folder; None when it wrote nothing."""
    with TemporaryDirectory() as out:
        started = perf_counter()
        command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%s_%j", "-o", out, str(folder)]
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


def headers(folder: Path) -> float:
    """Files per second of the header pass, in this one process; the best of three."""
    paths = sorted(path for path in folder.rglob("*.dcm"))
    best = min(timed(lambda: [look(path) for path in paths]) for _ in range(3))
    return len(paths) / best


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def memory(received: Received) -> tuple[float, float]:
    """Largest memory of an ingest's processes together, and of the same processes before the first file, in MB.

    Proportional set size: a page that several processes share is counted once.
    """
    with TemporaryDirectory() as name:
        child = subprocess.Popen([sys.executable, __file__, "--child", str(received.folder), name], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        idle, peak = held_mb(child.pid), 0.0
        while child.poll() is None:
            peak = max(peak, held_mb(child.pid))
            sleep(0.02)
        assert child.returncode == 0
    return peak, idle


def held_mb(pid: int) -> float:
    """Proportional set size of a process and all below it."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            waiting += [
                int(child) for task in Path(f"/proc/{one}/task").iterdir() for child in (task / "children").read_text().split()
            ]
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024 / 1e6


def child(source: str, folder: str) -> None:
    """One ingest, for `memory`."""
    study = config(Path(folder) / "study", "CT")
    from bedside.ingest import pipeline  # noqa: F401 - what is imported anyway is no memory of the ingest

    print("ready", flush=True)
    sleep(0.5)
    bs.ingest(study, Path(source))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--from", dest="sources", type=Path, action="append", default=[])
    arguments.add_argument("--series", type=int, default=3)
    arguments.add_argument("--slices", type=int, default=100)
    arguments.add_argument("--large", type=int, default=400, help="Slices of the volume whose memory is measured.")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        return child(*given.child)
    with TemporaryDirectory() as name:
        root = Path(name)
        folders = [generated(root / "generated", given.series, given.slices)]
        for number, source in enumerate(given.sources):
            folders += real(source, root / f"real{number}")
        cores = len(os.sched_getaffinity(0))
        print(f"`python {shlex.join(sys.argv)}`: {cores} cores, {PROCESSES} processes of ours, one of dcm2niix\n")
        print(f"header pass: {headers(folders[0].folder):.0f} files/s on one core (files of 512 x 512 pixels)\n")
        print(
            "| files | series | ours, s | workers waiting, s | dcm2niix, s | workers waiting : dcm2niix, series/s | ours again |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for received in folders:
            compare(received, given.repeats)
        large = generated(root / "large", 2, given.large)
        peak, idle = memory(large)
        volume = 512 * 512 * given.large * 2 / 1e6
        print(f"\nmemory: largest volume {volume:.0f} MB; the command holds {idle:.0f} MB before the first file, and it and its")
        print(f"workers {peak:.0f} MB at most while two such volumes are ingested: {peak / volume:.2f} times the largest volume")
    return None


def compare(received: Received, repeats: int) -> None:
    """One row: medians of alternating turns."""
    cold, warm, again, theirs, cases = [], [], [], [], 0
    with LocalProcesses(PROCESSES, memory_gb=4.0, seconds=300.0) as waiting:
        by_ingest(received, waiting)
        for _ in range(repeats):
            first, second, cases = by_ingest(received)
            cold.append(first)
            again.append(second / first)
            warm.append(by_ingest(received, waiting)[0])
            theirs.append(by_dcm2niix(received.folder) or float("nan"))
    ratio = statistics.median(b / a for a, b in zip(warm, theirs, strict=True))
    took = " | ".join(f"{statistics.median(seconds):.2f}" for seconds in (cold, warm, theirs))
    share = f"{100 * statistics.median(again):.1f} % of the first time"
    print(f"| {received.name} | {cases} of {received.series} | {took} | {ratio:.2f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
