"""One word in site.yaml turns an outside system off."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from bedside.adapters.dvc import DvcStore
from bedside.adapters.mlflow import MlflowTracker
from bedside.adapters.site import store_for, tracker_for
from bedside.core.config import Config, Site
from bedside.core.ports import StoreOff, TrackerOff
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
