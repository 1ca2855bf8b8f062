"""Which outside systems a site uses: one word each in `site.yaml`."""

from bedside.core.config import Config
from bedside.core.ports import Store, StoreOff, Tracker, TrackerOff


def store_for(config: Config) -> Store:
    """Return what moves stored values: DVC, or nothing with `versioning: off`."""
    if config.site.versioning == "off":
        return StoreOff()
    from bedside.adapters.dvc import DvcStore

    return DvcStore(config.workspace, config.site.remote)


def tracker_for(config: Config) -> Tracker:
    """Return what mirrors runs: MLflow, or nothing with `tracking: off`."""
    if config.site.tracking == "off":
        return TrackerOff()
    from bedside.adapters.mlflow import MlflowTracker

    return MlflowTracker(config.study.study, folder=config.workspace.folder, uri=config.site.tracking_uri)
