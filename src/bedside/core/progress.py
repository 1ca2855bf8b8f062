"""How steps tell the outside how far they are, without knowing who listens."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Live:
    """How a training stands, in numbers; `str` of it is what a log says.

    Attributes:
        training: names it among the trainings of a study folder.
        minutes, minutes_left: of work, all sittings together, and at that speed to come.
        loss: of the last step; score: last Dice on the left-out fold, None before there is one.
        seconds_per_step, data_wait_share: of this sitting.
        utilisation: share of the process's `threads` that were busy, as `Cost.utilisation` has it: not of an accelerator.
        memory_mb, peak_memory_mb: resident now and at most, in MB of 2**20 bytes.
        joules: of the processors; measured: by their own counter, else an estimate.
    """

    training: str
    minutes: float
    minutes_left: float
    loss: float
    score: float | None
    seconds_per_step: float
    data_wait_share: float
    utilisation: float
    threads: int
    memory_mb: float
    peak_memory_mb: float
    joules: float
    measured: bool

    @property
    def energy(self) -> str:
        """In Wh, and whether that was estimated."""
        return f"{self.joules / 3600:.2f} Wh{'' if self.measured else ' (estimate)'}"

    def __str__(self) -> str:
        said = (
            f"after {self.minutes:.1f} minutes, loss {self.loss:.3f}, {self.seconds_per_step:.2f} s/step,"
            f" data {100 * self.data_wait_share:.0f} %, threads {100 * self.utilisation:.0f} % busy,"
            f" {self.memory_mb:.0f} MB, {self.energy}"
        )
        return said if self.score is None else f"{said}, Dice {self.score:.3f}"


class Progress(Protocol):
    """A listener; the command line draws bars with it, programs pass `SILENT`."""

    def start(self, what: str, total: float | None) -> None:
        """A piece of work begins; `total` in units of the caller, None when unknown."""
        ...

    def advance(self, done: float, note: str | Live = "") -> None:
        """`done` units of the present piece are finished in all; of `note` a listener may take its text only."""
        ...


class Silent:
    """Says nothing."""

    def start(self, what: str, total: float | None) -> None:
        """Say nothing."""

    def advance(self, done: float, note: str | Live = "") -> None:
        """Say nothing."""


SILENT = Silent()
