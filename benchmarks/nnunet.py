"""Accuracy per minute beside nnU-Net: both train on the same cases for as many minutes; scored on the same locked test split.

python benchmarks/nnunet.py --from ../shared/data/hippocampus_dev --peer PYTHON --minutes 15 --folder FOLDER [--set KEY=VALUE]

PYTHON is the interpreter of an environment of its own with torch and nnunetv2 (with a processor's torch leave out torchvision
and timm). Both plan for themselves; one trains after the other, with all processors and nothing beside it. nnU-Net gets its whole
poly schedule fitted into the minutes (of its trainer's 250,000 steps it would hardly have begun), trains on all cases, and
predicts with its own mirroring. Reading, planning and preprocessing do not count as training on either side. One score for both.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
from hippocampus import STUDY, Lines, machine

import bedside as bs
from bedside.core.dataset import Dataset
from bedside.formats.nifti import write_nifti
from bedside.metrics.intervals import bootstrap_interval
from bedside.metrics.overlap import dice

DATASET = "Dataset001_benchmark"
PEER = Path(__file__).with_name("nnunet_peer.py")


def write_raw(dataset: Dataset, raw: Path, labels: dict[str, int]) -> None:
    """Write the cases as nnU-Net wants them received: its training set is our development set."""
    for folder, split, roles in (("Tr", "development", ("image", "label")), ("Ts", "test", ("image",))):
        for case in dataset.cases(split):
            for role in roles:
                name = f"{case.id}_0000.nii.gz" if role == "image" else f"{case.id}.nii.gz"
                place = raw / f"{role}s{folder}"
                place.mkdir(parents=True, exist_ok=True)
                write_nifti(place / name, case.volumes[role].array[0], case.volumes[role].affine)
    written = len(list((raw / "imagesTr").iterdir()))
    told = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": written, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(told))


def scores(dataset: Dataset, predicted: Path, labels: dict[str, int]) -> dict[str, float]:
    """Mean Dice over structures of each patient of the test split."""
    found: dict[str, list[float]] = {}
    for case in dataset.cases("test"):
        answer = np.asarray(nibabel.load(predicted / f"{case.id}.nii.gz").dataobj)
        truth = case.volumes["label"].array[0]
        found.setdefault(case.patient, []).extend(dice(answer == label, truth == label) for label in labels.values() if label)
    return {patient: statistics.fmean(values) for patient, values in found.items()}


def interval(values: list[float]) -> str:
    found = bootstrap_interval(values)
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--from", dest="source", required=True)
    arguments.add_argument("--study", type=Path, default=STUDY)
    arguments.add_argument("--peer", required=True)
    arguments.add_argument("--minutes", type=float, default=15.0)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--set", action="append", default=[])
    given = arguments.parse_args()
    config = bs.load(given.study, overrides=[f"train.minutes={given.minutes:g}", *given.set], folder=given.folder / "ours")
    dataset = bs.ingest(config, given.source)
    labels = {name: number for number, name in enumerate(config.study.contract.labels)}
    run = bs.train(config, dataset, progress=Lines())
    evidence = bs.evaluate(run.best(), dataset.cases("test"), settings=config.study.evaluate)
    ours = evidence.scores["dice"]
    mean = {patient: statistics.fmean(row[patient] for row in ours.values()) for patient in next(iter(ours.values()))}
    root = given.folder / "nnunet"
    if not (root / "raw" / DATASET / "dataset.json").is_file():
        write_raw(dataset, root / "raw" / DATASET, labels)
    subprocess.run([given.peer, str(PEER), str(root), DATASET, str(given.minutes)], check=True, stdout=sys.stderr)
    peer = json.loads((root / "said.json").read_text())
    theirs = scores(dataset, root / "predicted", labels)
    record, patients = run.record, sorted(theirs)
    print(f"machine: {machine()}\ncommand: {' '.join(['python', *sys.argv])}\n")
    print(f"{len(patients)} patients of the locked test split; mean Dice over structures, 95 % intervals over patients\n")
    print("| | minutes of training | steps | patch | batch | s per step | Dice |\n|---|---|---|---|---|---|---|")
    plan = record.plan
    rows = (
        ("bedside", record.minutes, record.steps, plan.patch, plan.batch, mean),
        (f"nnU-Net {peer['version']}", peer["minutes"], peer["steps"], peer["patch"], peer["batch"], theirs),
    )
    for name, minutes, steps, patch, batch, found in rows:
        shape = " x ".join(map(str, patch))
        took = f"{60 * minutes / steps:.2f}"
        dices = interval([found[patient] for patient in patients])
        print(f"| {name} | {minutes:.1f} | {steps} | {shape} | {batch} | {took} | {dices} |")
    print(f"\ndifference, patient by patient: {interval([mean[patient] - theirs[patient] for patient in patients])}")


if __name__ == "__main__":
    main()
