"""Peak resident memory of this process, read from Linux, one piece of work at a time."""

import re
import resource
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_RESET_PEAK = "5"


def reset_peak() -> bool:
    """Set the high-water mark of resident memory (VmHWM) back to what is resident now.

    Source: proc_pid_clear_refs(5): writing "5" resets the peak resident set size.

    Returns:
        Whether the system allowed it. Where it did not, `peak_mb` is the peak since the process began.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mb() -> float:
    """The largest resident memory since the last `reset_peak`, in MB of 10^6 bytes.

    It is that of the whole process: interpreter, libraries, weights and the pages of memory-mapped files that were looked
    at, so it is what a machine must have to do the work. GPU memory and other processes do not count.
    """
    try:
        found = _HIGH_WATER.search(_STATUS.read_text(encoding="ascii", errors="replace"))
    except OSError:
        found = None
    kibibytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024 / 1e6
