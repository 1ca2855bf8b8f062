"""Claims about the tracker during a training: it sees the numbers, and it can neither slow nor fail what it watches."""

import json
import os
import signal
import time

import pytest
from tests.listening import Heard
from tests.train.conftest import put_dataset, write_study

from bedside.adapters import live as module
from bedside.adapters.live import Tracked, log_lines, metrics_of, tracked
from bedside.adapters.mlflow import MlflowTracker
from bedside.adapters.mlflow import _quiet as quiet
from bedside.core.config import load
from bedside.core.errors import Interrupted, ResourceError
from bedside.core.ports import MemoryTracker
from bedside.core.progress import SILENT, Live
from bedside.mirror import mirror
from bedside.train.pipeline import train

LIVE = Live("train-0", 1.0, 2.0, 0.5, None, 0.1, 0.2, 0.9, 2, 800.0, 900.0, 36.0, measured=False)
OFTEN = 0.0


@pytest.fixture
def config(tmp_path):
    folder = write_study(tmp_path / "balls", steps=40, fold=0, validations=2)
    (folder / "site.yaml").write_text("versioning: off\ntracking: mlflow\nthreads: 1\n")
    found = load(folder)
    put_dataset(found.workspace, found.study.contract)
    return found


def point(training: str, step: int, *, ago: float = 0.0) -> bytes:
    return json.dumps({"training": training, "step": step, "at": time.time() - ago, "metrics": {"live/loss": 0.5}}).encode()


def test_everything_is_passed_on_and_numbers_are_told_every_few_seconds_only():
    told, heard, now = [], Heard(), [0.0]
    listener = Tracked(heard, told.append, every_seconds=5.0, clock=lambda: now[0])
    listener.start("training", 100)
    for step in range(1, 13):
        now[0] = float(step)
        listener.advance(step, LIVE)
    listener.advance(13, "no numbers")
    assert len(heard.said) == 14
    assert [json.loads(line)["step"] for line in told] == [5, 10]
    listener.flush()
    listener.flush()
    assert [json.loads(line)["step"] for line in told] == [5, 10, 12]
    assert max(map(len, told)) < 2048  # a pipe takes up to 4096 bytes at once or not at all


def test_the_tracker_gets_every_number_and_a_score_once_there_is_one():
    found = metrics_of(LIVE)
    assert found["live/utilisation"] == 0.9
    assert found["live/energy_joules"] == 36.0
    assert len(found) == 9
    assert metrics_of(Live(**{**vars(LIVE), "score": 0.8}))["live/validation_dice"] == 0.8


def test_a_tracker_that_is_away_for_a_while_gets_what_comes_later_and_nothing_stale():
    class Away(MemoryTracker):
        def log_live(self, training, *, step, metrics):
            if step == 1:
                raise ResourceError("away")
            super().log_live(training, step=step, metrics=metrics)

        def leave(self, training):
            super().leave(training)
            raise ResourceError("away again")

    tracker = Away()
    log_lines(tracker, iter([point("a", 1), point("a", 2, ago=3600), point("a", 3), point("b", 4)]))
    assert [step for step, _ in tracker.live["a"]] == [3]
    assert tracker.left == ["a", "b"]


def logged_runs(config) -> list:
    """What MLflow has of the study, and the history of the live loss of the first of them."""
    with quiet():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=MlflowTracker("balls", folder=config.workspace.folder).uri)
        found = client.search_runs([client.get_experiment_by_name("balls").experiment_id])
        return [*found, client.get_metric_history(found[0].info.run_id, "live/loss")]


def test_a_training_is_seen_while_it_runs_and_is_one_run_with_what_is_mirrored_afterwards(config):
    with tracked(config, SILENT, every_seconds=OFTEN) as progress:
        run = train(config, load_dataset(config), progress=progress)
    seen, losses = logged_runs(config)
    assert seen.info.status == "KILLED"
    assert seen.info.run_name.startswith("train-")
    assert seen.data.metrics.keys() >= metrics_of(LIVE).keys()
    assert losses[-1].step == 40
    assert mirror(config).failed == ()
    kept, _ = logged_runs(config)
    assert (kept.info.run_id, kept.info.status) == (seen.info.run_id, "FINISHED")
    assert kept.data.tags["model"] == run.model
    assert kept.data.metrics["utilisation"] == pytest.approx(run.record.cost.utilisation(run.record.threads))


def load_dataset(config):
    from bedside.core.dataset import Dataset

    return Dataset(config.workspace.ledger.last("ingested").outputs["dataset"], config.workspace)


def test_a_server_that_is_away_costs_a_training_nothing_and_a_stopped_one_does_not_wait_for_it(config, monkeypatch):
    site = config.site.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    away = type(config)(config.study, site, config.workspace)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    children = kept_children(monkeypatch)
    took = []

    def stopped():
        with tracked(away, SILENT, every_seconds=OFTEN) as progress:
            for step in range(500):
                before = time.perf_counter()
                progress.advance(step, LIVE)
                took.append(time.perf_counter() - before)
            raise Interrupted("stopped")

    began = time.perf_counter()
    with pytest.raises(Interrupted):
        stopped()
    assert time.perf_counter() - began - sum(took) < module.STOPPED_SECONDS + 2
    assert max(took) < 2.0
    (child,) = children
    assert child.wait(60) == 0  # and it ends by itself


@pytest.mark.parametrize("trouble", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_dies_or_hangs_is_not_noticed(config, monkeypatch, trouble):
    children = kept_children(monkeypatch)
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.1)
    with tracked(config, SILENT, every_seconds=OFTEN) as progress:
        progress.advance(1, LIVE)
        (child,) = children
        os.kill(child.pid, trouble)
        began = time.perf_counter()
        for step in range(2000):  # more than a pipe holds
            progress.advance(step, LIVE)
        assert time.perf_counter() - began < 10
    child.kill()
    child.wait()


def test_a_child_that_cannot_be_started_is_not_noticed(config, monkeypatch):
    def no_memory(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(module.subprocess, "Popen", no_memory)
    with tracked(config, SILENT, every_seconds=OFTEN) as progress:
        progress.advance(1, LIVE)
        progress.advance(2, LIVE)


def test_a_training_shorter_than_the_pause_and_a_site_without_tracking_start_no_child(config, monkeypatch):
    children = kept_children(monkeypatch)
    with tracked(config, SILENT) as progress:
        progress.advance(1, LIVE)
    off = type(config)(config.study, config.site.model_copy(update={"tracking": "off"}), config.workspace)
    with tracked(off, SILENT, every_seconds=OFTEN) as progress:
        assert progress is SILENT
    assert children == []


def kept_children(monkeypatch) -> list:
    """Every child that is started, so that a test can wait for its end."""
    plain, children = module.subprocess.Popen, []

    def start(*args, **kwargs):
        children.append(plain(*args, **kwargs))
        return children[-1]

    monkeypatch.setattr(module.subprocess, "Popen", start)
    return children
