"""One word in site.yaml turns an outside system off."""

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bedside.adapters.dvc import DvcStore
from bedside.adapters.mlflow import MlflowTracker
from bedside.adapters.processes import LocalProcesses
from bedside.adapters.site import executor_for, store_for, tracker_for
from bedside.core.config import Config
from bedside.core.ports import InlineExecutor, Lost, StoreOff, TrackerOff
from bedside.core.site import Site
from bedside.core.workspace import Workspace


def config(folder: Path, site: Site) -> Config:
    return cast("Config", SimpleNamespace(study=SimpleNamespace(study="hip-ct"), site=site, workspace=Workspace(folder)))


def test_both_are_on_unless_told_otherwise(tmp_path: Path) -> None:
    found = config(tmp_path, Site())
    assert isinstance(store_for(found), DvcStore)
    tracker = tracker_for(found)
    assert isinstance(tracker, MlflowTracker)
    assert tracker.uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert tracker.experiment == "hip-ct"


def test_off_is_off_and_touches_nothing(tmp_path: Path) -> None:
    found = config(tmp_path, Site(versioning="off", tracking="off"))
    store, tracker = store_for(found), tracker_for(found)
    assert isinstance(store, StoreOff)
    assert isinstance(tracker, TrackerOff)
    store.push("a" * 64)
    assert tracker.log_run("run", parameters={}, metrics={}, tags={}) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("site", "kind"), [(Site(), LocalProcesses), (Site(executor="inline"), InlineExecutor)])
def test_one_word_says_where_the_work_is_done(tmp_path: Path, site: Site, kind: type) -> None:
    with executor_for(config(tmp_path, site)) as executor:
        assert isinstance(executor, kind)
        assert list(executor.map(math.sqrt, [4, 9])) == [2, 3]


def test_the_site_s_ceilings_reach_the_workers(tmp_path: Path) -> None:
    with executor_for(config(tmp_path, Site(processes=1, worker_memory_gb=0.25, worker_seconds=0.2))) as executor:
        assert list(executor.map(bytes, [1 << 29, 1])) == [Lost("memory"), b"\0"]
        assert list(executor.map(time.sleep, [5, 0])) == [Lost("time"), None]
