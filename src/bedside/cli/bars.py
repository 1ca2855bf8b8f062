"""Progress with the time left, on stderr: bars on a terminal, now and then a line in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """`core.progress.Progress` drawn with rich: one bar per piece of work."""

    def __init__(self, drawing: Progress) -> None:
        self._drawing = drawing
        self._task: TaskID | None = None

    def start(self, what: str, total: float | None) -> None:
        """Begin a new bar; the one before is complete."""
        if self._task is not None:
            self._drawing.stop_task(self._task)
        self._task = self._drawing.add_task(what, total=total, note="")

    def advance(self, done: float, note: str = "") -> None:
        """Move the present bar."""
        if self._task is not None:
            self._drawing.update(self._task, completed=done, note=note)


LINE_EVERY_SECONDS = 30.0


class Lines:
    """`core.progress.Progress` as lines of a log: one every half minute, so that short work says nothing."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._what, self._total, self._begun, self._said = "", 0.0, clock(), clock()

    def start(self, what: str, total: float | None) -> None:
        """Begin another piece of work; of one whose end is corrected, the time goes on."""
        if what != self._what:
            self._begun = self._clock()
        self._what, self._total = what, total or 0.0

    def advance(self, done: float, note: str = "") -> None:
        """Say where the work stands, if nothing was said for a while."""
        now = self._clock()
        if now - self._said < LINE_EVERY_SECONDS:
            return
        self._said = now
        left = (self._total - done) * (now - self._begun) / done if done and self._total else 0.0
        of = f" of {self._total:g}, {left / 60:.1f} minutes left" if self._total else ""
        self._write(f"{self._what}: {done:g}{of}{', ' + note if note else ''}\n")


@contextmanager
def bars(*, quiet: bool) -> Iterator[Bars | Lines]:
    """Draw bars while the block runs, or write lines where stderr is no terminal; with `quiet` neither."""
    console = Console(stderr=True)
    if not quiet and not console.is_terminal:
        yield Lines(sys.stderr.write)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=quiet) as drawing:
        yield Bars(drawing)
