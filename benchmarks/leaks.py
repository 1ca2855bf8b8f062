"""What the leak detector finds of planted leaks, and what it takes for one among unrelated cases.

    python benchmarks/leaks.py [--hippocampus FOLDER] [--cases 60] [--copies 12]

Copies are changed as scans are changed on their way: a crop to 70 % per axis, a flip, another voxel grid of 0.6 to 1.6 per axis,
gamma 0.6 to 1.6 with gain and offset, Gaussian noise of 5 to 10 % of the range, and every two of them. They are hidden among all
originals; what is told is how many are found, by fingerprints or by the voxels' own marks, and how many other pairs are taken for
one scan. Prints one table and writes it to benchmarks/results/leaks.md.
"""

import argparse
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from bedside.core.volume import Volume
from bedside.data.alike import search
from bedside.data.fingerprint import fingerprint
from bedside.data.phantom import cohort
from bedside.data.rank_marks import rank_marks, shared_marks
from bedside.formats.nifti import read_nifti
from bedside.ingest.leaks import SAME_SCAN, STANDS_OUT

RESULTS = Path(__file__).parent / "results" / "leaks.md"
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def crop(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    parts = []
    for length in scan.shape:
        keep = round(0.7 * length)
        low = int(chance.integers(0, length - keep + 1))
        parts.append(slice(low, low + keep))
    return scan[tuple(parts)]


def flip(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return np.flip(scan, int(chance.integers(3)))


def resample(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return zoom(scan, chance.uniform(0.6, 1.6, 3), order=1)


def intensity(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    low, high = scan.min(), scan.max()
    return ((scan - low) / (high - low)) ** chance.uniform(0.6, 1.6) * chance.uniform(500, 3000) + chance.uniform(-500, 500)


def noise(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return scan + chance.normal(0, chance.uniform(0.05, 0.1) * np.ptp(np.percentile(scan, [1, 99])), scan.shape)


CHANGES: dict[str, Change] = {
    "crop to 70 %": crop,
    "flip": flip,
    "resample 0.6-1.6": resample,
    "gain, offset, gamma 0.6-1.6": intensity,
    "noise 5-10 %": noise,
}


def marks(scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    volume = Volume.of(np.ascontiguousarray(scan, dtype=np.float32), np.eye(4))
    return fingerprint(volume), rank_marks(volume)


def pairs(known: list[tuple[np.ndarray, np.ndarray]]) -> set[tuple[int, int]]:
    """As `ingest.leaks` lists them."""
    alike = {(m.first, m.second) for m in search([one for one, _ in known], least=SAME_SCAN, lead=STANDS_OUT)}
    return alike | set(shared_marks([own for _, own in known]))


def table(name: str, scans: list[np.ndarray], copies: int) -> list[str]:
    chance = np.random.default_rng(0)
    prints = [marks(scan) for scan in scans]
    start = time.process_time()
    known = pairs(prints)
    seconds = (time.process_time() - start) / len(scans)
    count = len(scans) * (len(scans) - 1) // 2
    rows = [f"| {name} | nothing planted, {count} pairs of patients | | {len(known)} | {seconds:.2f} s CPU per case |"]
    all_found = all_planted = 0
    for parts in [*((one,) for one in CHANGES), *combinations(CHANGES, 2)]:
        chosen = [int(place) for place in chance.choice(len(scans), copies, replace=False)]
        planted = []
        for place in chosen:
            changed = scans[place]
            for part in parts:
                changed = CHANGES[part](changed, chance)
            planted.append(marks(changed))
        found = pairs([*prints, *planted])
        right = {(place, len(scans) + number) for number, place in enumerate(chosen)}
        all_found, all_planted = all_found + len(found & right), all_planted + len(right)
        rows.append(f"| {name} | {' and '.join(parts)} | {len(found & right)} of {copies} | {len(found - right - known)} | |")
        print(rows[-1], flush=True)
    share = 100 * all_found / all_planted
    return [*rows, f"| {name} | **all changes** | **{all_found} of {all_planted} ({share:.0f} %)** | | |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hippocampus", type=Path, help="folder with images/*.nii.gz (Medical Segmentation Decathlon, task 4)")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--copies", type=int, default=12)
    asked = parser.parse_args()
    rows = []
    if asked.hippocampus:
        files = sorted((asked.hippocampus / "images").glob("*.nii.gz"))[: asked.cases]
        scans = [read_nifti(path).volume.canonical().array[0].astype(np.float32) for path in files]
        rows += table("hippocampus MR", scans, asked.copies)
    limbs = [phantom.image.array[0].astype(np.float32) for phantom in cohort(asked.cases, seed=5)]
    rows += table("generated limbs", limbs, asked.copies)
    lines = [
        "# Leaks found and false pairs",
        "",
        f"`python benchmarks/leaks.py --hippocampus FOLDER --cases {asked.cases} --copies {asked.copies}`; a pair counts from a",
        f"similarity of {SAME_SCAN:g} and a lead of {STANDS_OUT:g}. Generated limbs are analytic bodies of one family, alike",
        "beyond what patients are: after a crop and resampling or noise, one limb is as like its neighbour as like itself.",
        "",
        "| data | copies hidden among all | found | other pairs taken for one scan | cost |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    text = "\n".join(lines)
    print(text)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
