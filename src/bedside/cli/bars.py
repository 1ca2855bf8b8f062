"""Progress bars with the time left, on stderr, and only on a terminal."""

from collections.abc import Iterator
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


@contextmanager
def bars(*, quiet: bool) -> Iterator[Bars]:
    """Draw bars while the block runs; nothing is drawn when stderr is no terminal or `quiet` is set."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as drawing:
        yield Bars(drawing)
