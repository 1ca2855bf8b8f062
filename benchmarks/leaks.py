"""What the leak detector finds of planted leaks, and what it takes for one among unrelated cases.

    python benchmarks/leaks.py [--hippocampus FOLDER] [--cases 40] [--noise 0.02]

Each case is changed as scans are changed on their way (a crop of 10 to 20 % per axis, a flip, another voxel grid of 0.8 to 1.25,
gamma 0.7 to 1.4, a linear scale, Gaussian noise, all of them together) and compared with its original; then all cases are
compared with each other, and last with copies hidden among them. Prints one table and writes it to benchmarks/results/leaks.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from bedside.core.volume import Volume
from bedside.data.fingerprint import fingerprint, search, similarity
from bedside.data.phantom import cohort
from bedside.formats.nifti import read_nifti
from bedside.ingest.leaks import SAME_SCAN

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def crop(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    parts = []
    for length in scan.shape:
        cut = round(length * chance.uniform(0.1, 0.2))
        low = int(chance.integers(0, cut + 1))
        parts.append(slice(low, length - (cut - low)))
    return scan[tuple(parts)]


def flip(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return np.flip(scan, int(chance.integers(3)))


def resample(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return zoom(scan, chance.uniform(0.8, 1.25, 3), order=1)


def gamma(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    low, high = scan.min(), scan.max()
    return low + (high - low) * ((scan - low) / (high - low)) ** chance.uniform(0.7, 1.4)


def linear(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return scan * chance.uniform(0.5, 2) + chance.uniform(-100, 100)


def noise(share: float) -> Change:
    return lambda scan, chance: scan + chance.normal(0, share * np.ptp(np.percentile(scan, [1, 99])), scan.shape)


def changes(share: float) -> dict[str, Change]:
    one_by_one: dict[str, Change] = {
        "crop 10-20 %": crop,
        "flip": flip,
        "resample 0.8-1.25": resample,
        "gamma 0.7-1.4": gamma,
        "linear": linear,
        f"noise {100 * share:g} % of the range": noise(share),
    }

    def everything(scan: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        for change in (crop, flip, resample, gamma, noise(share)):
            scan = change(scan, chance)
        return scan

    return {**one_by_one, "all but linear": everything}


def marks(scan: np.ndarray) -> np.ndarray:
    return fingerprint(Volume.of(scan, np.eye(4)))


def table(name: str, scans: list[np.ndarray], share: float) -> list[str]:
    chance = np.random.default_rng(0)
    prints = [marks(scan) for scan in scans]
    start = time.perf_counter()
    pairs = search(prints, least=-1.0)
    seconds = time.perf_counter() - start
    count = len(scans) * (len(scans) - 1) // 2
    false = sum(match.similarity >= SAME_SCAN for match in pairs)
    highest = pairs[0].similarity if pairs else float("nan")
    told = f"{false} taken for one scan | highest {highest:.3f} | {seconds / len(scans):.2f} s/case"
    rows = [f"| {name} | unrelated pairs: {count} | {told} |"]
    for what, change in changes(share).items():
        found = [similarity(own, marks(change(scan, chance))) for own, scan in zip(prints, scans, strict=True)]
        hits = sum(score >= SAME_SCAN for score in found)
        rows.append(
            f"| {name} | {what} | found {hits} of {len(found)} ({100 * hits / len(found):.0f} %) | lowest {min(found):.3f} | |"
        )
    planted = [marks(flip(crop(scan, chance), chance)) for scan in scans[: len(scans) // 2]]
    among = search([*prints, *planted], least=SAME_SCAN)
    hits = sum(match.second - len(scans) == match.first for match in among)
    rows.append(
        f"| {name} | {len(planted)} cropped and flipped copies hidden among all | found {hits} of {len(planted)},"
        f" {len(among) - hits} false pairs | | |"
    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hippocampus", type=Path, help="folder with images/*.nii.gz (Medical Segmentation Decathlon, task 4)")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--noise", type=float, default=0.02)
    asked = parser.parse_args()
    rows = table("CT phantoms", [p.image.array[0].astype(np.float32) for p in cohort(asked.cases, seed=5)], asked.noise)
    if asked.hippocampus:
        files = sorted((asked.hippocampus / "images").glob("*.nii.gz"))[: asked.cases]
        scans = [read_nifti(path).volume.canonical().array[0].astype(np.float32) for path in files]
        rows += table("hippocampus MR", scans, asked.noise)
    lines = [
        "# Leaks found and false pairs",
        "",
        f"`python benchmarks/leaks.py --hippocampus FOLDER --cases {asked.cases} --noise {asked.noise:g}`; a pair counts from a",
        f"similarity of {SAME_SCAN:g}. Phantoms are analytic bodies of one family, alike beyond what patients are.",
        "",
        "| data | what | result | similarity | time |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    text = "\n".join(lines)
    print(text)
    target = Path(__file__).parent / "results" / "leaks.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)


if __name__ == "__main__":
    main()
