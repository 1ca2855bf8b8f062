"""One small study folder, taken through the chain by the commands themselves."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TINY = ("train.minutes=null", "train.steps=12", "train.patch=[32,32,16]", "train.precision=fp32", "evaluate.resamples=200")
QUICK = ("accelerate.cases=1", "accelerate.repeats=1", "network.features=4", "train.validations=1")
OPEN = ("promote.gates=[{name: provenance}]",)


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def bedside(*arguments: str, cwd: Path, sets: tuple[str, ...] = ()) -> Said:
    """Run the installed command in a process of its own, as a user does."""
    changes = [word for change in sets for word in ("--set", change)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", "bedside", *arguments, *changes]
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A demo of twelve patients and a dozen steps, with only the provenance gate, mirrored nowhere."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "demo").mkdir()
    (folder / "demo" / "site.yaml").write_text("versioning: off\ntracking: off\nthreads: 1\n")
    return folder, bedside("demo", "--patients", "12", "--json", cwd=folder, sets=(*TINY, *QUICK, *OPEN))
