"""What this process may use of the machine it is on."""

import os

from bedside.core.plan import Machine

MEGABYTE = 1 << 20


def machine() -> Machine:
    """Describe the processors and the memory that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MEGABYTE
    return Machine(cores=len(os.sched_getaffinity(0)), memory_mb=memory)


def memory_bytes() -> int:
    """Memory that this process may use."""
    return int(machine().memory_mb * MEGABYTE)
