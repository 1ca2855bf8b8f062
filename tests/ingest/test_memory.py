"""What an ingest holds in memory: one case in the worker, and little of every file in the parent."""

import tracemalloc

import numpy as np

from bedside.core.ports import InlineExecutor
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest

GRID = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (192, 192, 32)
VOLUME_BYTES = int(np.prod(SHAPE)) * 2


def peak_bytes(config, source):
    """The most that Python and numpy held at once during an ingest where the worker is this process, beyond what was there."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ingest(config, source, executor=InlineExecutor())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


def test_memory_stays_below_three_volumes_however_many_there_are(tmp_path, configure):
    """Counted: all that Python and numpy allocate, in parent and worker together; not counted: interpreter and libraries."""
    rng = np.random.default_rng(0)
    source = {"images": ".", "labels": None, "identity": "keep"}
    found = {}
    for count in (3, 9):
        root = tmp_path / f"export{count}"
        for number in range(count):
            array = rng.integers(-900, 900, SHAPE).astype(np.int16)
            identity = SeriesIdentity.of(f"p{number}", f"{count}-{number}")
            write_series(root / f"s{number}", Volume.of(array, GRID), identity=identity)
        found[count] = peak_bytes(configure(f"study{count}", source=source, split={"test": 0, "folds": 2}), root)
    assert max(found.values()) < 3 * VOLUME_BYTES, {count: peak / VOLUME_BYTES for count, peak in found.items()}
    assert found[9] - found[3] < 6 * 32 * 8192  # of each further file, at most 8 KiB are kept
