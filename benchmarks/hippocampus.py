"""The hippocampus table of the README: ingest, train, evaluate, promote, accelerate on the real scans.

python benchmarks/hippocampus.py --from ../shared/data/hippocampus_dev --minutes 30 --folder /tmp/hippocampus
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import bedside as bs
from bedside.accelerate.pipeline import try_stages
from bedside.core.evidence import Evidence
from bedside.evaluate.report import write_report
from bedside.promote.policy import freeze

STUDY = Path(__file__).resolve().parents[1] / "studies" / "hippocampus.yaml"
SHOWN = ("dice", "surface_dice", "hd95_mm")


class Lines:
    """Progress as lines, for a log."""

    def start(self, what: str, total: float | None) -> None:
        print(f"# {what}: {total:g}" if total else f"# {what}", file=sys.stderr, flush=True)
        self.next = 0.0

    def advance(self, done: float, note: str = "") -> None:
        if done >= self.next:
            print(f"#   {done:g} {note}", file=sys.stderr, flush=True)
            self.next = done + 100


def machine() -> str:
    """Processor, cores to be had, torch."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
    flags = next((line for line in lines if line.startswith("flags")), "")
    half = "with" if "avx512_bf16" in flags or "amx_bf16" in flags else "without"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {half} bf16 instructions, Python {platform.python_version()}, torch {torch.__version__}"


def scores(evidence: Evidence) -> str:
    """The table, in Markdown."""
    labels = list(next(iter(evidence.summaries.values())))
    lines = ["| metric | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for metric in SHOWN:
        cells = [evidence.summaries[metric][label] for label in labels]
        lines.append(f"| {metric} | " + " | ".join(f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--from", dest="source", required=True)
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--folder", required=True)
    arguments.add_argument("--set", action="append", default=[])
    given = arguments.parse_args()
    config = bs.load(STUDY, overrides=[f"train.minutes={given.minutes:g}", *given.set], folder=given.folder)
    dataset = bs.ingest(config, given.source)
    run = bs.train(config, dataset, progress=Lines())
    freeze(config.workspace.ledger, config.promote)
    evidence = bs.evaluate(run.best(), dataset.cases("test"), settings=config.study.evaluate)
    report = write_report(evidence, config.workspace)
    promotion = bs.promote(run.best(), evidence, config.promote)
    cases = dataset.cases("calibrate", limit=config.study.accelerate.cases)
    stages = try_stages(run.best(), cases, settings=config.study.accelerate)
    record = run.record
    n = evidence.summaries["dice"]["mean"].n
    print(f"machine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print(f"{n} patients of the locked test split, 95 % intervals over patients; trained {record.minutes:.1f} minutes,")
    print(f"{record.steps} steps of {record.seconds_per_step:.2f} s, peak memory {record.peak_memory_mb:.0f} MB")
    print(f"schedule: {[(plan.at, plan.total) for plan in record.schedule]}\n")
    print(scores(evidence) + "\n")
    missed, invented = (sum(map(len, group.values())) for group in (evidence.missed, evidence.hallucinated))
    print(f"missed {missed}, hallucinated {invented}; report {report.name}")
    print(f"promoted: {promotion.passed}: " + " ".join(verdict.because for verdict in promotion.verdicts) + "\n")
    print("| stage | max diff | mean diff | flips | largest Dice change | p50 s | p95 s | speed | verdict |")
    print("|---" * 9 + "|")
    for stage in stages.stages:
        found = stage.measured
        if found is None:
            print(f"| {stage.name} | | | | | | | | {stage.because} |")
            continue
        worst = max(abs(dice.difference) for dice in found.dice.values())
        differences = f"{found.max_difference:.1e} | {found.mean_difference:.1e} | {found.flips} of {found.voxels} | {worst:.4f}"
        seconds = f"{found.seconds_stage.p50:.3f} | {found.seconds_stage.p95:.3f} | {found.speed_ratio:.2f}x"
        print(f"| {stage.name} | {differences} | {seconds} | {stage.because} |")
    print(f"\n{bs.verify(config.workspace).chain}")


if __name__ == "__main__":
    main()
