"""Signals that stop a training, kept until it has come to a place where it can be saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class Stop:
    """Whether a signal came: its number, or 0."""

    received: int = 0


@contextmanager
def kept_signals() -> Iterator[Stop]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a flag that is looked at between steps and between validated cases.

    A second one changes the flag only, so it cannot break the saving that the first one asked for. Outside the main thread
    nothing is turned: whoever runs the threads handles signals.
    """
    stop = Stop()

    def remember(number: int, _frame: FrameType | None) -> None:
        stop.received = number

    try:
        before = {number: signal.signal(number, remember) for number in STOPPING}
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
