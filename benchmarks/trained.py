"""One `bedside train` in a process of its own, and what it took of memory and time; imports no torch."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.01
MEGABYTE = 1e6


@dataclass(frozen=True)
class Trained:
    """What a training took, memory in MB of 10^6 bytes.

    Attributes:
        predicted_mb: by its plan; peak_mb: largest resident memory, by the kernel; anonymous_mb: the part of it that is no file
            (memory-mapped cases are files, and their pages are given up when memory is short).
        wall_seconds: of the process; step_seconds: median-free mean of a step; record: the run as printed.
    """

    predicted_mb: float
    peak_mb: float
    anonymous_mb: float
    wall_seconds: float
    step_seconds: float
    record: dict[str, object]


def train(folder: Path, *words: str, ceiling_gb: float | None = None) -> Trained:
    """Run `bedside train FOLDER --json` and watch it."""
    command = [sys.executable, "-m", "bedside", "train", str(folder), "--json", *words]
    command += ["--set", f"train.memory_gb={ceiling_gb}"] if ceiling_gb else []
    began, anonymous = time.perf_counter(), 0.0
    with (folder / "said.json").open("wb") as out, (folder / "said.txt").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(LOOK_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit((folder / "said.txt").read_text()[-2000:])
    record = json.loads((folder / "said.json").read_text())
    wall = time.perf_counter() - began
    steps = record["cost"]["step_seconds"] / record["steps"]
    return Trained(record["plan"]["predicted_memory_mb"], usage.ru_maxrss * 1024 / MEGABYTE, anonymous, wall, steps, record)


def _anonymous(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / MEGABYTE for line in text.splitlines() if line.startswith("RssAnon")), 0.0)
