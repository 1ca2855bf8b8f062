"""How much memory a prediction needs, measured on its first windows, and the ceiling that it is held to."""

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread, stack_size
from types import TracebackType
from typing import Self

from bedside.core.errors import ResourceError

MEGABYTE = 1e6
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BETWEEN_SECONDS = 0.002
_STACK_BYTES = 1 << 18
"""Of the thread that looks; what is usual, 8 MiB of addresses, may be all that a limit leaves."""


def resident_bytes() -> int:
    """What of this process is in memory now (proc_pid_statm(5): the second number, in pages)."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


class PeakWatch:
    """Looks at the resident memory every two milliseconds while a block runs.

    The system keeps a high-water mark of its own, but only one, and whoever measures a whole case may need it.

    Attributes:
        peak_bytes: the largest that was seen.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        """Prepare; nothing is looked at where it is not wanted."""
        self.peak_bytes = 0
        self._over = Event()
        self._thread = Thread(target=self._look, daemon=True) if wanted else None

    def __enter__(self) -> Self:
        """Begin to look."""
        if self._thread is not None:
            self.peak_bytes = resident_bytes()
            usual = stack_size(_STACK_BYTES)
            try:
                self._thread.start()
            finally:
                stack_size(usual)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Look a last time and stop."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def _look(self) -> None:
        while not self._over.wait(_BETWEEN_SECONDS):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())


@dataclass(frozen=True)
class Ceiling:
    """The most memory that a prediction may need at its peak, this process and all that it holds included.

    Attributes:
        allowed_mb: MB of 10^6 bytes.
    """

    allowed_mb: float

    def left_bytes(self, taken_bytes: int) -> float:
        """What is allowed beyond what is taken; below 0 where that is more."""
        return self.allowed_mb * MEGABYTE - taken_bytes

    def check(self, predicted_bytes: int) -> None:
        """Refuse what cannot fit before the work is begun.

        Raises:
            ResourceError: MEMORY.
        """
        predicted_mb = predicted_bytes / MEGABYTE
        if predicted_mb > self.allowed_mb:
            raise ResourceError(
                f"This case needs about {predicted_mb:.0f} MB of memory at its peak and {self.allowed_mb:.0f} MB are allowed;"
                " use a machine with more, or a model with smaller or less overlapping windows.",
                code="MEMORY",
            )
