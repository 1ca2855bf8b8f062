"""Claims about the loader: the same bytes however many make them, and nothing that hangs or dies goes unsaid."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bedside.core.config import Augmentation
from bedside.core.errors import ResourceError
from bedside.data.loader import Loader, NoBatchError, Recipe
from bedside.data.patches import PatchSampler, find_foreground, open_example
from bedside.train.watchdog import report_of, stalled, watched


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        folder = tmp_path / name
        folder.mkdir()
        label = np.zeros((20, 18, 16), np.uint8)
        label[4:11, 5:12, 3:13] = 1
        np.save(folder / "image.npy", (rng.normal(size=(1, 20, 18, 16)) + 3 * label).astype(np.float32))
        np.save(folder / "label.npy", label)
        np.save(folder / "foreground.npy", find_foreground(label))
    examples = [open_example(tmp_path / name) for name in ("a", "b", "c")]
    return Recipe(PatchSampler(examples, (16, 16, 16), 2, 0.5, 7), Augmentation(blur=1.0, probability=1.0))


@pytest.fixture
def crew(recipe):
    """A loader with two workers."""
    loader = Loader(recipe, workers=2, seconds=60)
    yield loader
    loader.close()


def assert_same(found, expected) -> None:
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)


def take_all(loader, steps) -> None:
    for step in steps:
        loader.take(step)


def wait_for(condition, seconds=30.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_workers_ignore_stop_signals_survive_replacement_and_give_the_bytes_of_this_process(recipe, crew):
    alone = Loader(recipe)
    assert_same(crew.take(0), alone.take(0))
    for state in crew.states():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(state.pid, number)
    for step in range(1, 5):
        assert_same(crew.take(step), alone.take(step))
    assert not crew.replaced
    victim = crew.states()[1]
    os.kill(victim.pid, signal.SIGKILL)
    for step in range(5, 25):  # some may lie ready in the pipe of the one that died
        assert_same(crew.take(step), alone.take(step))
    assert [(state.pid, state.exit) for state in crew.replaced] == [(victim.pid, -signal.SIGKILL)]
    assert "killed by SIGKILL" in str(crew.replaced[0])
    assert_same(crew.take(40), alone.take(40))  # further on, as after a return to an earlier state
    assert all(state.exit is None and state.resident_mb > 50 for state in crew.states())


def test_a_worker_that_hangs_is_an_error_with_stacks_exit_states_and_memory(recipe, tmp_path):
    crew = Loader(recipe, workers=1, seconds=60)
    crew.take(0)
    worker = crew._crew[0]
    wait_for(worker.connection.poll)
    os.mkfifo(tmp_path / "pipe")  # opening it waits for a writer that never comes
    for name in ("a", "b", "c"):
        (tmp_path / name / "image.npy").unlink()
        (tmp_path / name / "image.npy").symlink_to(tmp_path / "pipe")
    crew.take(1)
    crew.seconds = 0.4
    with pytest.raises(NoBatchError) as caught:
        take_all(crew, range(2, 9))
    error = stalled(caught.value, crew, folder=tmp_path, step=3)
    crew.close()
    assert (error.exit_code, error.code) == (6, "STALLED")
    assert str(worker.process.pid) in error.sentence
    assert "running" in error.sentence
    report = (tmp_path / "stalled.txt").read_text()
    assert [report] == error.__notes__
    assert "open_example" in report  # where the worker hangs
    assert "_receive" in report  # where this process waits


def test_two_workers_that_die_over_one_batch_end_the_training(recipe):
    crew = Loader(recipe, workers=1, seconds=60)
    crew._crew[0].ask(0)
    for _ in range(2):
        os.kill(crew.states()[0].pid, signal.SIGKILL)
        if not crew.replaced:
            crew._replace(0)
    with pytest.raises(ResourceError, match=r"step 0 .*killed by SIGKILL.*site\.loader_workers") as caught:
        crew.take(0)
    crew.close()
    assert caught.value.code == "WORKER"


def test_workers_end_with_a_parent_that_is_killed(recipe, tmp_path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from bedside.data.loader import Loader, Recipe\n"
        "loader = Loader(Recipe.heard(sys.stdin.buffer.read()), workers=1)\n"
        "print(loader.states()[0].pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parent.stdin.write(recipe.told())
    parent.stdin.close()
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or ") Z " in Path(f"/proc/{worker}/stat").read_text())


def test_a_recipe_of_cases_in_memory_has_no_workers(recipe):
    sampler = PatchSampler([recipe.sampler.examples[0].__class__(*[None] * 3)], (16, 16, 16), 2, 0.5, 7)
    with pytest.raises(ValueError, match="from disk"):
        Loader(Recipe(sampler, Augmentation()), workers=1)


def test_what_hangs_in_this_process_is_interrupted_where_it_hangs():
    with pytest.raises(NoBatchError, match=r"time\.sleep\(20\)"), watched(0.08):
        time.sleep(20)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    with watched(0.08):
        pass
    time.sleep(0.1)  # nothing comes later


def test_the_report_names_the_threads_of_this_process(recipe):
    import threading

    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="a reader")
    thread.start()
    try:
        assert "thread a reader" in report_of(NoBatchError("here"), ())
    finally:
        over.set()
        thread.join()
