"""Time and memory of `bedside quality` on datasets of small cases: is it linear?

    python benchmarks/quality.py --hippocampus FOLDER [--cases 250 500 1000]

The real crops are repeated under new names until there are enough, each time cut, mirrored and scaled otherwise, and a half of
another crop added; cases that have a crop in common are known. `bedside ingest` makes a dataset of them; `bedside quality` runs
in a process of its own, whose time and largest memory are told. Writes benchmarks/results/quality.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from leaks import crop, flip
from scipy.ndimage import zoom

from bedside.formats.nifti import read_nifti, write_nifti

RESULTS = Path(__file__).parent / "results" / "quality.md"
STUDY = {
    "study": "quality-time",
    "contract": {"modality": "MR", "spacing_mm": [0.5, 5.0], "labels": {"background": 0, "anterior": 1, "posterior": 2}},
    "source": {"images": "images", "labels": None, "identity": "keep"},
    "split": {"test": 0.2, "folds": 2, "seed": 0},
    "task": {"name": "segmentation"},
    "network": {"name": "dynunet"},
    "train": {"patch": [16, 16, 16]},
    "promote": {"gates": [{"name": "absolute", "metric": "dice", "floor": 0.5}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}]},
}


def received(folder: Path, crops: list[np.ndarray], count: int) -> dict[str, set[int]]:
    """Write the files of a dataset; returns of which crops each case is made."""
    (folder / "images").mkdir(parents=True)
    made = {}
    for number in range(count):
        chance = np.random.default_rng(number)
        second = int(chance.integers(len(crops)))
        scan, other = crops[number % len(crops)], crops[second]
        made[f"case-{number:04d}"] = {number % len(crops)} | ({second} if number >= len(crops) else set())
        if number >= len(crops):
            scan = scan + zoom(other, np.array(scan.shape) / other.shape, order=1)
            scan = flip(crop(scan, chance), chance)
        write_nifti(folder / "images" / f"case-{number:04d}.nii.gz", scan.astype(np.int16), np.eye(4))
    return made


def measured(root: Path, count: int, made: dict[str, set[int]]) -> str:
    bedside = [str(Path(sys.executable).with_name("bedside"))]
    study = root / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    work = root / f"study-{count}"
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False}
    done = subprocess.run([*bedside, "ingest", study, "--from", root / str(count), "--folder", work, "--json"], **quiet)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    start = time.perf_counter()
    child = subprocess.Popen(
        [*bedside, "quality", study, "--folder", work, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    told, said = child.stdout.read(), child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) not in (0, 5):
        raise SystemExit(said.decode())
    cpu = used.ru_utime + used.ru_stime
    leaks = json.loads(told)["leaks"]
    shared = sum(bool(made[leak["first"]] & made[leak["second"]]) for leak in leaks)
    spent = f"{seconds:.0f} s | {cpu:.0f} s | {1000 * cpu / count:.0f} ms | {used.ru_maxrss / 1024:.0f} MB"
    return f"| {count} | {spent} | {shared} | {len(leaks) - shared} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hippocampus", type=Path, required=True, help="folder with images/*.nii.gz")
    parser.add_argument("--cases", type=int, nargs="+", default=[250, 500, 1000])
    asked = parser.parse_args()
    files = sorted((asked.hippocampus / "images").glob("*.nii.gz"))
    crops = [read_nifti(path).volume.array[0].astype(np.float32) for path in files]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for count in asked.cases:
            made = received(Path(name) / str(count), crops, count)
            rows.append(measured(Path(name), count, made))
            print(rows[-1], flush=True)
    lines = [
        "# Time and memory of `bedside quality`",
        "",
        f"`python benchmarks/quality.py --hippocampus FOLDER --cases {' '.join(map(str, asked.cases))}`; one thread; cases of",
        "some 35 x 50 x 35 voxels; report with thumbnails included. Two cases made of one crop share",
        "a scan; other pairs are mistakes.",
        "",
        "| cases | wall | CPU | CPU per case | largest memory | pairs listed that share a crop | other pairs listed |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
