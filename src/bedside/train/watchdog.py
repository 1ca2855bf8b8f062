"""Notices that no batch comes, and says where everything stands: no training waits for ever without a word."""

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bedside.core.errors import ResourceError
from bedside.core.files import write_atomic
from bedside.data.loader import LOOKS, Loader, NoBatchError, WorkerState

REPORT = "stalled.txt"


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Raise `NoBatchError` inside the block when it takes longer than `seconds`, wherever this thread hangs in Python.

    Time in which the whole process was suspended counts as a quarter at most. Works in the main thread, where signals arrive;
    elsewhere only what the loader itself notices is noticed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    looks = 0

    def look(_number: int, frame: FrameType | None) -> None:
        nonlocal looks
        looks += 1
        if looks >= LOOKS:
            raise NoBatchError("".join(traceback.format_stack(frame)))

    handler = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, seconds / LOOKS, seconds / LOOKS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def stalled(error: NoBatchError, loader: Loader, *, folder: Path, step: int) -> ResourceError:
    """Make the error of a stall; its report is attached as a note and written beside the checkpoints.

    Args:
        error: what was raised where the training hung.
        loader: whose batch did not come.
        folder: of the checkpoints.
        step: that is saved there.
    """
    states = loader.states(stacks=True)
    report = report_of(error, states)
    write_atomic(folder / REPORT, report.encode(), doing="writing what stalled")
    workers = "; ".join(str(state) for state in states) or "no workers, it is made in this process"
    found = ResourceError(
        f"No batch came for {loader.seconds:.0f} s ({workers}); step {step} is saved and the same command goes on from there,"
        f" and {REPORT} beside the checkpoints has the stacks of all threads.",
        code="STALLED",
    )
    found.add_note(report)
    return found


def report_of(error: NoBatchError, states: tuple[WorkerState, ...]) -> str:
    """Stacks of every thread of this process where it hung, then of every worker, with exit states and memory."""
    where = "".join(traceback.format_exception(error))
    parts = [f"The training waited here:\n{where}\n"]
    frames = sys._current_frames()  # noqa: SLF001 - the one way to the frames of all threads
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            parts.append(f"thread {thread.name}:\n{''.join(traceback.format_stack(frame))}")
    parts += [f"{state}\n{state.stacks}" for state in states]
    return "\n".join(parts)
