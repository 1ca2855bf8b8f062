"""What is committed: code and text, no scans, no paths of one machine."""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 1_000_000
SCANS = (".nii", ".gz", ".dcm", ".npy", ".npz", ".safetensors", ".onnx", ".pt", ".db", ".mha", ".nrrd")
HOMES = rb"(?<![\w.])/(?:home|root|Users)/[a-z]"
# the folder around the checkout, unless that is where anybody's temporary files lie: guides may name those
AROUND = ROOT if ROOT.parent in {Path(tempfile.gettempdir()), Path("/")} else ROOT.parent
MACHINE = re.compile(HOMES + rb"|(?<![\w.])" + re.escape(f"{AROUND}/".encode()))

pytestmark = pytest.mark.git


def committed() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("NO COMMITTED FILE WAS LOOKED AT: this is no git checkout, so nothing says what is committed")
    return [path for name in done.stdout.split(b"\0") if name and (path := ROOT / name.decode()).is_file()]


def test_no_scan_model_or_database_is_committed() -> None:
    assert [path.name for path in committed() if path.suffix in SCANS or path.stat().st_size > MOST_BYTES] == []


def test_no_file_names_a_place_on_one_machine() -> None:
    found = [
        path for path in committed() if path.suffix != ".lock" and path != Path(__file__) and MACHINE.search(path.read_bytes())
    ]
    assert found == []


def test_no_line_is_left_for_later() -> None:
    later = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
    assert [path for path in committed() if path.suffix in {".py", ".yaml", ".toml"} and later.search(path.read_text())] == []
