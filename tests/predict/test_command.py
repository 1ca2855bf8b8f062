"""`bedside predict` says the same to people and programs, and ends as the table of exit codes says."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from bedside.core.workspace import Workspace

from .conftest import store_threshold


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


def bedside(*arguments: str, cwd: Path) -> Said:
    command = [sys.executable, "-m", "bedside", "predict", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a study that holds the thresholds, and their digest."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "study").mkdir()
    (folder / "study" / "study.yaml").write_text((files("bedside") / "demo.yaml").read_text())
    return folder, store_threshold(Workspace(folder / "study")).digest


def test_what_if_tells_a_program_and_the_real_thing_tells_a_person(study: tuple[Path, str], scans: Path) -> None:
    folder, digest = study
    what = ("study", "--model", digest[:8], "--from", str(scans / "series-0"), "--to", "results [/x]", "--mesh", "stl,obj")
    planned = bedside(*what, "--what-if", "--json", cwd=folder)
    assert planned.code == 0, planned.err
    assert "cancellous_bone.obj" in json.loads(planned.out)["outputs"]
    assert not (folder / "results [").exists()
    read = bedside(*what, "--no-seg", cwd=folder)
    assert read.code == 0, read.err
    assert "cortical_bone" in read.out
    assert "received 16 files: 16 predicted, 0 refused, 0 duplicate" in read.out
    (case,) = (folder / "results [/x]").iterdir()
    assert {path.name for path in case.glob("*.obj")} == {"cortical_bone.obj", "cancellous_bone.obj"}
    assert not (case / "segmentation.dcm").exists()


def test_wrong_use_exits_2_and_refused_input_exits_3(study: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = study
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "SECRET.dcm").write_text("no image")
    model = ("--model", digest)
    assert bedside("study", *model, "--from", str(tmp_path / "in"), cwd=folder).code == 2
    wrong = bedside("study", *model, "--from", str(tmp_path / "in"), "--to", "r", "--mesh", "vtk", cwd=folder)
    assert (wrong.code, "stl, ply, obj" in wrong.err) == (2, True)
    refused = bedside("study", *model, "--from", str(tmp_path / "in"), "--to", "r", "--json", cwd=folder)
    assert refused.code == 3
    assert json.loads(refused.out)["error"]["exit"] == 3
    assert "SECRET" not in refused.out + refused.err
