"""A study small enough to train in a second: bright balls in noise, 20 x 18 x 16 voxels."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from bedside.core.config import Config, load
from bedside.core.dataset import CaseRecord, Dataset, Manifest, Splits, VolumeRecord
from bedside.core.digest import canonical_json, digest_file
from bedside.core.workspace import Workspace
from bedside.data.split import split_patients

STUDY = {
    "study": "balls",
    "contract": {"modality": "MR", "spacing_mm": [0.5, 2.0], "labels": {"background": 0, "ball": 1}},
    "source": {"identity": "keep"},
    "split": {"test": 0.25, "folds": 2, "seed": 0},
    "task": {"name": "segmentation"},
    "network": {"name": "unet", "features": 4, "levels": 2, "residual_units": 0},
    "train": {"minutes": None, "steps": 24, "patch": [16, 16, 16], "batch": 2, "fold": None, "precision": "fp32"},
    "promote": {"gates": [{"name": "provenance"}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}]},
}


def write_study(folder: Path, **train: object) -> Path:
    """Write study.yaml (with changes to its train section) and a site that mirrors nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    study = {**STUDY, "train": {**STUDY["train"], **train}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    (folder / "site.yaml").write_text("versioning: off\ntracking: off\nthreads: 1\n")
    return folder


def put_dataset(workspace: Workspace, contract: object, *, cases: int = 8, splits: Splits | None = None) -> Dataset:
    """Put a dataset of balls, patients p0, p1, ..., into the store, with the event that a real ingest writes."""
    records = []
    with workspace.staging() as staged:
        for index in range(cases):
            rng = np.random.default_rng(index)
            grid = np.stack(np.meshgrid(*(np.arange(n) for n in (20, 18, 16)), indexing="ij"))
            centre = rng.uniform(6, 10, 3)[:, None, None, None]
            label = (((grid - centre) ** 2).sum(0) < rng.uniform(3, 5) ** 2).astype(np.uint8)[None]
            image = (label * 3 + rng.normal(0, 0.5, label.shape)).astype(np.float32)
            volumes = {}
            for role, array in (("image", image), ("label", label)):
                np.save(staged / "array.npy", array)
                file = f"{digest_file(staged / 'array.npy')}.npy"
                (staged / "array.npy").rename(staged / file)
                affine = tuple(tuple(float(v) for v in row) for row in np.eye(4))
                volumes[role] = VolumeRecord(file=file, affine=affine, shape=array.shape, source="0" * 64, geometry="sform")
            records.append(CaseRecord(id=f"p{index}", patient=f"p{index}", volumes=volumes))
        splits = splits or split_patients([record.patient for record in records], test=0.25, folds=2, seed=0)
        manifest = Manifest(
            study="balls",
            contract=contract,
            cases=tuple(records),
            splits=splits,
            received=2 * cases,
            accepted=2 * cases,
            rejected={},
            duplicates=0,
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        digest = workspace.put(staged)
    workspace.ledger.append("ingested", outputs={"dataset": digest})
    return Dataset(digest, workspace)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(write_study(tmp_path / "balls"))


@pytest.fixture
def dataset(config: Config) -> Dataset:
    return put_dataset(config.workspace, config.study.contract)
