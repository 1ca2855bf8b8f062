"""Ingest one folder again and again, each time killed (kill -9) at another of its file-system calls, then once to the end.

Prints one JSON line per kill: where, whether the kill struck, and what the run after it gave. With a second folder, that one is
ingested before, and the first is added to it.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from bedside.core.config import Config, load
from bedside.core.digest import digest_tree
from bedside.ingest.pipeline import ingest

CALLS = {"open", "os.rename", "os.mkdir", "os.chmod", "os.truncate", "os.remove", "shutil.rmtree", "tempfile.mkdtemp"}


def killed_at(number: int, config: Config, source: str, *, add: bool) -> bool:
    """Ingest in a child that kills itself at its call `number`; say whether it got that far."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, _: tuple[object, ...]) -> None:
            nonlocal seen
            if event in CALLS:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        ingest(config, source, add=add)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def main(study: str, folder: str, source: str, step: int, before: str = "") -> None:
    number, struck, parent = 1, True, ""
    if before:
        parent = ingest(load(study, folder=Path(folder) / "before", overrides=["site.executor=inline"]), before).digest
    while struck:
        config = load(study, folder=Path(folder) / str(number), overrides=["site.executor=inline"])
        if before:
            shutil.copytree(Path(folder) / "before", config.workspace.folder)
        struck = killed_at(number, config, source, add=bool(before))
        dataset = ingest(config, source, add=bool(before))
        events = list(config.workspace.ledger.events())
        report = {
            "at": number,
            "struck": struck,
            "digest": dataset.digest,
            "parent": digest_tree(config.workspace.store / parent) if before else "",
            "intact": config.workspace.ledger.verify().intact,
            "actions": Counter(event.action for event in events),
            "quarantine": sorted(path.name for path in config.workspace.quarantine.glob("[0-9a-f]*") if len(path.name) == 64),
            "unfinished": len(list(config.workspace.quarantine.glob(".*"))),
            "index": (config.workspace.quarantine / "index.jsonl").read_text(),
        }
        print(json.dumps(report), flush=True)
        number += step


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:])
