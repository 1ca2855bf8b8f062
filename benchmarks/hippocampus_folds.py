"""Cross-validation on the hippocampus, and the models of the folds as one on the locked test split.

python benchmarks/hippocampus_folds.py --from ../shared/data/hippocampus_dev --minutes 15 --folder /tmp/folds

Every fold trains for the minutes with nothing else set, and is scored once, at its end: no weights are chosen by the fold that
they are scored on. A second run goes on where the first was interrupted.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from hippocampus import STUDY, Lines, machine

import bedside as bs
from bedside.core.evidence import Evidence
from bedside.engines.ensemble import make_ensemble
from bedside.metrics.intervals import bootstrap_interval


def row(name: str, found: Sequence[Evidence]) -> str:
    """Mean Dice with its interval over all patients that were scored, structure by structure and over both."""
    cells = []
    patients = 0
    labels = [label for label in found[0].summaries["dice"] if label != "mean"]
    for chosen in (*([label] for label in labels), labels):
        values = [
            statistics.fmean(evidence.scores["dice"][label][patient] for label in chosen)
            for evidence in found
            for patient in evidence.scores["dice"][labels[0]]
        ]
        interval, patients = bootstrap_interval(values), len(values)
        cells.append(f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]")
    return f"| {name} | {patients} | " + " | ".join(cells) + " |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--from", dest="source", required=True)
    arguments.add_argument("--minutes", type=float, default=15.0)
    arguments.add_argument("--folder", required=True, type=Path)
    arguments.add_argument("--set", action="append", default=[])
    given = arguments.parse_args()
    runs, found = [], []
    asked = [f"train.minutes={given.minutes:g}", "train.validations=1", *given.set]
    config = bs.load(STUDY, overrides=asked, folder=given.folder)
    dataset = bs.ingest(config, given.source)
    for fold in range(config.study.split.folds):
        of_fold = bs.load(STUDY, overrides=[*asked, f"train.fold={fold}"], folder=given.folder)
        runs.append(bs.train(of_fold, dataset, progress=Lines()))
        found.append(bs.evaluate(runs[-1].best(), dataset.cases(f"fold{fold}"), settings=config.study.evaluate))
        print(row(f"fold {fold}", found[-1:]), file=sys.stderr, flush=True)
    whole = make_ensemble(config.workspace, [run.best() for run in runs], study_digest=config.study.digest())
    together = bs.evaluate(whole, dataset.cases("test"), settings=config.study.evaluate)
    labels = [label for label in together.summaries["dice"] if label != "mean"]
    print(f"machine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print(
        "Dice, 95 % intervals over patients\n\n| scored on | patients | " + " | ".join([*labels, "mean"]) + " | minutes | steps |"
    )
    print("|---" * (len(labels) + 5) + "|")
    for number, (run, one) in enumerate(zip(runs, found, strict=True)):
        print(f"{row(f'fold {number}', [one])} {run.record.minutes:.1f} | {run.record.steps} |")
    print(f"{row('all folds, each by the model that never saw it', found)} | |")
    print(f"{row('locked test split, mean of the five models', [together])} | |")


if __name__ == "__main__":
    main()
