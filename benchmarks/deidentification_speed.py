"""How fast identity is taken out of CT files, on one core: `python benchmarks/deidentification_speed.py`.

It writes 512 x 512 CT slices (a phantom's, or takes real ones with --from), and times the engine alone and the whole step
(gate, pixels' class, face, engine, search, write with fsync) in one process. The goal is 50 files/s.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bedside.core.config import load
from bedside.core.identity import KEY_VARIABLE, Identity
from bedside.core.ports import InlineExecutor
from bedside.core.volume import Volume
from bedside.formats.deidentify import Deidentifier
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.deidentify import deidentify

STUDY = Path(__file__).resolve().parent.parent / "studies" / "hippocampus.yaml"
WAIVED = ["source.deidentify.faces=waive", "source.deidentify.faces_reason=timing"]
GOAL_PER_SECOND = 50


def phantom(folder: Path, files: int) -> None:
    """A CT series of random values."""
    values = np.random.default_rng(0).integers(-1000, 2000, (512, 512, files)).astype(np.int16)
    grid = np.diag([-0.8, -0.8, 1.0, 1.0])
    write_series(folder, Volume.of(values, grid), identity=SeriesIdentity.of("ZQ4711", manufacturer="ACME"))


def rate(count: int, work: Callable[[], object]) -> float:
    """Files per second of processor time."""
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def speed(source: Path | None, files: int) -> None:
    """Time the engine and the step."""
    os.environ.setdefault(KEY_VARIABLE, "a secret of this benchmark")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        received = source or root / "received"
        if source is None:
            phantom(received, files)
        data = [path.read_bytes() for path in sorted(received.rglob("*.dcm"))]
        engine = Deidentifier(Identity.of("pseudonym"))
        engine.file(data[0])
        print(f"{len(data)} files, {sum(map(len, data)) / len(data) / 1e6:.2f} MB each")
        print(f"engine:     {rate(len(data), lambda: [engine.file(one) for one in data]):7.1f} files/s/core")
        config = load(STUDY, overrides=WAIVED, folder=root / "study")
        start = time.process_time()
        _, certificate = deidentify(config, received, root / "out", executor=InlineExecutor())
        step = certificate.received / (time.process_time() - start)
        print(f"whole step: {step:7.1f} files/s/core (goal {GOAL_PER_SECOND}), {certificate.written} written")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, help="folder of real DICOM files (*.dcm) instead of a phantom")
    parser.add_argument("--files", type=int, default=100)
    asked = parser.parse_args()
    speed(asked.source, asked.files)


if __name__ == "__main__":
    main()
