"""What clusters are given to ingest: four small CT series and a file that is none, with the study that takes them."""

from pathlib import Path

import numpy as np
from tests.ingest.conftest import SECTIONS

from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series

STUDY = {
    **SECTIONS,
    "source": {**SECTIONS["source"], "labels": None},
    "split": {"test": 0.25, "folds": 2, "seed": 0},
}


def write_received(folder: Path) -> Path:
    """Fill a folder with them and return it."""
    for number in range(4):
        values = np.random.default_rng(number).integers(-1000, 1000, (8, 7, 6)).astype(np.int16)
        series = Volume.of(values, np.diag([1.0, 1.0, 2.0, 1.0]))
        write_series(folder / "images" / str(number), series, identity=SeriesIdentity.of(f"P{number}", str(number)))
    (folder / "images" / "damaged.dcm").write_bytes(b"damaged")
    return folder
