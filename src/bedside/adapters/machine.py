"""What this process may use of the machine it is on: affinity, cgroups, SLURM and resource limits, whichever is the smallest."""

import math
import os
import resource
from collections.abc import Mapping
from pathlib import Path

from bedside.core.plan import Machine

MEGABYTE = 1e6
MEBIBYTE_MB = (1 << 20) / MEGABYTE
CGROUPS = Path("/sys/fs/cgroup")


def machine(*, environ: Mapping[str, str] | None = None, cgroups: Path = CGROUPS) -> Machine:
    """Describe the processors, the memory and the accelerators that this process may use.

    Args:
        environ: where SLURM says what it gave; None: this process's environment.
        cgroups: where the control groups are mounted.
    """
    given = os.environ if environ is None else environ
    groups = own_groups(cgroups)
    cores = [len(os.sched_getaffinity(0)), *_quotas(groups), *_numbers(given, "SLURM_CPUS_PER_TASK")]
    name, accelerator_mb, count = _accelerators()
    return Machine(
        cores=max(1, min(cores)),
        memory_mb=min([_physical_mb(), *_limits_mb(groups), *_slurm_mb(given, max(1, min(cores))), *_address_space_mb()]),
        device=name,
        device_memory_mb=accelerator_mb,
        devices=count,
    )


def memory_bytes() -> int:
    """Memory that this process may use; what a scheduler gave it counts, accelerators are not asked for."""
    groups = own_groups(CGROUPS)
    cores = max(1, min([len(os.sched_getaffinity(0)), *_quotas(groups)]))
    found = [_physical_mb(), *_limits_mb(groups), *_slurm_mb(os.environ, cores), *_address_space_mb()]
    return int(min(found) * MEGABYTE)


def own_groups(cgroups: Path) -> list[Path]:
    """Folders of the control groups that this process is in, from its own up to the root, of both versions."""
    listing = Path("/proc/self/cgroup")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    found = [cgroups, cgroups / "memory", cgroups / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = cgroups / controllers.split(",")[0] if controllers else cgroups
        parts = [part for part in path.split("/") if part not in {"", "..", "."}]
        found += [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return found


def _limits_mb(groups: list[Path]) -> list[float]:
    texts = [_text(group / name) for group in groups for name in ("memory.max", "memory.limit_in_bytes")]
    return [int(text) / MEGABYTE for text in texts if text.isdigit() and int(text) > 0]


def _quotas(groups: list[Path]) -> list[int]:
    """Processors that quotas of processor time allow: half a processor still is one."""
    found = []
    for group in groups:
        whole = _text(group / "cpu.max").split() or [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")]
        if len(whole) == 2 and all(part.isdigit() and int(part) > 0 for part in whole):
            found.append(math.ceil(int(whole[0]) / int(whole[1])))
    return found


def _slurm_mb(environ: Mapping[str, str], cores: int) -> list[float]:
    """SLURM counts in units of 2^20 bytes."""
    per_node = [value * MEBIBYTE_MB for value in _numbers(environ, "SLURM_MEM_PER_NODE")]
    return per_node + [value * cores * MEBIBYTE_MB for value in _numbers(environ, "SLURM_MEM_PER_CPU")]


def _numbers(environ: Mapping[str, str], name: str) -> list[int]:
    text = environ.get(name, "")
    return [int(text)] if text.isdigit() and int(text) > 0 else []


def _physical_mb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MEGABYTE


def _address_space_mb() -> list[float]:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft / MEGABYTE]


def _accelerators() -> tuple[str, float, int]:
    """Name, memory and number of the CUDA devices, or ("cpu", 0, 0)."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", 0.0, 0
    found = torch.cuda.get_device_properties(0)
    return f"cuda {found.name}", found.total_memory / MEGABYTE, torch.cuda.device_count()


def _text(path: Path) -> str:
    """First line of a small file of the kernel, or "" where there is none that we may read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
