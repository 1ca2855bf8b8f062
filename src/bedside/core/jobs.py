"""Commands that run somewhere else: what was submitted, and how it stands."""

from typing import Annotated, Literal

from pydantic import Field

from bedside.core.record import Record

JobState = Literal["pending", "running", "done", "failed", "gone"]
"""How a job stands; "gone" when the scheduler has forgotten it."""


SlurmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,-]{0,64}$")]


class SlurmJobs(Record):
    """What each training job asks SLURM for.

    Attributes:
        partition, account, qos: names at the site; "" takes SLURM's own default.
        minutes: wall time of one sitting; a longer training saves, goes back into the queue and continues.
        grace_seconds: how long before the end of a sitting the training is told to save; SLURM may tell it a minute earlier.
        nodes: machines that compute one training together; tasks_per_node: processes of it on each. With more than one in all,
            the training is a step of SLURM (`srun`) whose first task decides and writes.
        cores: of each process; memory_gb, gpus: of each node.
    """

    partition: SlurmName = ""
    account: SlurmName = ""
    qos: SlurmName = ""
    minutes: Annotated[int, Field(gt=0)] = 720
    grace_seconds: Annotated[int, Field(ge=5, le=3600)] = 120
    nodes: Annotated[int, Field(gt=0, le=1024)] = 1
    tasks_per_node: Annotated[int, Field(gt=0, le=64)] = 1
    cores: Annotated[int, Field(gt=0)] = 4
    memory_gb: Annotated[float, Field(gt=0)] = 16.0
    gpus: Annotated[int, Field(ge=0)] = 0


class Job(Record):
    """What was handed to a scheduler.

    Attributes:
        id: the scheduler's number; name: ours.
        commands: one, or those of an array.
    """

    id: Annotated[str, Field(pattern=r"^\d+$")]
    name: str
    commands: tuple[tuple[str, ...], ...]
