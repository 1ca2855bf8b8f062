"""Claims about `bedside train`: what goes on, what is refused, how it ends, what it prints."""

import json
import re
import signal
import sys

import pytest

from bedside import cli
from bedside.core.config import load

from ..train.conftest import put_dataset, write_study  # noqa: TID252 - the study that trains in a second


@pytest.fixture
def study(tmp_path):
    folder = write_study(tmp_path / "balls", steps=4, fold=0, validations=1)
    config = load(folder)
    put_dataset(config.workspace, config.study.contract)
    return folder


@pytest.fixture
def train(study, monkeypatch, capsys):
    """Run the verb here; returns exit code, what stdout says as JSON, and stderr."""

    def run(*words: str) -> tuple[int, dict, str]:
        monkeypatch.setattr(sys, "argv", ["bedside", "train", str(study), "--json", *words])
        code = cli.run()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, json.loads(said.out), said.err

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--or-start"], "belongs to --resume"),
        (["--fresh", "--resume"], "give one of them"),
        (["--seeds", "3", "--resume"], "leave --resume out"),
        (["--seeds", "3", "--set", "train.fold=null"], "--set train.fold=0"),
        (["--deterministic", "--set", "train.steps=null", "--set", "train.minutes=1"], "train.steps or train.epochs"),
        (["--resume"], "--or-start"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(train, words, said):
    code, out, err = train(*words)
    assert code == 2
    assert said in out["error"]["sentence"]
    assert said in err


def test_an_array_of_jobs_has_one_for_each_fold_and_seed(train, tmp_path, monkeypatch):
    sbatch = tmp_path / "tools" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    folds = {f"train.fold={fold}" for fold in range(2)}
    seeds = {f"train.seed={seed}" for seed in range(3)}
    for words, expected in (
        (["--seeds", "3"], {(seed,) for seed in seeds}),
        (["--folds", "--seeds", "3"], {(fold, seed) for fold in folds for seed in seeds}),
    ):
        code, said, _ = train("--on", "slurm", "--what-if", *words)
        assert code == 0
        lines = [line for line in said["script"].splitlines() if " --dataset " in line]
        assert {tuple(re.findall(r"train\.(?:fold|seed)=\d", line)) for line in lines} == expected
        assert len(lines) == len(expected)
        assert f"--array=0-{len(expected) - 1}" in said["script"]


def test_resume_or_start_begins_and_a_stopped_training_exits_8_and_goes_on(train, monkeypatch):
    from bedside.train import sitting

    plain = sitting.Learner.step

    def step(self, number, total, batch=None):
        if number == 1:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, number, total, batch)

    with monkeypatch.context() as patch:
        patch.setattr(sitting.Learner, "step", step)
        code, out, _ = train("--resume", "--or-start")
    assert (code, out["error"]["code"]) == (8, "INTERRUPTED")
    code, out, _ = train("--resume")
    assert (code, out["steps"], out["resumed"]) == (0, 4, 1)
    assert set(out["cost"]) >= {"wall_seconds", "cpu_seconds", "data_seconds", "joules", "measured"}


def test_seeds_give_a_spread_as_a_table_and_as_json(train, study, monkeypatch, capsys):
    code, out, _ = train("--seeds", "2", "--deterministic")
    assert code == 0
    assert [one["seed"] for one in out["trainings"]] == [0, 1]
    assert out["noise_floor"] >= 0
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "argv", ["bedside", "train", str(study), "--seeds", "2", "--deterministic"])
    assert cli.run() == 0
    said = capsys.readouterr().out
    assert "noise floor" in said
    assert out["trainings"][1]["model"][:12] in said
