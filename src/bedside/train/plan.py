"""The plan of a training: what the study asks for, fitted to the data and the machine."""

from bedside.core.config import Study
from bedside.core.errors import UsageError
from bedside.core.plan import Machine, Plan


def make_plan(study: Study, machine: Machine) -> Plan:
    """Decide every number of a training.

    Raises:
        UsageError: the patch does not fit the network.
    """
    train = study.train
    _check_patch(study)
    return Plan(
        preprocessing=study.preprocess,
        network=study.network,
        patch=train.patch,
        batch=train.batch,
        micro_batch=train.micro_batch or train.batch,
        precision=train.precision,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        ema=train.ema,
        foreground=train.foreground,
        seed=train.seed,
        augment=train.augment,
        minutes=train.minutes,
        steps=train.steps,
        memory_mb=1024 * train.memory_gb,
        machine=machine,
    )


def _check_patch(study: Study) -> None:
    divisor = getattr(study.network, "divisor", 1)
    if any(side % divisor for side in study.train.patch):
        raise UsageError(
            f"train.patch is {study.train.patch}; this network needs each side to be a multiple of {divisor}.", code="PATCH"
        )
