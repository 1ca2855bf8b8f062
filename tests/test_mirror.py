"""Claims about the mirror: it copies, it catches up, and it never fails what is done."""

import shutil
from importlib import import_module

import pytest

from bedside.core.config import Evaluate, load
from bedside.core.dataset import Dataset
from bedside.core.errors import ResourceError
from bedside.core.model import Model
from bedside.core.ports import MemoryStore, MemoryTracker
from bedside.core.run import Run
from bedside.evaluate.pipeline import evaluate
from bedside.evaluate.report import write_report
from bedside.mirror import flat, mirror
from bedside.train.pipeline import train

from .train.conftest import put_dataset, write_study

MODULE = import_module("bedside.mirror")  # `bedside.mirror` itself is the function


@pytest.fixture
def config(tmp_path):
    config = load(write_study(tmp_path / "balls", steps=2))
    shutil.rmtree(config.workspace.folder / "scratch", ignore_errors=True)
    (config.workspace.folder / "site.yaml").write_text("versioning: dvc\ntracking: mlflow\nthreads: 1\n")
    config = load(config.workspace.folder)
    train(config, put_dataset(config.workspace, config.study.contract))
    return config


def test_every_stored_value_is_pushed_once_and_every_run_is_logged(config, monkeypatch):
    store, tracker = MemoryStore(config.workspace.store), MemoryTracker()
    monkeypatch.setattr(MODULE, "store_for", lambda _: store)
    monkeypatch.setattr(MODULE, "tracker_for", lambda _: tracker)
    first = mirror(config)
    assert (first.pushed, first.logged, first.failed) == (3, 1, ())
    assert set(store.remote) == set(config.workspace.digests())
    tags = tracker.runs[0]["tags"]
    event = config.workspace.ledger.last("trained")
    assert tags["dataset"] == event.inputs["dataset"]
    assert tags["environment"] == event.facts["environment"]
    assert tags["commit"] == event.facts["commit"]
    assert tracker.runs[0]["parameters"]["network.features"] == "4"
    run = Run(event.outputs["run"], event.outputs["model"], config.workspace).record
    assert tracker.runs[0]["metrics"]["utilisation"] == run.cost.utilisation(run.threads) > 0
    assert tags["energy"] in {"measured", "estimate"}
    assert mirror(config).pushed == 0


def test_a_remote_that_is_down_is_said_and_tried_again(config, monkeypatch):
    class Down(MemoryStore):
        def push_all(self, digests):
            raise ResourceError("The remote does not answer.")

    tracker = MemoryTracker()
    monkeypatch.setattr(MODULE, "tracker_for", lambda _: tracker)
    monkeypatch.setattr(MODULE, "store_for", lambda _: Down(config.workspace.store))
    assert mirror(config).failed == ("The remote does not answer.",)
    store = MemoryStore(config.workspace.store)
    monkeypatch.setattr(MODULE, "store_for", lambda _: store)
    assert mirror(config).pushed == 3


def test_a_tree_becomes_dotted_names():
    assert flat({"a": {"b": [1, 2]}, "c": [{"d": None}]}) == {"a.b": "[1, 2]", "c.0.d": "None"}


def test_an_evaluation_is_logged_with_the_commit_of_its_own_model(config, monkeypatch):
    tracker = MemoryTracker()
    monkeypatch.setattr(MODULE, "store_for", lambda _: MemoryStore(config.workspace.store))
    monkeypatch.setattr(MODULE, "tracker_for", lambda _: tracker)
    event = config.workspace.ledger.last("trained")
    dataset = Dataset(event.inputs["dataset"], config.workspace)
    evidence = evaluate(Model(event.outputs["model"], config.workspace), dataset.cases("test"), settings=Evaluate(resamples=100))
    report = write_report(evidence, config.workspace)
    other = {**event.facts, "commit": "another", "key": "another"}
    config.workspace.ledger.append("trained", outputs={"run": event.outputs["run"], "model": "e" * 64}, facts=other)
    monkeypatch.setattr(MODULE, "_log_training", lambda *_: None)
    monkeypatch.setattr(MemoryStore, "push_all", lambda *_: None)
    assert mirror(config).failed == ()
    (logged,) = tracker.runs
    assert logged["tags"]["commit"] == event.facts["commit"]
    assert report in logged["files"]
    assert logged["metrics"]["test.dice.mean"] == pytest.approx(evidence.summaries["dice"]["mean"].mean)


def test_the_ledger_notes_once_under_which_name_the_store_knows_a_dataset(config, monkeypatch):
    store = MemoryStore(config.workspace.store)
    monkeypatch.setattr(MODULE, "store_for", lambda _: store)
    monkeypatch.setattr(MODULE, "tracker_for", lambda _: MemoryTracker())
    dataset = config.workspace.ledger.last("trained").inputs["dataset"]
    config.workspace.ledger.append("ingested", outputs={"dataset": dataset})
    assert mirror(config).failed == ()
    config.workspace.ledger.append("ingested", outputs={"dataset": dataset})
    assert mirror(config).failed == ()
    noted = [event for event in config.workspace.ledger.events() if event.action == "versioned"]
    assert [(event.inputs, event.facts) for event in noted] == [({"dataset": dataset}, {"revision": store.revision(dataset)})]
