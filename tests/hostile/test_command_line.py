"""The command itself on hostile exports: an exit code with a name, every file counted, nothing said, nothing written outside."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bedside.formats.nifti import write_nifti

from .corpus import corpus
from .test_failpoints import STUDY


@pytest.fixture
def run(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps(STUDY))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "site.yaml").write_text("versioning: off\ntracking: off\nprocesses: 2\n")

    def command(source, *more):
        words = [
            sys.executable,
            "-m",
            "bedside",
            "ingest",
            str(study),
            "--folder",
            str(tmp_path / "study"),
            "--from",
            str(source),
        ]
        return subprocess.run([*words, "--json", *more], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)

    return command


def laid_down(root, specimens):
    for number, specimen in enumerate(specimens):
        specimen.write(root / "images" / str(number))
    return sum(len(one.files) for one in specimens)


def everything(tmp_path):
    return {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if "study/" not in f"{path.relative_to(tmp_path)}/"
    }


def test_a_hostile_export_costs_only_its_hostile_files(run, tmp_path):
    sample = [one for one in corpus() if one.family not in {"D3 deflate bomb", "N2 gzip bomb"} and one.expect == "refused"][::17]
    written = laid_down(tmp_path / "export", sample)
    for number in range(4):
        array = np.random.default_rng(number).integers(-900, 900, (6, 5, 4)).astype(np.int16)
        write_nifti(tmp_path / "export" / "images" / f"good-{number}.nii.gz", array, np.diag([1.0, 1.5, 2.0, 1.0]))
    before = everything(tmp_path)
    done = run(tmp_path / "export")
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["received"] == written + 4
    assert said["received"] == said["accepted"] + sum(said["rejected"].values()) + said["duplicates"]
    assert said["cases"] >= 4
    assert len(said["rejected"]) > 10
    assert "Traceback" not in done.stderr
    assert everything(tmp_path) == before
    for text in (done.stdout, done.stderr, (tmp_path / "study" / "ledger.jsonl").read_text()):
        assert "ZQ" not in text
        assert "pwned" not in text


def test_an_export_of_hostile_files_only_is_rejected_as_a_whole(run, tmp_path):
    laid_down(tmp_path / "export", [one for one in corpus() if one.family == "files of another kind"][:6])
    done = run(tmp_path / "export")
    assert (done.returncode, "NO_CASES" in done.stdout + done.stderr) == (3, True)
    assert "Traceback" not in done.stderr


def test_an_archive_is_taken_and_a_hostile_one_is_not(run, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for number in range(4):
            array = np.random.default_rng(number).integers(-900, 900, (6, 5, 4)).astype(np.int16)
            write_nifti(tmp_path / "x.nii.gz", array, np.diag([1.0, 1.5, 2.0, 1.0]))
            made.write(tmp_path / "x.nii.gz", f"images/{number}.nii.gz")
    (tmp_path / "export.zip").write_bytes(out.getvalue())
    done = run(tmp_path / "export.zip")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["accepted"] == 4
    with zipfile.ZipFile(tmp_path / "export.zip", "a") as made:
        made.writestr("../../pwned", b"x")
    before = everything(tmp_path)
    done = run(tmp_path / "export.zip")
    assert (done.returncode, "ARCHIVE_UNSAFE" in done.stdout + done.stderr) == (7, True)
    assert everything(tmp_path) == before
    assert not list((tmp_path / "study" / "scratch").glob("unpacked-*"))
