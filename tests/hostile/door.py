"""The door of ingest, as a worker runs it: look, assemble, decode, judge the axes; and what that cost."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bedside.core.contract import Contract
from bedside.core.errors import BedsideError
from bedside.formats.dicom import assemble, look
from bedside.formats.nifti import read_nifti

CONTRACT = Contract(modality="CT", spacing_mm=(1e-6, 1e6), labels={"background": 0, "structure": 1})
"""Of it only what is asked of the axes is used here: the rest would hide what the readers let through."""


@dataclass(frozen=True)
class Passage:
    """What came of a folder of files at the door.

    Attributes:
        received, accepted, rejected, duplicates: numbers of files.
        codes: of every refusal, sorted.
        taken: names of the files that were accepted.
        exit_code: the worst of the refusals' exit codes; 0 without any.
        seconds: of the processor's time.
        memory_mb: peak of resident memory above what was there before.
    """

    received: int
    accepted: int
    rejected: int
    duplicates: int
    codes: tuple[str, ...]
    taken: tuple[str, ...]
    exit_code: int
    seconds: float
    memory_mb: float

    @property
    def adds_up(self):
        return self.received == self.accepted + self.rejected + self.duplicates


def pass_door(folder):
    """Let every file of a folder through the door that ingest has; only a `BedsideError` may be the answer to what is in it."""
    began, before = time.process_time(), _start_counting_mb()
    paths = sorted(path for path in Path(os.fsdecode(folder)).rglob("*") if path.is_symlink() or not path.is_dir())
    niftis = [path for path in paths if path.name.endswith((".nii", ".nii.gz"))]
    reading = assemble(look(path) for path in paths if path not in niftis)
    taken: list[str] = []
    refusals = [(len(one.files), one.code, 3) for one in reading.refused]
    for found in reading.found:
        taken += _decoded(found, refusals)
    for path in niftis:
        try:
            taken += _decoded(read_nifti(path), refusals)
        except BedsideError as error:
            refusals.append((1, error.code, error.exit_code))
    return Passage(
        len(paths),
        len(taken),
        sum(count for count, _, _ in refusals),
        len(reading.duplicates),
        tuple(sorted(code for _, code, _ in refusals)),
        tuple(taken),
        max((code for _, _, code in refusals), default=0),
        time.process_time() - began,
        _status_kb("VmHWM") / 1024 - before,
    )


def _decoded(found, refusals):
    """The files that a volume accounts for once its voxels were decoded; a refusal is noted instead."""
    try:
        CONTRACT.check_axes(found.volume)
        array = found.volume.array
    except BedsideError as error:
        refusals.append((len(found.files), error.code, error.exit_code))
        return []
    assert array.shape == found.volume.shape
    return [path.name for path in found.files]


def _status_kb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _start_counting_mb():
    """Forget the peak so far (proc(5), clear_refs) and give the present size."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_kb("VmRSS") / 1024
