"""Where the tensors of a training live: on the processor, or on one accelerator for each of its processes."""

import os

import torch

from bedside.core.errors import UsageError
from bedside.core.plan import Machine, Plan
from bedside.core.site import Site
from bedside.engines.memory import MEGABYTE

CPU = torch.device("cpu")
MOST_LOADERS = 8
"""Processes that make batches for an accelerator where the site does not say how many."""


def machine_for(site: Site, found: Machine, *, processes: int) -> Machine:
    """What a training may use of a machine when it runs where the site says, in so many processes.

    Raises:
        UsageError: DEVICE, when there are no accelerators, or fewer than processes.
    """
    if site.device == "cuda" and not found.devices:
        raise UsageError(
            "site.device is cuda, and torch sees no accelerator here (its build is"
            f" {torch.__version__}); install torch's CUDA build and a driver, or set site.device to cpu.",
            code="DEVICE",
        )
    if site.device == "cpu" or not found.devices:
        return found.model_copy(update={"device": "cpu", "device_memory_mb": 0.0, "devices": 0})
    if processes > found.devices and not _slurm_binds_devices(found.devices):
        raise UsageError(
            f"{processes} processes shall share this training and the machine has {found.devices} accelerators; each process"
            " needs one of its own.",
            code="DEVICE",
        )
    return found.model_copy(update={"devices": processes})


def device_for(site: Site, local_rank: int) -> torch.device:
    """The device of a process, by its number among those of the training on this machine.

    A plan that was made elsewhere may go on here, so this asks what is here and not what the plan was made for.

    Raises:
        UsageError: DEVICE, when the site wants an accelerator and there is none, or none for this process.
    """
    if site.device == "cpu" or (site.device == "auto" and not torch.cuda.is_available()):
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError("site.device is cuda, and torch sees no accelerator here; set it to cpu or auto.", code="DEVICE")
    if _slurm_binds_devices(count):
        return torch.device("cuda", 0)
    if local_rank >= count:
        raise UsageError(
            f"Process {local_rank + 1} of this training has no accelerator of its own: {count} are here.", code="DEVICE"
        )
    return torch.device("cuda", local_rank)


def _slurm_binds_devices(visible: int) -> bool:
    """Whether SLURM shows each task of a step one accelerator, its own, of several."""
    given = [os.environ.get(name, "") for name in ("SLURM_GPUS_PER_TASK", "SLURM_GPUS_ON_NODE")]
    return (
        visible == 1 and "SLURM_STEP_NUM_TASKS" in os.environ and (bool(given[0]) or (given[1].isdigit() and int(given[1]) > 1))
    )


def own_device(site: Site, rank: int, ceiling: float) -> torch.device:
    """The device of this process, where torch may take `ceiling` MB.

    Raises:
        UsageError: DEVICE, when the site wants an accelerator and there is none, or none for this process.
    """
    device = device_for(site, local_rank_of(rank))
    limit_memory(device, ceiling)
    return device


def limit_memory(device: torch.device, ceiling_mb: float) -> None:
    """Let torch run out of an accelerator's memory at the ceiling, where a step can still be done in smaller pieces."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, ceiling_mb * MEGABYTE / total), device)


def only_repeating(*, wanted: bool) -> None:
    """Whether only operations that repeat to the bit may run in this process."""
    torch.use_deterministic_algorithms(wanted)
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses products of matrices on CUDA


def local_rank_of(rank: int) -> int:
    """Which of the processes on this machine the one of this rank is: SLURM counts them, else all are here."""
    given = os.environ.get("SLURM_LOCALID", "")
    return int(given) if given.isdigit() and "SLURM_STEP_NUM_TASKS" in os.environ else rank


def loaders_of(machine: Machine) -> tuple[int, str]:
    """Processes that make batches ahead on a machine where the site does not say how many, and why."""
    if not machine.devices:
        return 0, "steps take all processors, and one that made batches beside them would slow them by as much"
    return max(1, min(MOST_LOADERS, machine.cores - 1)), "batches are made while the accelerator computes"


def loaders_for(site: Site, plan: Plan) -> int:
    """Processes that make the batches of a plan ahead, unless the site says how many."""
    return plan.loader_workers if site.loader_workers is None else site.loader_workers


def device_of(net: torch.nn.Module) -> torch.device:
    """Where a network's weights are; the processor for one without weights."""
    return next((value.device for value in net.parameters()), CPU)


def device_name(device: torch.device) -> str:
    """What a run record calls it."""
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def device_peak_mb(device: torch.device) -> float:
    """The most memory of an accelerator that torch held so far, in MB of 10^6 bytes; 0 on the processor."""
    return torch.cuda.max_memory_reserved(device) / MEGABYTE if device.type == "cuda" else 0.0
