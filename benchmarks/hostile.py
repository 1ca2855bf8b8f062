"""What the hostile corpus and random mutations cost at the door: families, codes, slowest, largest.

python benchmarks/hostile.py [--mutations 100000]
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.hostile.mutations import Batch, batches, pass_batch
from tests.hostile.passing import results

from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import Lost


def corpus_table(folder: str) -> None:
    rows, lost = defaultdict(list), 0
    for one in results(folder):
        lost += isinstance(one.passage, Lost)
        rows[one.specimen.family].append(one)
    print("| family | files | refused | accepted | codes | slowest, CPU s | memory MB | faults |")
    print("|---|---:|---:|---:|---|---:|---:|---:|")
    total = Counter()
    for family, members in rows.items():
        passages = [one.passage for one in members if not isinstance(one.passage, Lost)]
        taken = sum(one.specimen.mutant in one.passage.taken for one in members if not isinstance(one.passage, Lost))
        codes = Counter(code for passage in passages for code in passage.codes if code != "SERIES_INCOMPLETE")
        named = ", ".join(f"{code} {count}" for code, count in codes.most_common(3))
        slowest = max((passage.seconds for passage in passages), default=0.0)
        memory = max((passage.memory_mb for passage in passages), default=0.0)
        faults = sum(len(one.faults) for one in members)
        count = len(members)
        print(f"| {family} | {count} | {count - taken} | {taken} | {named} | {slowest:.2f} | {memory:.0f} | {faults} |")
        total.update(files=len(members), taken=taken, faults=faults)
    files, taken = total["files"], total["taken"]
    print(f"| **{len(rows)} families** | {files} | {files - taken} | {taken} | | | | {total['faults']} |")
    print(f"\nWorkers that died: {lost}. Accepted are files whose oddity is harmless (the test says which must be).\n")


def mutation_table(folder: str, total: int) -> None:
    codes, faults, lost = defaultdict(Counter), [], []
    slowest = memory = 0.0
    began = time.monotonic()
    with LocalProcesses(2, memory_gb=2, seconds=60) as executor:
        waiting = list(batches(total))
        while waiting:
            for batch, tally in zip(waiting, executor.map(partial(pass_batch, folder), waiting), strict=True):
                if isinstance(tally, Lost) and batch.count > 1:
                    lost += [Batch(batch.kind, batch.first + number, 1) for number in range(batch.count)]
                elif isinstance(tally, Lost):
                    codes[batch.kind][f"worker {tally.why}"] += 1
                else:
                    codes[batch.kind].update(tally.codes)
                    faults += tally.faults
                    slowest, memory = max(slowest, tally.seconds), max(memory, tally.memory_mb)
            waiting, lost = lost, []
    seconds = time.monotonic() - began
    print("| mutations of | files | accepted | worker died | most frequent codes |")
    print("|---|---:|---:|---:|---|")
    for kind, counts in codes.items():
        refused = Counter({code: n for code, n in counts.items() if code not in {"accepted", "worker died"}})
        named = ", ".join(f"{code} {count}" for code, count in refused.most_common(4))
        print(f"| {kind} | {counts.total()} | {counts['accepted']} | {counts['worker died']} | {named} |")
    done = sum(counts.total() for counts in codes.values())
    print(f"\n{done} mutations in {seconds:.0f} s with 2 workers; slowest {slowest:.2f} CPU s, largest {memory:.0f} MB more;")
    print(f"other exceptions, files unaccounted for, or writes: {len(faults)}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        corpus_table(place)
        mutation_table(place, asked.mutations)
