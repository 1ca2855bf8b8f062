"""What a training takes while it runs: seconds, processors, memory, energy."""

import os
import re
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bedside.core.progress import Live
from bedside.core.run import Cost
from bedside.engines.memory import resident_bytes

if TYPE_CHECKING:
    from bedside.train.checkpoint import Position

MB = 2**20

POWERCAP = Path("/sys/class/powercap")

_STATUS = Path("/proc/self/status")
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB of 2^20 bytes.

    Linux's VmHWM begins anew with a program; getrusage's number would begin with that of whoever started it.
    """
    found = _HIGH_WATER.search(_STATUS.read_text(encoding="ascii", errors="replace")) if _STATUS.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def microjoules(powercap: Path = POWERCAP) -> dict[str, tuple[int, int]] | None:
    """Energy counters of the processor packages: name -> (value, where it wraps); None where there are none that we may read.

    Source: the kernel's documentation of the power capping framework (RAPL zones).
    """
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") == 1:  # a package; what lies below it is counted in it
            try:
                value, most = (int((zone / name).read_text(encoding="ascii")) for name in ("energy_uj", "max_energy_range_uj"))
            except (OSError, ValueError):
                return None
            found[zone.name] = value, most
    return found or None


def joules_between(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> float | None:
    """Energy between two readings, each counter wrapped once at most; None where one is missing."""
    if before is None or after is None or before.keys() != after.keys():
        return None
    steps = [(after[name][0] - value) % most for name, (value, most) in before.items()]
    return sum(steps) / 1e6


@dataclass
class Meter:
    """Adds up the cost of this sitting on top of what the sittings before it took.

    Attributes:
        before: of the earlier sittings; watts_per_core: for an estimate, where the processor does not count its energy.
        step_seconds, data_seconds, validation_seconds, augment_seconds: of this sitting; steps: done in it.
    """

    before: Cost
    watts_per_core: float
    step_seconds: float = 0.0
    data_seconds: float = 0.0
    validation_seconds: float = 0.0
    augment_seconds: float = 0.0
    steps: int = 0
    _began: float = field(default_factory=time.perf_counter)
    _cpu_began: float = field(default_factory=cpu_seconds)
    _counters: dict[str, tuple[int, int]] | None = field(default_factory=microjoules)
    _joules: float = 0.0

    def cost(self) -> Cost:
        """What all sittings took until now; call it every few minutes, as the counters wrap."""
        used = cpu_seconds() - self._cpu_began
        measured = self._measured()
        before = self.before
        return Cost(
            wall_seconds=before.wall_seconds + time.perf_counter() - self._began,
            cpu_seconds=before.cpu_seconds + used,
            step_seconds=before.step_seconds + self.step_seconds,
            data_seconds=before.data_seconds + self.data_seconds,
            validation_seconds=before.validation_seconds + self.validation_seconds,
            augment_seconds=before.augment_seconds + self.augment_seconds,
            joules=before.joules + (self._joules if measured else used * self.watts_per_core),
            measured=measured and (before.measured or before.wall_seconds == 0.0),
        )

    def _measured(self) -> bool:
        if self._counters is None:
            return False
        now = microjoules()
        more = joules_between(self._counters, now)
        if more is None:
            self._counters = None
            return False
        self._joules, self._counters = self._joules + more, now
        return True

    def live(self, position: "Position", loss: float, *, training: str) -> Live:
        """How the training stands: `loss` is that of its last step, `training` what it is called."""
        cost, took = self.cost(), self.step_seconds + self.data_seconds
        scores = [point.score for point in position.curve if point.score is not None]
        return Live(
            training=training,
            minutes=position.seconds / 60,
            minutes_left=position.minutes_left,
            loss=loss,
            score=scores[-1] if scores else None,
            seconds_per_step=took / max(1, self.steps),
            data_wait_share=self.data_seconds / max(1e-9, took),
            utilisation=cost.utilisation(torch.get_num_threads()),
            threads=torch.get_num_threads(),
            memory_mb=resident_bytes() / MB,
            peak_memory_mb=peak_memory_mb(),
            joules=cost.joules,
            measured=cost.measured,
        )
