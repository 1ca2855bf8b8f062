"""Claims about the commands: they run the chain, they say the same to people and programs, and they end as the table says."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import OPEN, QUICK, TINY, bedside

ALL = (*TINY, *QUICK, *OPEN)


@pytest.fixture
def folder(demo, tmp_path) -> Path:
    """A copy of the finished study that a test may change."""
    shutil.copytree(demo[0] / "demo", tmp_path / "demo")
    return tmp_path


def test_the_demo_ends_promoted_exported_and_verified(demo):
    said = demo[1]
    assert said.code == 0, said.err
    result = said.json
    assert result["promoted"] is True
    assert result["verify"].endswith("chain intact")
    assert Path(demo[0], result["report"]).read_text().startswith("<!DOCTYPE html>")
    assert {stage["name"] for stage in result["acceleration"]["stages"]} == {"torch-bf16", "onnxruntime-fp32"}


@pytest.mark.slow
def test_the_demo_again_in_the_same_folder_trains_nothing_anew(demo, folder):
    said = bedside("demo", "--patients", "12", "--json", cwd=folder, sets=ALL)
    assert said.code == 0, said.err
    assert said.json["run"] == demo[1].json["run"]


def test_what_if_of_every_verb_says_something_and_writes_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "demo").rglob("*")}
    scans = next((folder / "demo" / "scratch").glob("cohort-*"))
    for words in (
        ("ingest", "demo", "--from", str(scans)),
        ("train", "demo"),
        ("evaluate", "demo"),
        ("promote", "demo"),
        ("accelerate", "demo"),
        ("verify", "demo"),
        ("runs", "demo"),
    ):
        said = bedside(*words, "--what-if", cwd=folder, sets=ALL)
        assert said.code == 0, (words, said.err)
        assert said.out.strip()
    for words in (("demo", "--what-if"), ("schema", "--what-if")):
        assert bedside(*words, cwd=folder).code == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "demo").rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {p: t for p, t in before.items() if p.is_file()}


def test_each_verb_by_itself_says_the_same_as_the_demo(folder, demo):
    train = bedside("train", "demo", "--json", cwd=folder, sets=ALL)
    assert train.json["model"] == demo[1].json["model"]
    evaluated = bedside("evaluate", "demo", "--json", cwd=folder, sets=ALL)
    assert evaluated.json["summaries"]["dice"]["mean"]["mean"] == pytest.approx(demo[1].json["dice"]["mean"])
    promoted = bedside("promote", "demo", "--json", cwd=folder, sets=ALL)
    assert promoted.json["already"] is True
    verified = bedside("verify", "demo", "--model", "latest", "--json", cwd=folder, sets=ALL)
    assert verified.code == 0
    assert len(verified.json["scans"]) == 24  # twelve series and twelve masks
    assert "in production" in bedside("runs", "demo", cwd=folder, sets=ALL).out


def test_a_refused_promotion_exits_5_and_stands_in_the_ledger(folder):
    strict = ("promote.gates=[{name: absolute, metric: dice, label: mean, floor: 0.99}, {name: provenance}]",)
    trained = bedside("train", "demo", "--json", cwd=folder, sets=(*TINY, *QUICK, *strict, "train.seed=5"))
    assert trained.code == 0, trained.err
    assert bedside("evaluate", "demo", cwd=folder, sets=(*TINY, *QUICK, *strict, "train.seed=5")).code == 0
    said = bedside("promote", "demo", cwd=folder, sets=(*TINY, *QUICK, *strict, "train.seed=5"))
    assert said.code == 5
    assert "refused by absolute" in said.err
    assert "REFUSED" in said.out
    last = json.loads((folder / "demo" / "ledger.jsonl").read_text().splitlines()[-1])
    assert last["action"] == "promotion_refused"
    assert [verdict["passed"] for verdict in last["facts"]["verdicts"]] == [False, True]


@pytest.mark.slow
def test_who_was_in_production_when_and_back(folder):
    second = (*ALL, "train.seed=9")
    for verb in ("train", "evaluate", "promote"):
        said = bedside(verb, "demo", cwd=folder, sets=second)
        assert said.code == 0, said.err
    first = json.loads((folder / "demo" / "ledger.jsonl").read_text().splitlines()[0])["time"]
    assert bedside("runs", "demo", "--production-at", first, "--json", cwd=folder).json["model"] is None
    now = bedside("runs", "demo", "--production-at", "2999-01-01", "--json", cwd=folder).json["model"]
    back = bedside("promote", "demo", "--rollback", "--reason", "test", "--json", cwd=folder).json
    assert back["inputs"]["replaced"] == now
    again = bedside("runs", "demo", "--production-at", "2999-01-01", "--json", cwd=folder).json["model"]
    assert again == back["inputs"]["model"] != now
    said = bedside("promote", "demo", "--rollback", cwd=folder)
    assert said.code == 2
    assert "nothing to roll back to" in said.err


def test_changed_bytes_under_a_known_digest_exit_4_and_name_the_value(folder, demo):
    weights = folder / "demo" / "store" / demo[1].json["model"] / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(data))
    for verb in ("verify", "evaluate", "accelerate"):
        said = bedside(verb, "demo", "--json", cwd=folder, sets=ALL)
        assert said.code == 4, (verb, said.err)
        assert said.json["error"]["code"] == "CHANGED"
        assert demo[1].json["model"][:12] in said.err


def test_an_edited_ledger_exits_4_and_names_the_line(folder):
    path = folder / "demo" / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace('"actor":"', '"actor":"x')
    path.write_text("".join(lines))
    said = bedside("verify", "demo", cwd=folder)
    assert said.code == 4
    assert "line 5" in said.err


def test_a_cut_tail_is_seen_with_the_head_that_was_written_down(folder):
    head = bedside("verify", "demo", "--json", cwd=folder).json["chain"]["head"]
    path = folder / "demo" / "ledger.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert bedside("verify", "demo", cwd=folder).code == 0
    said = bedside("verify", "demo", "--head", head, cwd=folder)
    assert said.code == 4
    assert "tail was cut" in said.err


def test_every_mistake_in_a_study_is_named_with_its_line(folder):
    study = folder / "demo" / "study.yaml"
    study.write_text(study.read_text().replace("batch: 2", "batsch: 2").replace("modality: CT", "modality: XX"))
    said = bedside("train", "demo", "--json", cwd=folder)
    assert said.code == 2
    assert len(said.json["error"]["problems"]) == 2
    assert all(problem["line"] > 1 for problem in said.json["error"]["problems"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ingest", "demo"), "--from FOLDER"),
        (("ingest", "demo", "--from", "nowhere"), "no such folder of scans"),
        (("evaluate", "demo", "--split", "tset"), "no split"),
        (("evaluate", "demo", "--model", "beef"), "beef"),
        (("verify", "demo", "--model", "xyz"), "hexadecimal"),
        (("runs", "demo", "--production-at", "yesterday"), "ISO 8601"),
        (("train", "demo", "--set", "train.batch=0"), "train.batch"),
        (("train", "demo", "--set", "train"), "section.key=value"),
        (("demo", "--folder", "other"), "another study"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(folder, words, sentence):
    (folder / "other").mkdir()
    (folder / "other" / "study.yaml").write_text("study: other\n")
    said = bedside(*words, cwd=folder)
    assert said.code == 2, said.err
    assert sentence in said.err.replace("\n", " ")
    assert said.out == ""


def start(folder: Path, *words: str, sets: tuple[str, ...]) -> subprocess.Popen:
    changes = [word for change in sets for word in ("--set", change)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bedside", *words, *changes],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("how", "after"), [(signal.SIGUSR1, 0.0), (signal.SIGTERM, 0.4), (signal.SIGUSR1, 1.2)])
def test_a_signal_that_comes_while_a_command_starts_ends_it(folder, how, after):
    process = start(folder, "train", "demo", sets=(*ALL, "train.steps=100000", "train.seed=8"))
    status = Path(f"/proc/{process.pid}/status")
    while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (how - 1) & 1:
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(after)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 8, err
    assert "Traceback" not in err


def wait_for(pattern: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how", [*(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL]
)
def test_training_that_is_stopped_goes_on_by_itself(folder, how):
    long = (*ALL, "train.steps=60", "train.seed=3", "train.checkpoint_minutes=0.002")
    process = start(folder, "train", "demo", sets=long)
    wait_for("demo/scratch/train-*/checkpoint-*", folder)
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    assert process.returncode == (-9 if how == signal.SIGKILL else 8), err
    assert "Traceback" not in err
    planned = bedside("train", "demo", "--what-if", "--json", cwd=folder, sets=long).json
    assert planned["resumes_at_step"] > 0
    done = bedside("train", "demo", "--json", cwd=folder, sets=long)
    assert done.code == 0, done.err
    assert done.json["resumed"] == 1
    assert done.json["steps"] == 60


def test_a_full_disk_exits_6_and_leaves_the_study_as_it_was(folder):
    before = (folder / "demo" / "ledger.jsonl").read_bytes()
    limited = lambda: (  # noqa: E731 - runs in the child, between fork and exec
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    command = [sys.executable, "-m", "bedside", "train", "demo"]
    for change in (*ALL, "train.seed=4"):
        command += ["--set", change]
    done = subprocess.run(
        command, cwd=folder, preexec_fn=limited, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 6, done.stderr
    assert "disk is full" in done.stderr
    assert (folder / "demo" / "ledger.jsonl").read_bytes() == before
    assert bedside("verify", "demo", cwd=folder).code == 0


def test_schema_names_every_part(tmp_path):
    text = bedside("schema", cwd=tmp_path).out
    for name in (
        "segmentation",
        "dynunet",
        "unet",
        "onnxruntime",
        "torch",
        "provenance",
        "non_inferiority",
        "absolute",
        "latency",
        "superiority",
    ):
        assert f'"{name}"' in text
    assert "versioning" in bedside("schema", "--site", cwd=tmp_path).out
