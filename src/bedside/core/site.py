"""`site.yaml`: where things run. Never hashed, never committed; secrets come through the environment."""

from typing import Annotated, Literal

from pydantic import Field

from bedside.core.jobs import SlurmJobs
from bedside.core.record import Record

PositiveInt = Annotated[int, Field(gt=0)]
Strategy = Literal["ddp", "fsdp"]


class Site(Record):
    """The whole of `site.yaml`: where things run.

    Attributes:
        versioning: "dvc" moves dataset and model bytes; "off" leaves them in the store.
        remote: URL or path of the DVC remote; None: a folder beside the store.
        tracking: "mlflow" mirrors every run; "off" does not.
        tracking_uri: of the MLflow server; None: sqlite in the study folder.
        threads: processor threads to use; None: those this process may run on.
        executor: where ingest works: "processes" (limited children of this one), "inline" (this process), "slurm" (a Dask cluster
            of SLURM jobs) or the address of a Dask scheduler ("tcp://host:8786").
        processes: how many workers; None: one per processor this process may run on.
        worker_memory_gb: of each worker beyond what it needs to start; an item that needs more is refused.
        worker_seconds: for one item; one that takes longer is refused.
        device: where trainings compute: "auto" takes an accelerator (CUDA) where there is one, else the processor.
        loader_workers: processes that make training batches ahead; 0: the training process itself; None: 0 on the processor, as
            many as cores allow, up to 8, with an accelerator. The batches are the same.
        training_processes: that compute one training together on this machine; each computes its share of every batch. Tasks of
            one SLURM step, on one machine or several, do so by themselves.
        strategy: how they share: "ddp" keeps all weights in each, "fsdp" divides weights, averages and moments among them.
        watts_per_core: what a busy core draws, for the estimate of energy where the processor does not count it.
        volumes_gb: of images and masks that all workers hold at once, in 2**30 bytes; None: as much as two of the folder's
            largest, at most half of what this process may use. An image that needs more alone is refused.
        encrypt: keep received scans, masks and refused files encrypted at rest; the key comes from BEDSIDE_STORE_KEY. What
            training prepares in scratch/, reports and predictions are not: for these the disk must be encrypted.
        slurm: what a training job asks for (`bedside train --on slurm`).
    """

    versioning: Literal["dvc", "off"] = "dvc"
    remote: str | None = None
    tracking: Literal["mlflow", "off"] = "mlflow"
    tracking_uri: str | None = None
    threads: PositiveInt | None = None
    executor: Annotated[str, Field(pattern=r"^(processes|inline|slurm|(tcp|tls)://[A-Za-z0-9_.:\[\]-]+)$")] = "processes"
    processes: PositiveInt | None = None
    worker_memory_gb: Annotated[float, Field(gt=0)] = 4.0
    worker_seconds: Annotated[float, Field(gt=0)] = 300.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    loader_workers: Annotated[int, Field(ge=0, le=256)] | None = None
    training_processes: Annotated[int, Field(gt=0, le=64)] = 1
    strategy: Strategy = "ddp"
    watts_per_core: Annotated[float, Field(gt=0)] = 10.0
    volumes_gb: Annotated[float, Field(gt=0)] | None = None
    encrypt: bool = False
    slurm: SlurmJobs = SlurmJobs()
