"""`bedside datasets` as a user runs it: versions, their differences, and a version without somebody."""

import json

import numpy as np
import pytest

from bedside.formats.nifti import write_nifti

from .conftest import bedside

STUDY = {
    "study": "small",
    "contract": {"modality": "CT", "spacing_mm": [0.5, 5.0], "labels": {"background": 0, "bone": 1}},
    "source": {"images": ".", "labels": None, "identity": "keep", "site": "north"},
    "split": {"test": 0.2, "folds": 2},
    "task": {"name": "segmentation"},
    "network": {"name": "dynunet"},
    "train": {"patch": [8, 8, 8]},
    "promote": {"gates": [{"name": "absolute", "metric": "dice", "floor": 0.5}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}]},
}


@pytest.fixture
def home(tmp_path):
    """A study and two batches of three scans each, nothing ingested yet."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "study.yaml").write_text(json.dumps(STUDY))
    (tmp_path / "small" / "site.yaml").write_text("versioning: off\ntracking: off\nexecutor: inline\n")
    for number in range(6):
        folder = tmp_path / f"batch{number // 3}"
        folder.mkdir(exist_ok=True)
        array = np.random.default_rng(number).integers(-999, 999, (6, 5, 4)).astype(np.int16)
        write_nifti(folder / f"scan{number}.nii.gz", array, np.eye(4))
    return tmp_path


def test_versions_are_listed_compared_and_shortened(home):
    assert bedside("datasets", "small", cwd=home).code == 2
    first = bedside("ingest", "small", "--from", "batch0", "--json", cwd=home).json
    planned = bedside("ingest", "small", "--from", "batch1", "--add", "--what-if", "--json", cwd=home).json
    second = bedside("ingest", "small", "--from", "batch1", "--add", "--json", cwd=home).json
    assert planned == {**second, "dataset": ""}
    assert (second["parent"], second["cases"], second["added"]) == (first["dataset"], 6, 3)
    rows = bedside("datasets", "small", "--json", cwd=home).json
    assert [row["digest"] for row in rows] == [second["dataset"], first["dataset"]]
    assert all(row["received"] == row["accepted"] + sum(row["rejected"].values()) + row["duplicates"] for row in rows)
    found = bedside("datasets", "small", "--diff", first["dataset"][:8], "latest", "--json", cwd=home).json
    assert found["by_site"]["north"]["added"] == ["scan3", "scan4", "scan5"]
    for words in (("diff", first["dataset"][:8], "latest", "--json"), ("--json", "diff", first["dataset"][:8], "latest")):
        assert bedside("datasets", *words, cwd=home / "small").json == found
    said = bedside("datasets", "small", "--diff", first["dataset"][:8], "latest", cwd=home)
    assert "added: scan3, scan4, scan5" in said.out
    (home / "gone.txt").write_text("scan1\n\nscan4\n")
    assert "without 2 cases, with 4 left" in bedside("datasets", "small", "--drop", "gone.txt", "--what-if", cwd=home).out
    third = bedside("datasets", "small", "--drop", "gone.txt", "--json", cwd=home).json
    assert (third["parent"], third["cases"]) == (second["dataset"], 4)
    listed = bedside("datasets", "small", cwd=home).out
    assert all(digest[:12] in listed for digest in (first["dataset"], second["dataset"], third["dataset"]))
    assert "-2" in listed
    assert "chain intact" in bedside("verify", "small", cwd=home).out


def test_a_study_folder_called_diff_is_reached_by_its_path(home):
    (home / "small").rename(home / "diff")
    digest = bedside("ingest", "./diff", "--from", "batch0", "--json", cwd=home).json["dataset"]
    for words in (("diff",), ("./diff",), ("diff", "--json"), ("./diff", "--diff", digest, digest)):
        assert bedside("datasets", *words, cwd=home).code == 0
    assert bedside("datasets", "diff", digest, digest, cwd=home).code == 2  # here is no study


def test_a_file_of_names_that_cannot_be_read_is_wrong_use(home):
    assert bedside("ingest", "small", "--from", "batch0", cwd=home).code == 0
    said = bedside("datasets", "small", "--drop", "nowhere.txt", "--json", cwd=home)
    assert said.code == 2


def test_what_if_says_beforehand_what_ingest_would_end_with(home):
    many = ("split.folds=4",)
    planned = bedside("ingest", "small", "--from", "batch0", "--what-if", "--json", cwd=home, sets=many)
    ended = bedside("ingest", "small", "--from", "batch0", "--json", cwd=home, sets=many)
    assert (planned.code, ended.code) == (0, 2)
    assert planned.json["obstacle"] == ended.json["error"]["sentence"]
    assert "leave 2 for 4 folds" in planned.json["obstacle"]


def test_each_refusal_is_shown_with_its_reason(home):
    (home / "batch0" / "notes.txt").write_text("not a scan")
    said = bedside("ingest", "small", "--from", "batch0", cwd=home).out
    assert "DCM_NOT_DICOM" in said
    assert "1 in quarantine: The file has no DICOM preamble" in said
