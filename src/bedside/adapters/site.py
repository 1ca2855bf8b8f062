"""Which outside systems a site uses: one word each in `site.yaml`."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bedside.core.config import Config
from bedside.core.errors import UsageError
from bedside.core.ports import Executor, InlineExecutor, Store, StoreOff, Tracker, TrackerOff
from bedside.core.site import Site


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
    return tracker_of(config.study.study, config.workspace.folder, config.site.tracking_uri)


def tracker_of(experiment: str, folder: Path | str, uri: str | None) -> Tracker:
    """Return the same for a site without a study: MLflow, at `uri` or in the study folder."""
    from bedside.adapters.mlflow import MlflowTracker

    return MlflowTracker(experiment, folder=Path(folder), uri=uri)


def executor_for(config: Config, *, modules: Sequence[str] = ()) -> AbstractContextManager[Executor]:
    """Return where work is done, as `site.executor` says; to be entered with `with`.

    Args:
        config: the site.
        modules: where the functions are that will be mapped, for processes that are started ahead of the work.
    """
    return executor_of(config.site, modules=modules)


def executor_of(site: Site, *, modules: Sequence[str] = ()) -> AbstractContextManager[Executor]:
    """Return the same for a site without a study; `Site()` gives limited processes of this machine."""
    if site.executor == "inline":
        return nullcontext(InlineExecutor())
    workers = site.processes or len(os.sched_getaffinity(0))
    if site.executor == "processes":
        from bedside.adapters.processes import LocalProcesses

        return LocalProcesses(workers, memory_gb=site.worker_memory_gb, seconds=site.worker_seconds, modules=modules)
    try:
        from bedside.adapters.dask import DaskExecutor, Limits, slurm
    except ModuleNotFoundError as error:
        raise UsageError(
            "A Dask cluster needs the packages distributed and dask-jobqueue; install bedside[dask].", code="NO_DASK"
        ) from error
    limits = Limits(site.worker_memory_gb, site.worker_seconds)
    return slurm(workers, limits) if site.executor == "slurm" else DaskExecutor(site.executor, limits=limits)
