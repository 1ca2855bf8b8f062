"""The whole corpus through the door, each specimen in a limited worker, as ingest does it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import Lost

from .corpus import REFUSED, SOUND, corpus
from .door import pass_door

MOST_SECONDS, MOST_MEMORY_MB = 2.0, 600.0


@dataclass(frozen=True)
class Result:
    """A specimen and what came of it: a `Passage`, or `Lost`."""

    specimen: object
    passage: object

    @property
    def faults(self):
        """Everything that is not as it must be."""
        one, asked = self.passage, self.specimen
        if isinstance(one, Lost):
            return [f"the worker was lost: {one.why}"] if asked.expect == SOUND or one.why != "died" else []
        found = []
        if not one.adds_up:
            found.append(f"{one.received} received, {one.accepted} + {one.rejected} + {one.duplicates} accounted for")
        if one.received != len(asked.files):
            found.append(f"{len(asked.files)} written, {one.received} received")
        if one.exit_code not in {0, 3, 7}:
            found.append(f"exit code {one.exit_code}")
        if asked.expect == REFUSED and asked.mutant in one.taken:
            found.append("accepted")
        if asked.expect == SOUND and asked.mutant not in one.taken:
            found.append(f"refused: {one.codes}")
        if asked.codes and asked.mutant not in one.taken and not set(asked.codes) & set(one.codes):
            found.append(f"refused as {one.codes}, not {asked.codes}")
        if one.seconds > MOST_SECONDS:
            found.append(f"took {one.seconds:.1f} s")
        if one.memory_mb > MOST_MEMORY_MB:
            found.append(f"took {one.memory_mb:.0f} MB")
        return found


def results(root, *, workers=1, specimens=None):
    """Let specimens through the door, in order; their files are removed again."""
    chosen = corpus() if specimens is None else specimens

    def folders():
        for number, specimen in enumerate(chosen):
            folder = Path(root) / str(number)
            specimen.write(folder)
            yield folder

    with LocalProcesses(workers, memory_gb=2, seconds=20) as executor:
        for number, passage in enumerate(executor.map(pass_door, folders())):
            shutil.rmtree(Path(root) / str(number))
            yield Result(chosen[number], passage)
