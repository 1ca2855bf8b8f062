"""Claims about kill -9: at whatever moment, nothing but the work since the last checkpoint is lost, and no bit of the result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.core.config import load

from .conftest import put_dataset, write_study

EVERY_STEP = 1e-6
FEW = [["step", 12], ["half", 3], ["call", 9], ["case", 2], ["half", 2], ["step", 2], ["case", 2]]
MANY = [
    *(["step", number] for number in (1, 8, 9, 14, 17, 19, 24)),
    *(["half", number] for number in (1, 2, 5, 11, 14)),
    *(["case", number] for number in (1, 2, 4)),
    *(["call", number] for number in (3, 6, 10, 13, 17, 22, 30, 41, 55, 70, 90)),
]


def killed(tmp_path: Path, lists: list[list[list[object]]], *, minutes: float) -> list[dict]:
    """What `killed.py` reports of lists of points; the first list is empty: nobody is killed."""
    folder = write_study(tmp_path / "study", fold=0, validations=2, checkpoint_minutes=minutes)
    config = load(folder)
    dataset = put_dataset(config.workspace, config.study.contract, cases=5)
    (tmp_path / "copies").mkdir()
    driver = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(driver), str(folder), dataset.digest, str(tmp_path / "copies"), json.dumps([[], *lists])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(lists) + 1
    return reports


def assert_same(reports: list[dict]) -> None:
    whole = reports[0]
    for report in reports[1:]:
        assert all(report["struck"]), report
        assert report["weights"] == whole["weights"], report["points"]
        assert report["curve"] == whole["curve"], report["points"]
        assert report["left_over"] == []


@pytest.mark.slow
def test_seven_kills_in_one_training_lose_at_most_one_interval_each_and_no_bit(tmp_path):
    reports = killed(tmp_path, [FEW], minutes=EVERY_STEP)
    assert_same(reports)
    assert all(lost <= 1 for lost in reports[1]["lost"])


@pytest.mark.slow
def test_a_kill_at_each_of_twenty_six_points_gives_the_weights_of_an_unbroken_run(tmp_path):
    reports = killed(tmp_path, [[point] for point in MANY], minutes=EVERY_STEP)
    assert_same(reports)
    assert all(lost <= 1 for report in reports for lost in report["lost"])


@pytest.mark.slow
def test_a_kill_before_any_checkpoint_begins_again_and_changes_no_bit_either(tmp_path):
    lists = [[["step", 20], ["step", 13], ["case", 3]], [["step", 23], ["half", 1]]]
    assert_same(killed(tmp_path, lists, minutes=5))
