"""An ingest that is killed, or finds the disk full, at any of its writes is made whole by repeating the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.ingest.conftest import SECTIONS

from bedside.core.config import load
from bedside.formats.nifti import write_nifti
from bedside.ingest.pipeline import ingest

from . import corpus_nifti
from .dicom_bytes import ct_slice

STUDY = {
    **SECTIONS,
    "source": {**SECTIONS["source"], "labels": None},
    "split": {"test": 0.3, "folds": 2, "seed": 0},
}


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(STUDY))  # JSON is YAML
    return path


@pytest.fixture
def source(tmp_path):
    """A DICOM series, three NIfTI images, a repetition, and three files to be refused."""
    root = tmp_path / "received" / "images"
    (root / "series").mkdir(parents=True)
    for number in range(4):
        (root / "series" / f"{number}.dcm").write_bytes(ct_slice(number).bytes())
    (root / "series" / "junk").write_bytes(b"junk")
    (root / "other").mkdir()
    (root / "other" / "cut.dcm").write_bytes(ct_slice(1, series="7").bytes()[:-9])
    for number in range(3):
        array = np.random.default_rng(number).integers(-900, 900, (6, 5, 4)).astype(np.int16)
        write_nifti(root / f"{number}.nii", array, np.diag([1.0, 1.5, 2.0, 1.0]))
    (root / "again.nii").write_bytes((root / "0.nii").read_bytes())
    (root / "bad.nii").write_bytes(corpus_nifti.image(slope=float("nan")))
    return root.parent


def reports(study_file, source, folder, mode, first, step):
    driver = Path(__file__).with_name("failpoints.py")
    command = [sys.executable, str(driver), str(study_file), str(folder), str(source), mode, str(first), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found, whole, mode):
    """Every run after a strike gave what a run without one gives."""
    ended = [report["ended"] for report in found]
    assert ended == [{"kill": "killed", "full": "full"}[mode]] * (len(found) - 1) + ["whole"]
    last = found[-1]
    assert last["digest"] == whole
    received, accepted, rejected, duplicates = last["counts"]
    assert (received, accepted, rejected, duplicates) == (11, 7, 3, 1)
    for report in found:
        actions = {action: count for action, count in report["actions"].items() if action != "repair"}
        assert actions == {action: count for action, count in last["actions"].items() if action != "repair"}, report["at"]
        assert report["intact"], report["at"]
        assert report["leftovers"] == last["leftovers"], report["at"]
        for key in ("digest", "counts", "quarantine", "index", "stored"):
            assert report[key] == last[key], (report["at"], key)


@pytest.mark.parametrize(("mode", "first", "step"), [("kill", 3, 13), ("full", 2, 11)])
def test_a_strike_at_a_write_is_made_whole_by_repeating(study_file, source, tmp_path, mode, first, step):
    whole = ingest(load(study_file, folder=tmp_path / "whole", overrides=["site.executor=inline"]), source).digest
    found = reports(study_file, source, tmp_path / mode, mode, first, step)
    assert len(found) > 6
    check(found, whole, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "full"])
def test_a_strike_at_every_single_write_is_made_whole_by_repeating(study_file, source, tmp_path, mode):
    whole = ingest(load(study_file, folder=tmp_path / "whole", overrides=["site.executor=inline"]), source).digest
    found = reports(study_file, source, tmp_path / mode, mode, 1, 1)
    assert len(found) > 60
    check(found, whole, mode)
