"""Ingest one folder again and again, each time struck at another of its writes, then once to the end.

`python failpoints.py STUDY FOLDER SOURCE kill|full FIRST STEP`: at its call number FIRST, FIRST + STEP, ... that would change the
disk, a child process is killed (half of a write is done before) or told that the disk is full. Prints one JSON line per strike:
where it struck, how the child ended, and what the run after it gave.
"""

import builtins
import errno
import io
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from bedside.core.config import load
from bedside.core.errors import ResourceError
from bedside.ingest.pipeline import ingest

CHANGES = {"os.rename", "os.mkdir", "os.chmod", "os.truncate", "os.remove", "os.link", "os.rmdir"}
FULL = {"os.mkdir", "os.rename", "write", "fsync", "open"}
"""What a full disk can refuse."""
TOLERATED = 10


class Failpoints:
    """Counts the calls that change the disk, and strikes at one of them."""

    def __init__(self, mode: str, number: int) -> None:
        self.mode, self.number, self.seen = mode, number, 0
        self._fsync, self._open = os.fsync, io.open
        sys.addaudithook(self.audited)
        os.fsync = self.fsync
        io.open = builtins.open = self.open

    def due(self, what: str) -> bool:
        if self.mode == "full" and what not in FULL:
            return False
        self.seen += 1
        return self.seen == self.number

    def strike(self) -> None:
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")

    def audited(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_TRUNC):
            event = "creating"
        if event == "os.mkdir" and os.path.isdir(arguments[0]):  # noqa: PTH112 - nothing would be written
            return
        if (event in CHANGES or event == "creating") and self.due(event.replace("creating", "open")):
            self.strike()

    def fsync(self, descriptor: int) -> None:
        if self.due("fsync"):
            self.strike()
        self._fsync(descriptor)

    def open(self, file, mode="r", buffering=-1, *rest, **kwargs):
        if "b" in mode and set(mode) & set("wxa+"):
            raw = Counted(file, mode.replace("b", ""), points=self, closefd=kwargs.get("closefd", True))
            return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return self._open(file, mode, buffering, *rest, **kwargs)


class Counted(io.FileIO):
    """A file whose writes are failpoints."""

    def __init__(self, file, mode, *, points, closefd):
        super().__init__(file, mode, closefd=closefd)
        self.points = points

    def write(self, data):
        if self.points.due("write"):
            super().write(memoryview(data).cast("B")[: len(data) // 2])
            self.points.strike()
        return super().write(data)


def struck(mode, number, config, source):
    """Ingest in a child that is struck at its call `number`; say how it ended, "whole" when it came to its end without that."""
    child = os.fork()
    if child == 0:
        points = Failpoints(mode, number)
        try:
            ingest(config, source)
        except ResourceError as error:
            os._exit(error.exit_code)
        os._exit(TOLERATED if points.seen >= number else 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    code = os.waitstatus_to_exitcode(status)
    return {0: "whole", 6: "full", TOLERATED: "tolerated"}.get(code, f"exit {code}")


def leftovers(folder):
    """Everything that no finished run leaves behind: temporary names, staged folders, unfinished copies."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.startswith((".", "tmp")) or "staging" in path.parts or path.suffix in {".tmp", ".part"}
    )


def main(study, folder, source, mode, first, step):
    number, ended = first, ""
    while ended != "whole":
        config = load(study, folder=Path(folder) / str(number), overrides=["site.executor=inline"])
        ended = struck(mode, number, config, source)
        dataset = ingest(config, source)
        manifest = dataset.manifest
        report = {
            "at": number,
            "ended": ended,
            "digest": dataset.digest,
            "intact": config.workspace.ledger.verify().intact,
            "actions": Counter(event.action for event in config.workspace.ledger.events()),
            "counts": [manifest.received, manifest.accepted, sum(manifest.rejected.values()), manifest.duplicates],
            "quarantine": sorted(path.name for path in config.workspace.quarantine.iterdir()),
            "index": sorted((config.workspace.quarantine / "index.jsonl").read_text().splitlines()),
            "stored": sorted(path.name for path in config.workspace.store.iterdir()),
            "leftovers": leftovers(config.workspace.folder),
        }
        print(json.dumps(report), flush=True)
        number += step


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]))
