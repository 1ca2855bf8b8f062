"""Train on two intensity domains of the hippocampus scans, test on the third: plain, stronger augmentation, domain-adversarial.

OMP_NUM_THREADS=1 nice -n 10 python benchmarks/domains.py --from ../shared/data/hippocampus_dev --steps 300

The domains are those of PROVENANCE.txt: images stored as 8-bit integers, as floats below 100,000 and above. Each is left out
once. Every arm has the same cases, seed, network, patches and steps, by the steps of `bedside train` themselves. The table is
Markdown.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from hippocampus import machine

from bedside.core.config import Augmentation
from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord
from bedside.core.lesson import Classroom, Teacher, lesson_of
from bedside.core.model import Preprocessing
from bedside.core.plan import Machine, Plan
from bedside.core.record import Part
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.data.transforms import prepare, prepare_label
from bedside.formats.nifti import read_nifti
from bedside.networks.unet import DynUNet
from bedside.tasks.domain_adversarial import DomainAdversarial
from bedside.tasks.segmentation import Segmentation
from bedside.train.loop import Learner
from bedside.train.validate import foreground_dice

DOMAINS = ("uint8", "float_low", "float_high")
STRONG = Augmentation(noise=0.3, brightness=0.3, contrast=0.4, gamma=0.5, blur=1.0, probability=0.5)
LABELS = {"background": 0, "anterior": 1, "posterior": 2}
CONTRACT = Contract(modality="MR", spacing_mm=(0.9, 1.1), unit="arbitrary", labels=LABELS)


def examples(source: Path, preprocessing: Preprocessing) -> dict[str, list[Example]]:
    """Prepared cases of each domain."""
    with (source / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[Example]] = {domain: [] for domain in DOMAINS}
    for row in rows:
        image, label = (read_nifti(source / role / f"{row['id']}.nii.gz").volume for role in ("images", "labels"))
        truth = prepare_label(label, preprocessing)
        found[row["group"]].append(Example(prepare(image, preprocessing).array, truth, find_foreground(truth), row["id"]))
    return found


def nobody(digest: str) -> Teacher:
    raise LookupError(digest)


def learner(task: Part, cases: dict[str, list[Example]], plan: Plan) -> Learner:
    """Made as a training makes it, with fresh weights of the seed."""
    records = tuple(
        CaseRecord(id=case.id, patient=case.id, volumes={}, clinical={"domain": domain})
        for domain, some in cases.items()
        for case in some
    )
    lesson = lesson_of(task, Classroom(CONTRACT, records, plan.preprocessing, plan.patch, nobody))
    together = [case for some in cases.values() for case in some]
    torch.manual_seed(plan.seed)
    net = plan.network.build(1, len(LABELS))  # type: ignore[attr-defined]
    sampler = PatchSampler(together, plan.patch, plan.batch, plan.foreground, plan.seed)
    return Learner(net, task, sampler, plan, "fp32", lesson=lesson)  # type: ignore[arg-type]


def said(values: list[float]) -> str:
    """Mean with its 95 % bootstrap interval over cases."""
    array, chance = np.array(values), np.random.default_rng(0)
    low, high = np.percentile(array[chance.integers(0, len(array), (4000, len(array)))].mean(axis=1), (2.5, 97.5))
    return f"{array.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--from", dest="source", required=True, type=Path)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--patch", type=int, nargs=3, default=(32, 40, 32))
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--cases", type=int, default=25, help="of the unseen domain that are scored, spread evenly")
    arguments.add_argument("--weight", type=float, default=0.1, help="of the adversarial arm")
    arguments.add_argument("--clip", type=float, nargs=2, help="clip to these limits instead of z-scores: a wide gap of domains")
    given = arguments.parse_args()
    way = Preprocessing(clip=tuple(given.clip), normalise="clip") if given.clip else Preprocessing()
    every = examples(given.source, way)
    adversary = DomainAdversarial(task=Segmentation(), column="domain", weight=given.weight)
    arms = {
        "plain": (Segmentation(), Augmentation()),
        "stronger augmentation": (Segmentation(), STRONG),
        "domain-adversarial": (adversary, Augmentation()),
    }
    print(f"machine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print(
        "| left out (scored) | learned from | arm | Dice of the unseen domain | difference to plain, paired |\n"
        + "|---" * 5
        + "|"
    )
    for left_out in DOMAINS:
        cases = {domain: some for domain, some in every.items() if domain != left_out}
        unseen = every[left_out]
        unseen = [unseen[round(at)] for at in np.linspace(0, len(unseen) - 1, min(given.cases, len(unseen)))]
        plain: list[float] = []
        for arm, (task, augment) in arms.items():
            by_seed = []
            for seed in range(given.seeds):
                plan = Plan(
                    preprocessing=way,
                    network=DynUNet(features=8, levels=4),
                    patch=tuple(given.patch),
                    batch=2,
                    micro_batch=2,
                    precision="fp32",
                    learning_rate=2e-3,
                    weight_decay=1e-2,
                    ema=0.95,
                    foreground=0.5,
                    seed=seed,
                    augment=augment,
                    minutes=None,
                    steps=given.steps,
                    memory_mb=8000.0,
                    machine=Machine(cores=1, memory_mb=8000.0),
                )
                trained = learner(task, cases, plan)
                for step in range(given.steps):
                    trained.step(step, given.steps)
                score = [foreground_dice(trained.ema, [case], task=trained.task, patch=plan.patch) for case in unseen]
                by_seed.append(score)
            values = [statistics.fmean(each) for each in zip(*by_seed, strict=True)]
            paired = said([value - before for value, before in zip(values, plain, strict=True)]) if plain else ""
            plain = plain or values
            count = sum(map(len, cases.values()))
            print(f"| {left_out} ({len(values)}) | {count} | {arm} | {said(values)} | {paired} |", flush=True)


if __name__ == "__main__":
    main()
