"""Claims about a fork of the program that workers come from: as limited as ever, and free of what the program holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    driver = Path(__file__).with_name("forking.py")
    folder = tmp_path_factory.mktemp("forking")
    done = subprocess.run([sys.executable, str(driver), str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_first_executor_gets_the_fork_and_the_next_one_a_fresh_interpreter(said):
    assert said["forked"] == [True, False]
    assert said["parent"] == [True]
    assert said["next is started"] is True
    assert said["next works"] == [9]


def test_a_crash_a_bomb_and_an_endless_loop_cost_one_item_each(said):
    assert said["answers"] == ["1", "Lost(why='died')", "Lost(why='memory')", "Lost(why='time')", "2"]


def test_its_workers_keep_the_ceiling_of_memory_and_leave_no_core(said):
    ((core, address_space_gb),) = said["limits"]
    assert core == 0
    assert 1 < address_space_gb < 16


def test_files_and_locks_of_the_program_are_not_held_by_its_workers(said):
    assert said["lock is free"] == [True]
    (files,) = said["open files"]
    assert not [name for name in files if "held" in name]
    assert files[:3] == ["/dev/null"] * 3


def test_it_learns_other_modules_and_ends_with_its_executor(said):
    assert said["learned"] == ["b"]
    assert said["gone"] is True


def test_nothing_is_forked_beside_a_running_thread(said):
    assert said["forked beside a thread"] is False
