"""Sound files of every kind, spoilt by seed: 20,000 here, `BEDSIDE_MUTATIONS=100000` for more."""

import os
from collections import Counter
from functools import partial

from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import Lost

from .corpus_streams import NAMES
from .mutations import KINDS, Batch, batches, mutated, pass_batch, sound

TOTAL = int(os.environ.get("BEDSIDE_MUTATIONS", "20000"))
NATIVE = set(NAMES.values()) - {"RLE"}
"""Kinds that a library in C or C++ decodes: on these a worker may die, which costs the one file."""


def test_no_mutation_gives_anything_but_a_refusal_or_a_volume(tmp_path):
    codes, faults, lost = Counter(), [], []
    door = partial(pass_batch, str(tmp_path))
    with LocalProcesses(2, memory_gb=2, seconds=60) as executor:
        first = list(batches(TOTAL))
        for batch, tally in zip(first, executor.map(door, first), strict=True):
            if isinstance(tally, Lost):
                lost += [Batch(batch.kind, number, 1) for number in range(batch.first, batch.first + batch.count)]
            else:
                codes.update(tally.codes)
                faults += tally.faults
                faults += [f"{batch}: {tally.seconds:.1f} s"] if tally.seconds > 2 else []
                faults += [f"{batch}: {tally.memory_mb:.0f} MB"] if tally.memory_mb > 600 else []
        for batch, tally in zip(lost, executor.map(door, lost), strict=True):
            if isinstance(tally, Lost):
                codes[f"worker {tally.why}"] += 1
                faults += [f"{batch}: {tally.why}"] if tally.why != "died" or batch.kind not in NATIVE else []
            else:
                codes.update(tally.codes)
                faults += tally.faults
    assert faults == []
    assert sum(codes.values()) >= TOTAL
    assert codes["accepted"] < sum(codes.values()) / 2
    assert len(codes) >= 20


def test_what_is_spoilt_was_sound_and_is_the_same_every_time(tmp_path):
    for kind in KINDS:
        tally = pass_batch(tmp_path, Batch(kind, 0, 0))
        assert (tally.codes, tally.faults) == (Counter(), ())
        assert mutated(kind, 3) == mutated(kind, 3) != mutated(kind, 4)
        assert sum(mutated(kind, number) != sound(kind)[-1 if len(sound(kind)) == 1 else 1] for number in range(50)) > 45
