"""Doing a training again exactly: its plan and its schedule laid where a training looks for them before it makes its own."""

import json
from pathlib import Path

from pydantic import JsonValue, ValidationError

from bedside.core.config import Study
from bedside.core.digest import canonical_json
from bedside.core.errors import IntegrityError
from bedside.core.files import write_atomic
from bedside.core.plan import Plan
from bedside.core.run import PlannedSteps, RunRecord
from bedside.train.planned import keep_plan
from bedside.train.replans import Replay
from bedside.train.resume import keep_question

SCHEDULE = "schedule.json"


def lay_out(folder: Path, question: dict[str, JsonValue], record: RunRecord) -> None:
    """Write the plan and the schedule of a run into the checkpoint folder of a training that is to repeat it."""
    keep_plan(folder, exact_plan(record))
    keep_question(folder, question)
    rows: list[JsonValue] = [plan.model_dump(mode="json") for plan in record.schedule]
    write_atomic(folder / SCHEDULE, canonical_json(rows), doing="keeping the schedule of a training")


def kept_replay(folder: Path) -> Replay | None:
    """The schedule that lies beside the checkpoints to be followed, or None.

    Raises:
        IntegrityError: SCHEDULE: it is there and cannot be read.
    """
    file = folder / SCHEDULE
    if not file.is_file():
        return None
    try:
        return Replay(tuple(PlannedSteps.model_validate(row) for row in json.loads(file.read_bytes())))
    except (ValueError, TypeError, IndexError) as error:
        raise IntegrityError("The schedule to be repeated cannot be read; begin again with --fresh.", code="SCHEDULE") from error


def exact_plan(record: RunRecord) -> Plan:
    """The plan of a run with the precision that "auto" was resolved to."""
    return record.plan.model_copy(update={"precision": record.precision}) if record.precision else record.plan


def study_of(record: RunRecord) -> Study:
    """The study that a run was asked.

    Raises:
        IntegrityError: STUDY_CHANGED: this version of bedside does not know its settings any more.
    """
    try:
        return Study.model_validate(record.study)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise IntegrityError(
            f"The run was trained by another version of bedside, whose setting {where} this one reads otherwise; take commit"
            f" {record.commit[:12]}.",
            code="STUDY_CHANGED",
        ) from error


def frozen_study(record: RunRecord) -> Study:
    """The study with every number of the plan written out and the steps that were done: what is open is open no more."""
    study, plan = study_of(record), exact_plan(record)
    train = study.train.model_copy(
        update={
            "minutes": None,
            "epochs": None,
            "steps": record.steps,
            **{name: getattr(plan, name) for name in ("patch", "batch", "micro_batch", "precision", "learning_rate")},
            **{name: getattr(plan, name) for name in ("weight_decay", "ema", "foreground", "seed", "augment")},
        }
    )
    update = {"network": plan.network, "preprocess": plan.preprocessing, "train": train}
    return study.model_copy(update=update)


def frozen_plan(record: RunRecord) -> Plan:
    """The plan with the number of steps that were done."""
    return exact_plan(record).model_copy(update={"minutes": None, "steps": record.steps})
