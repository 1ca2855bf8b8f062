"""Wrong use and odd surroundings: one sentence, one exit code, one JSON document, never a traceback."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from bedside import cli
from bedside.cli import app

from .conftest import bedside

READERS = ("datasets", "runs", "schema")


@pytest.fixture
def study(tmp_path, repository):
    (tmp_path / "study.yaml").write_text((repository / "studies" / "hippocampus.yaml").read_text())
    (tmp_path / "site.yaml").write_text("versioning: off\ntracking: off\nexecutor: inline\n")
    return tmp_path


def ends(monkeypatch, capsys, raising: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
    """Let the command line end as `raising` does."""

    def application() -> Callable[..., None]:
        return lambda **_: raising()

    monkeypatch.setattr(app, "application", application)
    monkeypatch.setattr(sys, "argv", ["bedside", *arguments])
    code = cli.run()
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_no_library_takes_a_signal_for_an_error_of_its_own(monkeypatch, capsys, number):
    def raising() -> None:
        with suppress(Exception):
            os.kill(os.getpid(), number)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        code, said, err = ends(monkeypatch, capsys, raising, "train", "--json")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (code, json.loads(said)["error"]["code"]) == (8, "INTERRUPTED")
    assert signal.Signals(number).name in err


ENDING = """
import os, signal, sys, time
from bedside import cli
from bedside.cli import app
from bedside.core.errors import Interrupted

class Late:
    def __del__(self):
        print("late", file=sys.stdout, flush=True)
        time.sleep(1.5)

def raising(**_):
    sys.modules["late"] = Late()  # what a large library does while the interpreter ends
    if sys.argv[1] == "saved":
        raise Interrupted("saved")
    time.sleep(60)

app.application = lambda: raising
print("begun", flush=True)
cli.main()
"""


@pytest.mark.parametrize("how", ["saved", "told"])
def test_a_command_that_is_told_again_and_again_while_it_ends_still_ends_with_8(how):
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "begun\n"
        time.sleep(1)
        if how == "told":
            child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == "late\n"
        while child.poll() is None:
            child.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
        assert "Traceback" not in child.stderr.read()
    assert child.returncode == 8


def test_an_option_that_is_unknown_is_an_error_object_too(study):
    said = bedside("ingest", "--frm", "here", "--json", cwd=study)
    assert said.code == 2
    assert said.json["error"]["code"] == "USAGE"
    assert "--frm" in said.err


@pytest.mark.parametrize("verb", ["ingest", "deidentify", "init"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(study, verb, monkeypatch):
    where = ["nowhere", "--out", "new.yaml"] if verb == "init" else ["--from", "nowhere", "--what-if"]
    monkeypatch.setenv("BEDSIDE_KEY", "0123456789abcdef")
    said = bedside(verb, *where, "--json", cwd=study)
    assert said.code == 2
    assert said.json["error"]["code"] == "NO_SOURCE"
    assert "no such folder" in said.json["error"]["sentence"]


@pytest.mark.parametrize("verb", READERS)
def test_what_a_reading_verb_would_do_is_json_when_asked(study, verb):
    assert bedside(verb, "--what-if", "--json", cwd=study).json["would_change"] == 0


def test_a_refusal_by_a_gate_prints_one_document(study, tmp_path):
    for name, labels in (("one", [["background", 0], ["a", 1]]), ("two", [["background", 0], ["b", 1]])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"labels": labels}))
    said = bedside("labels", "one.json", "two.json", "--json", cwd=study)
    assert said.code == 5
    assert said.json["breaks"] is True
    assert "break" in said.err


def test_a_reader_that_goes_away_early_is_no_failure(study):
    command = f"{sys.executable} -m bedside schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=study, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_a_table_whose_reader_goes_away_is_no_failure(study):
    command = f"{sys.executable} -m bedside labels study.yaml | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=study, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (OSError(errno.EROFS, "Read-only file system", "scratch"), 2, "READ_ONLY"),
        (PermissionError(errno.EACCES, "Permission denied", "scratch"), 2, "NO_RIGHT"),
        (OSError(errno.ENOSPC, "No space left"), 6, "DISK_FULL"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_sentence(monkeypatch, capsys, error, code, name):
    def fail() -> None:
        raise error

    ended, out, err = ends(monkeypatch, capsys, fail, "ingest", "--json")
    assert ended == code
    assert json.loads(out)["error"]["code"] == name
    assert "Traceback" not in err
    assert "scratch" not in err
