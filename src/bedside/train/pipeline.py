"""dataset -> run: plan the steps that fit the budget, take up where a kill left off, keep the averaged weights."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors.torch import save

from bedside.adapters.environment import commit, environment
from bedside.core.config import Config, Study
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_json
from bedside.core.files import write_atomic
from bedside.core.heap import kept_heap
from bedside.core.labels import check_meeting
from bedside.core.ledger import Event
from bedside.core.lesson import kept_task, parents_of
from bedside.core.model import ModelSpec, put_model
from bedside.core.plan import Plan
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.run import Incident, Run, RunRecord, training_name
from bedside.core.task import Task
from bedside.core.workspace import Workspace
from bedside.data.patches import Example
from bedside.train.again import kept_replay, lay_out
from bedside.train.begin import beginning, settled
from bedside.train.cases import prepare_cases
from bedside.train.checkpoint import load_checkpoint
from bedside.train.classroom import lesson_for
from bedside.train.company import company, follow_slurm, slurm_ranks, threads_here
from bedside.train.device import device_name, device_peak_mb, only_repeating
from bedside.train.fingerprint import check_labels
from bedside.train.meter import peak_memory_mb
from bedside.train.planned import fresh_plan, keep_plan, kept_plan, moved
from bedside.train.resume import check_resumable, keep_question
from bedside.train.sitting import Sitting

_log = logging.getLogger("bedside.train")
_Examples = tuple[list[Example], list[Example], tuple[Incident, ...]]
"""To learn from, left out, and what had to be dealt with in preparing them."""
_MAY_CHANGE = {"checkpoint_minutes", "stall_seconds"}


class TrainPlan(Record):
    """What `train --what-if` says would be done."""

    dataset: str
    cases: int
    validation_cases: int
    budget: str
    patch: tuple[int, int, int]
    batch: int
    resumes_at_step: int | None
    done_before: bool


def train(config: Config, dataset: Dataset, *, progress: Progress = SILENT, fresh: bool = False, resume: bool = False) -> Run:
    """Train the study's network on the development cases of a dataset.

    The same study and dataset give the same run: one that is finished is returned, one that was interrupted goes on from its
    last checkpoint.

    Args:
        config: study, site and folder.
        dataset: from `ingest`.
        progress: listener.
        fresh: forget a finished or interrupted run of the same study and dataset, and start again.
        resume: only go on; with nothing to go on from, fail.

    Raises:
        Interrupted: stopped by SIGINT, SIGTERM or SIGUSR1, after saving.
        ResourceError: disk, memory, the memory ceiling, or no batch came.
        UsageError: the loss diverged, the patch does not fit the network, or there is nothing to resume (NO_CHECKPOINT,
            CHECKPOINT_CONFIG).
    """
    config = settled(config)
    study = config.study
    before = None if fresh else finished(config.workspace, study, dataset)
    if before is not None:
        return before
    folder = checkpoint_folder(config.workspace, study, dataset)
    if resume:
        check_resumable(config.workspace, folder, _question(study, dataset))
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    planned = kept_plan(folder)
    if planned is None:
        planned = fresh_plan(config, dataset, progress=progress)
        keep_plan(folder, planned)
        keep_question(folder, _question(study, dataset))
    else:
        planned = moved(planned, config)
    examples, left_out, mended = _examples(config, dataset, planned, progress)
    start, layers = beginning(config, planned, examples[0].image.shape[0])
    lesson, replay = lesson_for(config, dataset, planned), kept_replay(folder)
    with _computing(config, planned), company(study, config.site, examples) as ranks:
        given = (study, planned, folder, progress, examples, left_out, config.site, start, layers)
        sitting = Sitting(*given, replay=replay, ranks=ranks, lesson=lesson)
        sitting.run()
    sitting.position = sitting.position.model_copy(update={"incidents": (*mended, *sitting.position.incidents)})
    return _store(config, dataset, sitting)


def join(config: Config, dataset: Dataset) -> int | None:
    """In a task of a SLURM step other than its first: compute with that one, and return the exit status; None elsewhere."""
    if not slurm_ranks()[0]:
        return None
    if finished(config.workspace, settled(config, keep=False).study, dataset) is not None:
        return 0
    return follow_slurm(config.study.train.stall_seconds)


@contextmanager
def _computing(config: Config, planned: Plan) -> Iterator[None]:
    """Threads, memory that is used again, and whether only operations that repeat may run.

    A training that must repeat takes the number of threads of its plan, wherever it goes on: sums depend on it.
    """
    repeats = config.study.train.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    threads = planned.machine.cores if repeats else config.site.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads_here(config.site, threads))
    only_repeating(wanted=repeats or before)
    try:
        with kept_heap():
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def plan(config: Config, dataset: Dataset) -> TrainPlan:
    """Say what `train` would do, without doing it."""
    config = settled(config, keep=False)
    study = config.study
    folder = checkpoint_folder(config.workspace, study, dataset)
    planned = kept_plan(folder) or fresh_plan(config, dataset, keep=False)
    fold = study.train.fold
    position = load_checkpoint(folder)
    return TrainPlan(
        dataset=dataset.digest,
        cases=len(dataset.cases("development" if fold is None else f"train{fold}")),
        validation_cases=0 if fold is None else len(dataset.cases(f"fold{fold}")),
        budget=f"{planned.steps} steps" if planned.steps else f"{planned.minutes:g} minutes",
        patch=planned.patch,
        batch=planned.batch,
        resumes_at_step=position.position.step if position else None,
        done_before=finished(config.workspace, study, dataset) is not None,
    )


def training_key(study: Study, dataset: Dataset) -> str:
    """Digest of all that decides the weights: two studies that differ only in how they judge share a training."""
    return digest_json(_question(study, dataset))


def _question(study: Study, dataset: Dataset) -> dict[str, JsonValue]:
    """What a training is asked, without what may change while it is under way."""
    parts = study.model_dump(mode="json", include={"contract", "preprocess", "task", "network", "train"})
    parts["train"] = {name: value for name, value in parts["train"].items() if name not in _MAY_CHANGE}
    return {"study": parts, "dataset": dataset.digest}


def prepare_again(config: Config, dataset: Dataset, record: RunRecord) -> None:
    """Let the next `train` of this study and dataset do what a run did: its plan, its precision, its number of steps."""
    lay_out(checkpoint_folder(config.workspace, config.study, dataset), _question(config.study, dataset), record)


def checkpoint_folder(workspace: Workspace, study: Study, dataset: Dataset) -> Path:
    """Where the checkpoints of an unfinished training lie."""
    return workspace.scratch / training_name(training_key(study, dataset))


def finished(workspace: Workspace, study: Study, dataset: Dataset) -> Run | None:
    """The run that the ledger knows for this study and dataset, if its bytes are here."""
    event = workspace.ledger.last("trained", key=training_key(study, dataset))
    if event is None or not (workspace.store / event.outputs["model"]).is_dir():
        return None
    return Run(event.outputs["run"], event.outputs["model"], workspace)


def _examples(config: Config, dataset: Dataset, planned: Plan, progress: Progress) -> _Examples:
    """Prepared training cases and cases of the left-out fold; a case without a label cannot be learned from."""
    study, fold = config.study, config.study.train.fold
    task: Task = study.task  # type: ignore[assignment]
    groups = []
    for split in ("development",) if fold is None else (f"train{fold}", f"fold{fold}"):
        cases = dataset.cases(split)
        check_labels(cases, task)
        masks = (record.volumes["label"].labels for record in cases.records if "label" in record.volumes)
        check_meeting(study.contract.label_map, dataset.contract.label_map, masks)
        groups.append(prepare_cases(cases, preprocessing=planned.preprocessing, task=task, progress=progress))
    mended = tuple(incident for group in groups for incident in group.incidents())
    for incident in mended:
        _log.warning("%s (cases %s)", incident.said, ", ".join(incident.cases))
    return groups[0].examples, groups[1].examples if fold is not None else [], mended


def _store(config: Config, dataset: Dataset, sitting: Sitting) -> Run:
    """Put model and run into the store, then write the ledger line, then drop the checkpoints."""
    workspace, study = config.workspace, config.study
    used, code = environment(), commit()
    record = _record(study, dataset, sitting, environment_=used.model_dump(mode="json"), code=code)
    run = workspace.put_record("run.json", record, doing="storing a run")
    tensors = {name: value.contiguous() for name, value in sitting.weights().items()}
    with workspace.staging() as staged:
        write_atomic(staged / "weights.safetensors", save(tensors), doing="storing a model")
        model = put_model(workspace, staged, _spec(study, dataset, sitting, run))
    event = _announce(config, dataset, record, model=model.digest, run=run)
    shutil.rmtree(sitting.folder, ignore_errors=True)
    return Run(event.outputs["run"], event.outputs["model"], workspace)


def _announce(config: Config, dataset: Dataset, record: RunRecord, *, model: str, run: str) -> Event:
    begun = {"parent": record.parent} if record.parent else {}
    taught = dict(zip(("teacher",), parents_of(config.study.task), strict=False))
    return config.workspace.ledger.append(
        "trained",
        inputs={"dataset": dataset.digest, "study": record.study_digest} | begun | taught,
        outputs={"model": model, "run": run},
        facts={
            "key": training_key(config.study, dataset),
            "commit": record.commit,
            "environment": record.environment_digest,
            "steps": record.steps,
            "minutes": round(record.minutes, 2),
            "rules": config.promote.digest(),
            **({"begun": record.begun.said} if record.begun is not None else {}),
        },
    )


def _record(study: Study, dataset: Dataset, sitting: Sitting, *, environment_: dict[str, object], code: str) -> RunRecord:
    position = sitting.position
    return RunRecord(
        study=study.model_dump(mode="json"),
        study_digest=study.digest(),
        plan=sitting.plan,
        dataset=dataset.digest,
        environment=environment_,
        environment_digest=digest_json(environment_),
        commit=code,
        seed=study.train.seed,
        steps=position.step,
        minutes=position.seconds / 60,
        resumed=position.resumed,
        seconds_per_step=position.seconds_per_step,
        peak_memory_mb=round(peak_memory_mb(), 1),
        schedule=position.schedule,
        curve=position.curve,
        incidents=position.incidents,
        cost=position.cost,
        threads=torch.get_num_threads(),
        processes=position.processes,
        deterministic=study.train.deterministic,
        precision=position.precision,
        parent=study.train.parent or "",
        begun=sitting.start.matched if sitting.start is not None else None,
        device=device_name(sitting.learner.device),
        device_peak_mb=round(device_peak_mb(sitting.learner.device), 1),
    )


def _spec(study: Study, dataset: Dataset, sitting: Sitting, run: str) -> ModelSpec:
    task: Task = study.task  # type: ignore[assignment]
    plan = sitting.plan
    return ModelSpec(
        study=study.study,
        format="safetensors",
        task=kept_task(study.task).settings(),
        network=plan.network.settings(),
        contract=study.contract,
        preprocessing=plan.preprocessing,
        patch=plan.patch,
        overlap=study.evaluate.overlap,
        mirror=study.evaluate.mirror,
        in_channels=sitting.examples[0].image.shape[0],
        out_channels=task.out_channels(study.contract),
        dataset=dataset.digest,
        run=run,
        study_digest=study.digest(),
        parent=study.train.parent or "",
        engine={"name": "torch", "precision": "fp32"},
    )
