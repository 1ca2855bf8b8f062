"""The fakes keep the ports' contracts, so that what passes with a fake is worth something."""

import inspect
from pathlib import Path

import pytest

from bedside.adapters.dask import DaskExecutor
from bedside.adapters.dvc import DvcStore
from bedside.adapters.mlflow import MlflowTracker
from bedside.adapters.processes import LocalProcesses
from bedside.core import ports
from bedside.core.digest import digest_tree
from bedside.core.ports import InlineExecutor, InlineScheduler, MemoryStore, MemoryTracker, StoreOff, TrackerOff
from bedside.core.workspace import Workspace

IMPLEMENTATIONS = [
    (ports.Store, MemoryStore),
    (ports.Store, StoreOff),
    (ports.Store, DvcStore),
    (ports.Tracker, MemoryTracker),
    (ports.Tracker, TrackerOff),
    (ports.Tracker, MlflowTracker),
    (ports.Scheduler, InlineScheduler),
    (ports.Executor, InlineExecutor),
    (ports.Executor, LocalProcesses),
    (ports.Executor, DaskExecutor),
]


@pytest.mark.parametrize(("port", "implementation"), IMPLEMENTATIONS)
def test_every_implementation_has_the_methods_of_its_port_with_the_same_parameters(port: type, implementation: type) -> None:
    methods = [name for name, item in vars(port).items() if inspect.isfunction(item) and not name.startswith("_")]
    assert methods
    for name in methods:
        wanted = inspect.signature(getattr(port, name))
        found = inspect.signature(getattr(implementation, name))
        assert [(p.name, p.kind, p.default) for p in found.parameters.values()] == [
            (p.name, p.kind, p.default) for p in wanted.parameters.values()
        ]


def test_the_fake_store_gives_the_bytes_back(workspace: Workspace) -> None:
    with workspace.staging() as staged:
        (staged / "below").mkdir()
        (staged / "below" / "file").write_bytes(b"\x00\xff")
        digest = workspace.put(staged)
    store = MemoryStore(workspace.store)
    store.push(digest)
    (workspace.store / digest / "below" / "file").unlink()
    store.pull(digest)
    assert digest_tree(workspace.store / digest) == digest


def test_the_fake_tracker_keeps_runs_and_refuses_files_that_are_not_there(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    assert [tracker.log_run("r", parameters={"a": "1"}, metrics={"b": 2}, tags={}) for _ in range(2)] == ["0", "1"]
    assert tracker.runs[1]["parameters"] == {"a": "1"}
    with pytest.raises(FileNotFoundError, match="gone"):
        tracker.log_run("r", parameters={}, metrics={}, tags={}, files=[tmp_path / "gone"])


def test_the_fake_tracker_knows_what_is_under_way_until_it_is_recorded() -> None:
    tracker = MemoryTracker()
    tracker.log_live("t", step=3, metrics={"live/loss": 0.5})
    tracker.leave("t")
    assert (tracker.live, tracker.left) == ({"t": [(3, {"live/loss": 0.5})]}, ["t"])
    tracker.log_run("r", parameters={}, metrics={}, tags={}, training="t")
    assert tracker.live == {}


def test_the_fake_scheduler_runs_then_is_done_and_knows_its_jobs() -> None:
    scheduler = InlineScheduler()
    job = scheduler.submit(["bedside", "train"], name="t")
    assert [scheduler.state(job) for _ in range(3)] == ["running", "done", "done"]
    with pytest.raises(KeyError):
        scheduler.state("another")


def test_the_inline_executor_keeps_the_order() -> None:
    assert list(InlineExecutor().map(lambda x: x * x, range(5))) == [0, 1, 4, 9, 16]
