"""A training's numbers to the tracker while it runs, in a process of its own.

The tracker's libraries take seconds to load and some 100 MB, which would count in the training's memory, and a server may take as
long as it likes to answer. So a child of low priority does that. The training hands it a line every few seconds over a pipe that
it never waits for: a line for which there is no room is left out, and that a child is gone is not noticed. What the tracker could
not take live it gets, with all the rest, from `mirror` after the training, which says so when that fails.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bedside.adapters.site import tracker_of
from bedside.core.config import Config
from bedside.core.errors import BedsideError
from bedside.core.ports import Tracker
from bedside.core.progress import Live, Progress

EVERY_SECONDS = 5.0
STALE_SECONDS = 60.0
"""Numbers that could not be logged for so long are left out, so that the child of a tracker that is away ends soon."""
FAREWELL_SECONDS, STOPPED_SECONDS = 60.0, 1.0
"""How long is waited for the child after a training that ended, and after one that was stopped, as a job that may be killed soon.
It is not ended by force: it may be making the tracker's database."""
_LOWER_PRIORITY = 10
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from bedside.adapters.live import follow; follow(sys.stdin.buffer)"
)


@contextmanager
def tracked(config: Config, progress: Progress, *, every_seconds: float = EVERY_SECONDS) -> Iterator[Progress]:
    """A listener that tells `progress` everything, and the tracker of the site how trainings stand; never raises or waits."""
    if config.site.tracking == "off":
        yield progress
        return
    place = {"experiment": config.study.study, "folder": str(config.workspace.folder), "uri": config.site.tracking_uri}
    child = _Child(json.dumps(place))
    listener = Tracked(progress, child.tell, every_seconds=every_seconds)
    patience = STOPPED_SECONDS
    try:
        yield listener
        if child.begun:
            listener.flush()
        patience = FAREWELL_SECONDS
    finally:
        child.end(patience)


class Tracked:
    """`core.progress.Progress` that passes everything on, and now and then the numbers of a training, as a line of JSON."""

    def __init__(
        self,
        progress: Progress,
        tell: Callable[[str], None],
        *,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._tell, self._every, self._clock = progress, tell, every_seconds, clock
        self._told_at, self._waiting = clock(), ""

    def start(self, what: str, total: float | None) -> None:
        """Pass it on."""
        self._progress.start(what, total)

    def advance(self, done: float, note: str | Live = "") -> None:
        """Pass it on, and tell the numbers if nothing was told for a while."""
        self._progress.advance(done, note)
        if isinstance(note, Live):
            point = {"training": note.training, "step": int(done), "at": time.time(), "metrics": metrics_of(note)}
            self._waiting = json.dumps(point)
            if self._clock() - self._told_at >= self._every:
                self.flush()

    def flush(self) -> None:
        """Tell the last numbers, if they were not told yet."""
        if self._waiting:
            self._tell(self._waiting)
            self._told_at, self._waiting = self._clock(), ""


def metrics_of(live: Live) -> dict[str, float]:
    """The numbers by the names they have in a tracker; those of the finished run have the same without "live/"."""
    found = {
        "minutes": live.minutes,
        "minutes_left": live.minutes_left,
        "loss": live.loss,
        "seconds_per_step": live.seconds_per_step,
        "data_wait_share": live.data_wait_share,
        "utilisation": live.utilisation,
        "memory_mb": live.memory_mb,
        "peak_memory_mb": live.peak_memory_mb,
        "energy_joules": live.joules,
    }
    if live.score is not None:
        found["validation_dice"] = live.score
    return {f"live/{name}": value for name, value in found.items()}


class _Child:
    """The process that talks to the tracker; started with the first line, so that short trainings start none.

    The site's address of the tracker goes through the pipe: a command line can be read by everybody.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self.begun = False

    def tell(self, line: str) -> None:
        """Hand over a line; it is left out where the pipe is full or the child could not start or has ended."""
        with suppress(OSError):
            if not self.begun:
                self.begun = True
                self._process = self._start()
                self._write(self._place)
            self._write(line)

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603 - this interpreter and our own text
            [sys.executable, "-P", "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C is for the training, which then ends this
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            os.write(self._process.stdin.fileno(), line.encode() + b"\n")  # below PIPE_BUF: all of it or nothing

    def end(self, seconds: float) -> None:
        """Say that no more comes, and wait for so long at most that all has arrived."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)


def follow(lines: Iterator[bytes]) -> None:
    """Be the child: log what comes until nothing more comes. A signal to all processes of a SLURM step is not for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_LOWER_PRIORITY)
    place = json.loads(next(lines))
    with suppress(BedsideError):
        log_lines(tracker_of(**place), lines)


def log_lines(tracker: Tracker, lines: Iterator[bytes]) -> None:
    """Log each line; a training after which another comes, or none, is left as it stands."""
    training = ""
    for line in lines:
        point = json.loads(line)
        if training and training != point["training"]:
            _leave(tracker, training)
        training = point["training"]
        if time.time() - point["at"] > STALE_SECONDS:
            continue
        with suppress(BedsideError):  # the tracker is away: the next numbers may find it
            tracker.log_live(training, step=point["step"], metrics=point["metrics"])
    if training:
        _leave(tracker, training)


def _leave(tracker: Tracker, training: str) -> None:
    with suppress(BedsideError):
        tracker.leave(training)
