"""Training as the work grows: 1, 4 and 16 times the cases, and 1 and 8 times the voxels of each.

python benchmarks/scaling.py > benchmarks/results/scaling.md

Each row is `bedside train` in a process of its own, on made-up cases that are in the store already: planning, preparing the cases
once, and the same number of steps with the same patch and network. "before the steps" is all of the wall time but the steps.
Memory is the largest resident set, and the part of it that is no file: prepared cases are memory-mapped files, whose pages the
kernel takes back when memory is short. Nothing may grow faster than the work; the last column is growth of wall time over growth
of voxels, from the first row.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from generated import put_balls, write_study
from trained import Trained, train

SIDE, CASES, STEPS = 48, 12, 30
ROWS = ((1, 1), (4, 1), (16, 1), (1, 8), (4, 8))
"""Times the cases, times the voxels."""


def measure(folder: Path, cases: int, side: int, steps: int) -> Trained:
    """One training in a folder of its own."""
    network = {"name": "dynunet", "features": 8, "levels": 3}
    planned = {"patch": [32, 32, 32], "batch": 2, "micro_batch": 2, "steps": steps}
    config = write_study(folder, threads=len(os.sched_getaffinity(0)), network=network, train=planned)
    put_balls(config, cases=cases, shape=(side,) * 3)
    return train(folder)


def main() -> None:
    """Print the table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--steps", type=int, default=STEPS)
    steps = reader.parse_args().steps
    print("# Training as the work grows\n")
    print(f"`python benchmarks/scaling.py`: {steps} steps, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, load")
    print(f"{os.getloadavg()[0]:.1f}; MB of 10^6 bytes.\n")
    print("| cases | voxels of each | wall s | before the steps s | s per step | waiting | peak MB | no file | growth |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    first = None
    with tempfile.TemporaryDirectory() as scratch:
        for more_cases, more_voxels in ROWS:
            cases, side = CASES * more_cases, round(SIDE * more_voxels ** (1 / 3))
            found = measure(Path(scratch) / f"{cases}-{side}", cases, side, steps)
            first = first or found
            cost = found.record["cost"]
            inside = cost["step_seconds"] + cost["data_seconds"]
            growth = found.wall_seconds / first.wall_seconds / (more_cases * more_voxels)
            took = f"{found.wall_seconds:.1f} | {found.wall_seconds - inside:.1f} | {found.step_seconds:.3f}"
            print(
                f"| {cases} | {side}^3 | {took} |"
                f" {100 * cost['data_seconds'] / inside:.0f} % | {found.peak_mb:.0f} | {found.anonymous_mb:.0f} | {growth:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
