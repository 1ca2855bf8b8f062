"""A worker may die, swell, hang or lie; only its own item is lost, in its own place, and nothing is left behind."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bedside.adapters import processes
from bedside.adapters.processes import LocalProcesses
from bedside.core.errors import ConfigError, InputRejected, ResourceError
from bedside.core.ports import Lost

from . import work

DEATHS = {"segfault": "died", "exit": "died", "killed": "died", "memory": "memory", "spin": "time", "sleep": "time"}


@pytest.fixture(autouse=True)
def _importable(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository))


@pytest.fixture
def executor():
    with LocalProcesses(2, memory_gb=1, seconds=60) as entered:  # more than a busy machine lets an item wait
        yield entered


@pytest.fixture
def hasty():
    with LocalProcesses(2, memory_gb=1, seconds=1) as entered:
        yield entered


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids, *, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(map(alive, pids)):
        time.sleep(0.01)
    return not any(map(alive, pids))


def test_results_come_in_the_order_of_the_items(executor):
    assert list(executor.map(work.square, range(1000))) == [number * number for number in range(1000)]
    assert list(executor.map(work.slowest_first, range(20))) == list(range(20))
    assert list(executor.map(work.square, [])) == []


def test_the_work_is_done_elsewhere_by_as_many_as_were_asked_for(executor):
    pids = set(executor.map(work.who, range(200)))
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert set(executor.map(work.who, range(200))) == pids


@pytest.mark.parametrize(("how", "why"), DEATHS.items())
def test_a_lost_worker_costs_its_own_item_only(request, how, why):
    executor = request.getfixturevalue("hasty" if why == "time" else "executor")
    items = [*range(40), how, *range(40, 80)]
    assert list(executor.map(work.misbehave, items)) == [Lost(why) if item == how else item for item in items]


def test_many_losses_in_a_row_are_each_named_and_replaced(executor):
    items = list(itertools.islice(itertools.cycle(["segfault", 1, "exit", 2, 3, "memory"]), 60))
    expected = [item if isinstance(item, int) else Lost(DEATHS[item]) for item in items]
    assert list(executor.map(work.misbehave, items)) == expected


def test_an_item_is_not_lost_for_what_came_before_it_in_its_worker():
    with LocalProcesses(1, memory_gb=0.5, seconds=10) as executor:
        assert list(executor.map(work.misbehave, ["leak"] * 6)) == ["leak"] * 6


def test_a_refusal_is_raised_here_with_its_code_and_sentence(executor):
    running = executor.map(work.refuse, range(10))
    assert [next(running) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputRejected, match="The slice is odd") as caught:
        next(running)
    assert caught.value.code == "ODD"
    assert list(executor.map(work.square, range(4))) == [0, 1, 4, 9]


def test_problems_of_a_configuration_survive_the_way(executor):
    with pytest.raises(ConfigError, match=r"2 problems in the configuration:\n  study.yaml:3: train: unknown key") as caught:
        list(executor.map(work.refuse_configuration, [0]))
    assert caught.value.problems[1].line == 4


@pytest.mark.parametrize(("kind", "error"), [("plain", KeyError), ("lambda", RuntimeError), ("unsendable", RuntimeError)])
def test_a_defect_is_raised_as_what_it_is_with_the_worker_s_traceback(executor, kind, error):
    with pytest.raises(error) as caught:
        list(executor.map(work.defect, [kind]))
    assert "in a worker" in caught.value.__notes__[0]


def test_only_a_few_items_are_ahead_of_a_slow_consumer(executor, tmp_path):
    running = executor.map(partial(work.touch_and_double, str(tmp_path)), range(5000))
    assert [next(running) for _ in range(3)] == [0, 2, 4]
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) <= 2 * processes._AHEAD_PER_WORKER + 3


def test_large_answers_do_not_pile_up(executor):
    taken = []
    items = (taken.append(number) or number for number in range(60))
    running = executor.map(work.volume, items)
    next(running)
    assert len(taken) * (4 << 20) < 3 * processes._WAITING_BYTES
    assert [int(array[-1]) for array in running] == list(range(1, 60))


def test_large_items_reach_the_worker(executor):
    items = [np.full(1 << 20, number, np.uint8) for number in range(8)]
    assert [int(total) for total in executor.map(np.sum, items)] == [number << 20 for number in range(8)]


def test_tiny_items_pass_at_5000_a_second(executor):
    list(executor.map(work.square, range(100)))
    began = time.thread_time()
    count = sum(1 for _ in executor.map(work.square, range(10_000)))
    assert count / (time.thread_time() - began) > 5000  # of the parent's own time: the machine may be shared


def test_a_worker_has_its_ceilings(executor):
    (core,) = executor.map(resource.getrlimit, [resource.RLIMIT_CORE])
    (space,) = executor.map(resource.getrlimit, [resource.RLIMIT_AS])
    assert core == (0, 0)
    assert 1 << 30 < space[0] == space[1] < 3 << 30


def test_what_workers_print_goes_nowhere(executor, capfd):
    assert list(executor.map(work.chatter, range(4))) == [0, 1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_a_map_that_is_left_early_leaves_the_executor_usable(executor):
    running = executor.map(work.misbehave, [1, 2, *["sleep"] * 10])
    assert next(running) == 1
    with pytest.raises(RuntimeError, match="finish one map"):
        next(executor.map(work.square, [1]))
    running.close()
    assert list(executor.map(work.square, [5])) == [25]


def test_a_source_of_items_that_fails_fails_the_map(executor):
    def items():
        yield 1
        raise OSError("the folder is gone")

    with pytest.raises(OSError, match="the folder is gone"):
        list(executor.map(work.square, items()))
    assert list(executor.map(work.square, [5])) == [25]


def test_no_worker_is_left_after_the_end_not_even_a_zombie():
    with LocalProcesses(2, memory_gb=1, seconds=60) as executor:
        list(executor.map(work.misbehave, [1, "segfault", 2]))
        running = executor.map(time.sleep, [0, 60, 60])
        next(running)
        nursery = executor._nursery._process
        pids = [nursery.pid, *(worker.pid for worker in executor.crew)]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert nursery.returncode is not None


@pytest.mark.parametrize("how", ["started", "forked"])
@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_killed_parent(signalled, how):
    driver = Path(__file__).with_name("parent.py")
    with subprocess.Popen([sys.executable, str(driver), how], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.send_signal(signalled)
        rest = parent.stdout.read()
    assert gone(pids)
    assert (parent.returncode, rest) == ((8, "interrupted\n") if signalled == signal.SIGINT else (-signalled, ""))


def test_a_killed_nursery_is_a_want_of_resources_not_a_hang(executor):
    running = executor.map(time.sleep, [0.0, 0.3, 0.3])
    next(running)
    os.kill(executor._nursery._process.pid, signal.SIGKILL)
    with pytest.raises(ResourceError) as caught:
        list(running)
    assert caught.value.code == "NO_PROCESS"


def test_a_function_that_a_worker_cannot_find_is_said_at_once(executor, monkeypatch):
    monkeypatch.setattr(work.square, "__module__", "__main__")
    with pytest.raises(ValueError, match="put it into a module"):
        list(executor.map(work.square, [1]))
    monkeypatch.setattr(work.square, "__module__", "nowhere.at_all")
    with pytest.raises(ImportError, match=r"nowhere"):
        list(executor.map(work.square, [1]))


def test_an_executor_that_was_not_entered_or_has_no_workers_is_a_defect():
    with pytest.raises(RuntimeError, match="with `with`"):
        list(LocalProcesses(1, memory_gb=1, seconds=1).map(work.square, [1]))
    with pytest.raises(ValueError, match="at least one"):
        LocalProcesses(0, memory_gb=1, seconds=1)


def test_modules_that_are_named_before_are_there_for_the_first_worker_and_none_is_started_twice(tmp_path):
    with LocalProcesses(1, memory_gb=1, seconds=60, modules=("tests.adapters.work",)) as executor:
        first = list(executor.map(work.who, range(2)))
        assert list(executor.map(partial(work.touch_and_double, tmp_path), [4])) == [8]
        assert list(executor.map(work.who, [0])) == first[:1]


def test_a_module_that_cannot_be_imported_is_said_when_work_comes():
    with LocalProcesses(1, memory_gb=1, seconds=60, modules=("tests.adapters.there_is_none",)) as executor:
        with pytest.raises(ResourceError) as caught:
            list(executor.map(work.square, [1]))
        assert caught.value.code == "NO_PROCESS"


def test_a_worker_that_dies_while_it_sends_a_long_answer_is_replaced():
    with LocalProcesses(1, memory_gb=1, seconds=20) as executor:
        answers = executor.map(work.long_answer_cut_short, ["quick"] * 20 + ["long"])
        first = [next(answers) for _ in range(10)]
        time.sleep(1)  # nobody reads: the worker fills its socket with the long answer, and is killed there
        rest = [one if isinstance(one, str) else len(one) for one in answers]  # a fresh worker tried it again, and was heard
        assert [*first, *rest] == ["quick"] * 20 + [8 << 20]
