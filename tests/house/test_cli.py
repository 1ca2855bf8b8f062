"""Every verb is documented, and answers --help without loading anything heavy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from bedside.cli.app import application

VERBS = sorted(get_command(application()).commands)
HEAVY = {
    "torch",
    "monai",
    "onnx",
    "onnxruntime",
    "pydicom",
    "nibabel",
    "mlflow",
    "dvc",
    "matplotlib",
    "scipy",
    "lightning_fabric",
}
ASK_FOR_HELP = """\
import contextlib, io, json, sys
from bedside.cli import run
said = {}
for verb in sys.argv[1:]:
    sys.argv = ["bedside", verb, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run()
    said[verb] = (code, out.getvalue())
print(json.dumps({"said": said, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_the_verbs_are_those_of_the_design() -> None:
    assert set(VERBS) >= {"ingest", "train", "evaluate", "promote", "accelerate", "verify", "demo", "schema", "runs"}


@pytest.fixture(scope="module")
def answers() -> dict:
    """What every verb says to --help, and what was imported for all of it in one process."""
    done = subprocess.run([sys.executable, "-c", ASK_FOR_HELP, *VERBS], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_says_more_than_its_name(answers: dict, verb: str) -> None:
    code, text = answers["said"][verb]
    assert code == 0
    assert "Usage: bedside" in text
    assert len(text) > 200
    command = get_command(application()).commands[verb]
    assert command.help
    assert all(getattr(parameter, "help", None) for parameter in command.params if parameter.name != "help"), (
        "an option has no help"
    )


def test_the_list_of_verbs_follows_the_chain_on_whole_lines_and_names_the_exit_codes() -> None:
    command = [sys.executable, "-m", "bedside", "--help"]
    said = subprocess.run(command, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, check=True).stdout
    listed = [line.split()[0] for line in said.partition("Commands:")[2].strip().splitlines()]
    assert sorted(listed) == VERBS
    assert [verb for verb in listed if verb in {"init", "ingest", "train", "evaluate", "promote", "verify"}] == [
        "init",
        "ingest",
        "train",
        "evaluate",
        "promote",
        "verify",
    ]
    assert "..." not in said.partition("Commands:")[2]
    assert "Exit codes: 0 yes" in said


def test_help_of_all_verbs_loads_nothing_heavy(answers: dict) -> None:
    assert not HEAVY & set(answers["loaded"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(repository: Path, verb: str) -> None:
    assert f"bedside {verb}" in (repository / "README.md").read_text()


def test_wrong_use_is_exit_2_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bedside"]
    for arguments in (["nonsense"], ["train", "--no-such-option"], ["promote", "nowhere.yaml"]):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
