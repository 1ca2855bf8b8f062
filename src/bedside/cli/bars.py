"""Progress with the time left, on stderr: bars on a terminal, with a table under a training; in a log now and then a line."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live as Display
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bedside.core.progress import SILENT, Live
from bedside.core.progress import Progress as Listener

DRAWN_PER_SECOND = 4


class Bars:
    """`core.progress.Progress` drawn with rich: one bar per piece of work, and under them how a training stands."""

    def __init__(self, drawing: Progress) -> None:
        self._drawing = drawing
        self._task: TaskID | None = None
        self._what, self._total, self._done = "", 0.0, 0.0
        self._live: Live | None = None

    def start(self, what: str, total: float | None) -> None:
        """Begin a new bar; the one before is complete. A bar whose end is corrected goes on."""
        self._total = total or 0.0
        if self._task is not None and what == self._what:
            self._drawing.update(self._task, total=total)
            return
        if self._task is not None:
            self._drawing.stop_task(self._task)
        self._what, self._live = what, None
        self._task = self._drawing.add_task(what, total=total, note="")

    def advance(self, done: float, note: str | Live = "") -> None:
        """Move the present bar."""
        self._done, self._live = done, note if isinstance(note, Live) else None
        if self._task is not None:
            self._drawing.update(self._task, completed=done, note="" if isinstance(note, Live) else note)

    def picture(self) -> Group:
        """All that is on the terminal now."""
        return Group(self._drawing) if self._live is None else Group(self._drawing, table(self._live, self._done, self._total))


def table(live: Live, done: float, total: float) -> Table:
    """The numbers of a training that is under way."""
    drawn = Table(show_header=False)
    score = "none yet" if live.score is None else f"{live.score:.3f}"
    drawn.add_row("step", f"{done:g} of {total:g}", "minutes", f"{live.minutes:.1f}, {live.minutes_left:.1f} left")
    drawn.add_row("loss", f"{live.loss:.3f}", "Dice", score)
    drawn.add_row("s/step", f"{live.seconds_per_step:.2f}", "waiting for data", f"{100 * live.data_wait_share:.0f} %")
    drawn.add_row("memory", f"{live.memory_mb:.0f} MB", "peak memory", f"{live.peak_memory_mb:.0f} MB")
    drawn.add_row("threads busy", f"{100 * live.utilisation:.0f} % of {live.threads}", "energy", live.energy)
    return drawn


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

    def advance(self, done: float, note: str | Live = "") -> None:
        """Say where the work stands, if nothing was said for a while."""
        now = self._clock()
        if now - self._said < LINE_EVERY_SECONDS:
            return
        self._said = now
        if isinstance(note, Live):
            left = note.minutes_left
        else:
            left = (self._total - done) * (now - self._begun) / done / 60 if done and self._total else 0.0
        of = f" of {self._total:g}, {left:.1f} minutes left" if self._total else ""
        self._write(f"{self._what}: {done:g}{of}{f', {note}' if note else ''}\n")


@contextmanager
def bars(*, quiet: bool) -> Iterator[Listener]:
    """Draw bars while the block runs, or write lines where stderr is no terminal; with `quiet` neither."""
    console = Console(stderr=True)
    if quiet:
        yield SILENT
    elif console.is_terminal:
        with drawn(console) as found:
            yield found
    else:
        yield Lines(sys.stderr.write)


@contextmanager
def drawn(console: Console) -> Iterator[Bars]:
    """Draw on a terminal while the block runs: each time all at once, over what was there."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    found = Bars(Progress(*columns, console=console, auto_refresh=False))
    with Display(get_renderable=found.picture, console=console, refresh_per_second=DRAWN_PER_SECOND):
        yield found
