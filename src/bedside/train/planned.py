"""The plan of a training, made once and kept beside its checkpoints, so that going on elsewhere changes nothing."""

from pathlib import Path
from typing import cast

from pydantic import ValidationError

from bedside.adapters.machine import machine
from bedside.core.config import Config
from bedside.core.dataset import CaseSequence, Dataset
from bedside.core.digest import canonical_json
from bedside.core.errors import UsageError
from bedside.core.files import write_atomic
from bedside.core.plan import Machine, Plan
from bedside.core.progress import SILENT, Progress
from bedside.core.task import Task
from bedside.train.company import processes_here, slurm_ranks
from bedside.train.device import loaders_of, machine_for
from bedside.train.fingerprint import fingerprint
from bedside.train.plan import ceiling_mb, make_plan

KEPT_AS = "plan.json"


def fresh_plan(config: Config, dataset: Dataset, *, progress: Progress = SILENT, keep: bool = True) -> Plan:
    """Make the plan of a training for this machine; what was measured of the data is kept in scratch, unless not to `keep`.

    Raises:
        UsageError: the study's patch does not fit its network, or no case is there to learn from.
        UsageError: DEVICE: the site wants an accelerator that is not there.
        ResourceError: PLAN_MEMORY, when nothing that the study leaves open fits.
    """
    here = machine_here(config)
    task = cast("Task", config.study.task)
    data = fingerprint(dataset, learned_from(config, dataset), task=task, progress=progress, keep=keep)
    return make_plan(config.study, data, here, processes=max(processes_here(config.site), slurm_ranks()[1]))


def machine_here(config: Config) -> Machine:
    """What one process of a training may use here.

    Raises:
        UsageError: DEVICE: the site wants an accelerator that is not there, or more than there are.
    """
    processes = processes_here(config.site)
    here = machine_for(config.site, machine(), processes=processes)
    if config.site.threads:
        here = here.model_copy(update={"cores": min(here.cores, config.site.threads)})
    return here.model_copy(update={"memory_mb": here.memory_mb / processes})


def moved(plan: Plan, config: Config) -> Plan:
    """A kept plan as it is on this machine: with its own ceiling and loaders, unless accelerator or processor is another now."""
    here = machine_here(config)
    if bool(here.devices) == bool(plan.machine.devices):
        return plan
    ceiling, workers = ceiling_mb(config.study.train, here)[0], loaders_of(here)[0]
    return plan.model_copy(update={"memory_mb": ceiling, "loader_workers": workers})


def kept_plan(folder: Path) -> Plan | None:
    """The plan that an unfinished training was begun with, or None."""
    file = folder / KEPT_AS
    if not file.is_file():
        return None
    try:
        return Plan.model_validate_json(file.read_bytes())
    except ValidationError:
        return None  # of another version: its checkpoints are compared with the new plan when they are read


def keep_plan(folder: Path, plan: Plan) -> None:
    """Write the plan beside the checkpoints.

    Raises:
        ResourceError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / KEPT_AS, canonical_json(plan.model_dump(mode="json")), doing="keeping the plan of a training")


def learned_from(config: Config, dataset: Dataset) -> CaseSequence:
    """The cases that a training learns from.

    Raises:
        UsageError: NO_CASES: none is left.
    """
    fold = config.study.train.fold
    found = dataset.cases("development" if fold is None else f"train{fold}")
    if not found.records:
        left_out = "" if fold is None else f" when fold {fold} is left out"
        raise UsageError(
            f"Dataset {dataset.digest[:12]} was divided into {len(dataset.splits.folds)} folds when it was ingested, and has no"
            f" case to learn from{left_out}; leave train.fold null, or ingest again with the split that you want.",
            code="NO_CASES",
        )
    return found
