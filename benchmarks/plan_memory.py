"""Memory that a plan predicts beside the peak of the training it is made for, `bedside train` in a process of its own.

python benchmarks/plan_memory.py [--only WORD] > benchmarks/results/plan_memory.md

Each row trains 3 steps on made-up cases. "off" is predicted over measured; within 0.7 and 1.3 is what the planner promises.
"""

import argparse
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from generated import put_balls, write_study
from trained import train

Network = dict[str, object]
NARROW: Network = {"name": "dynunet", "features": 8, "levels": 4}
MIDDLE: Network = {"name": "dynunet", "features": 16, "levels": 4}
WIDE: Network = {"name": "dynunet", "features": 32, "levels": 5}


@dataclass(frozen=True)
class Row:
    """One training."""

    network: Network
    side: int
    batch: int
    micro_batch: int
    precision: str = "fp32"

    def __str__(self) -> str:
        words = [str(self.network["name"]), *(f"{key} {value}" for key, value in self.network.items() if key != "name")]
        return f"{', '.join(words)}; {self.side}^3 x {self.micro_batch} of {self.batch}, {self.precision}"


ROWS = (
    Row(NARROW, 32, 2, 2),
    Row(NARROW, 64, 2, 2),
    Row(NARROW, 96, 2, 1),
    Row(MIDDLE, 32, 4, 4),
    Row(MIDDLE, 48, 4, 4),
    Row(MIDDLE, 64, 2, 2),
    Row(MIDDLE, 64, 4, 1),
    Row(MIDDLE, 80, 2, 2),
    Row(WIDE, 48, 2, 2),
    Row(WIDE, 64, 2, 2),
    Row(WIDE, 96, 2, 1),
    Row(MIDDLE, 64, 2, 2, "bf16"),
    Row(WIDE, 64, 2, 2, "bf16"),
    Row({**MIDDLE, "deep_supervision": 2}, 64, 2, 2),
    Row({**MIDDLE, "checkpointing": True}, 64, 2, 2),
    Row({**WIDE, "checkpointing": True}, 96, 2, 1),
    Row({**MIDDLE, "residual": True}, 64, 2, 2),
    Row({"name": "unet", "features": 16, "levels": 4}, 64, 2, 2),
    Row({"name": "unet", "features": 32, "levels": 4}, 64, 2, 1),
    Row({"name": "segresnet"}, 64, 2, 1),
    Row({"name": "segresnet"}, 64, 2, 2, "bf16"),
    Row({"name": "swin_unetr"}, 64, 2, 1),
    Row({"name": "swin_unetr", "checkpointing": True}, 64, 2, 1),
)


def main() -> None:
    """Print the table."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--only", default="", help="rows that hold this word")
    only = reader.parse_args().only
    print("# Predicted and measured peak memory of training\n")
    print(f"`python benchmarks/plan_memory.py`, one thread, {platform.machine()}; MB of 10^6 bytes.\n")
    print("| network; patch x micro-batch of batch, precision | predicted | measured | no file | off |")
    print("|---|---:|---:|---:|---:|")
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, row in enumerate(row for row in ROWS if only in str(row)):
            config = write_study(
                Path(scratch) / str(number),
                network=row.network,
                train={"patch": [row.side] * 3, "batch": row.batch, "micro_batch": row.micro_batch, "precision": row.precision},
            )
            put_balls(config, cases=4, shape=(row.side + 8,) * 3)
            found = train(config.workspace.folder, ceiling_gb=12)
            ratios.append(found.predicted_mb / found.peak_mb)
            sizes = f"{found.predicted_mb:.0f} | {found.peak_mb:.0f} | {found.anonymous_mb:.0f}"
            print(f"| {row} | {sizes} | {ratios[-1]:.2f} |", flush=True)
    within = sum(0.7 <= ratio <= 1.3 for ratio in ratios)
    print(f"\n{within} of {len(ratios)} within 30 %; from {min(ratios):.2f} to {max(ratios):.2f}.")


if __name__ == "__main__":
    main()
