"""What a training does on one machine, every number decided: the study says what is asked, the plan what is done."""

from typing import Annotated, Literal

from pydantic import Field

from bedside.core.config import Augmentation, NetworkPart, PositiveInt
from bedside.core.digest import digest_json
from bedside.core.model import Preprocessing
from bedside.core.record import Record

Patch = tuple[PositiveInt, PositiveInt, PositiveInt]
Precision = Literal["auto", "bf16", "fp16", "fp32"]


class Machine(Record):
    """What a training may use here.

    Attributes:
        cores: processors this process may run on, as affinity, cgroup and SLURM allow.
        memory_mb: that may become resident, as the machine, cgroup, SLURM and resource limits allow.
        device: "cpu", or the name of the accelerator; device_memory_mb: of one accelerator, 0 without.
        devices: how many accelerators; 0 without.
    """

    cores: PositiveInt
    memory_mb: Annotated[float, Field(gt=0)]
    device: str = "cpu"
    device_memory_mb: Annotated[float, Field(ge=0)] = 0.0
    devices: Annotated[int, Field(ge=0)] = 0


class Fingerprint(Record):
    """The numbers of a dataset that a plan is made from; axes are turned to the closest RAS+.

    Attributes:
        cases: to learn from; channels: of their images; modality: as in the contract.
        spacing_mm: median of each axis; fine_spacing_mm: 10th percentile of each axis.
        same_spacing: whether no case differs from the median by more than 1 % along any axis.
        extent_mm: median field of view; shape: median voxels of each axis.
        largest_voxels: of any case.
        structures: how many, without the background; smallest_ml: median volume of the smallest one where it is there.
        foreground_share: median share of labelled voxels.
        values: 0.5th, 50th and 99.5th percentile of the image inside the structures, over cases.
    """

    cases: PositiveInt
    channels: PositiveInt
    modality: str
    spacing_mm: tuple[float, float, float]
    fine_spacing_mm: tuple[float, float, float]
    same_spacing: bool
    extent_mm: tuple[float, float, float]
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    largest_voxels: PositiveInt
    structures: PositiveInt
    smallest_ml: float
    foreground_share: float
    values: tuple[float, float, float]

    def digest(self) -> str:
        """The hash of the numbers."""
        return digest_json(self.model_dump(mode="json"))


class Choice(Record):
    """One number of a plan and where it comes from: the study asked for it, or a rule decided it, and why."""

    what: str
    value: str
    because: str


class Plan(Record):
    """How a training is done: nothing is left open.

    Attributes:
        preprocessing, network, patch: of the model that comes out.
        batch: patches per step, the number that the learning rate is meant for.
        micro_batch: patches that pass the network at once; gradients of batch / micro_batch passes are added.
        precision: "auto" is resolved by timing at the start of the training, and recorded there.
        warm_up: share of the steps in which the learning rate rises; clip_norm: largest norm of a step's gradient.
        loader_workers: processes that make batches ahead, unless the site says how many; they change no bit.
        minutes, steps: the budget; exactly one is given.
        memory_mb: ceiling of resident memory; predicted_memory_mb: what the plan should need at its peak, or None where
            nothing was predicted.
        machine: what it was made for; fingerprint: digest of the numbers of the data that it was made from.
        choices: every number with its reason.
    """

    preprocessing: Preprocessing
    network: NetworkPart
    patch: Patch
    batch: PositiveInt
    micro_batch: PositiveInt
    precision: Precision
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 12.0
    loader_workers: Annotated[int, Field(ge=0)] = 0
    ema: Annotated[float, Field(ge=0, lt=1)]
    foreground: Annotated[float, Field(ge=0, le=1)]
    seed: int
    augment: Augmentation
    minutes: Annotated[float, Field(gt=0)] | None
    steps: PositiveInt | None
    memory_mb: Annotated[float, Field(gt=0)]
    predicted_memory_mb: float | None = None
    machine: Machine
    fingerprint: str = ""
    choices: tuple[Choice, ...] = ()

    def digest(self) -> str:
        """The hash of the plan."""
        return digest_json(self.model_dump(mode="json"))
