"""Datasets of made-up cases, put straight into a store, for benchmarks that need sizes and not pictures; imports no torch."""

from pathlib import Path

import numpy as np
import yaml

from bedside.core.config import Config, load
from bedside.core.dataset import CaseRecord, Dataset, Manifest, VolumeRecord
from bedside.core.digest import canonical_json
from bedside.data.split import split_patients

STUDY = {
    "study": "balls",
    "contract": {"modality": "MR", "spacing_mm": [0.5, 2.0], "labels": {"background": 0, "ball": 1, "shell": 2}},
    "source": {"identity": "keep"},
    "split": {"test": 0.0, "folds": 2, "seed": 0},
    "task": {"name": "segmentation"},
    "train": {"minutes": None, "steps": 3, "precision": "fp32"},
    "promote": {"gates": [{"name": "provenance"}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}]},
}
SITE = "versioning: off\ntracking: off\nthreads: {threads}\n"


def write_study(folder: Path, *, threads: int = 1, **changes: dict[str, object]) -> Config:
    """Write study.yaml, with sections replaced or merged, and a site that mirrors nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    study: dict[str, object] = dict(STUDY)
    for section, values in changes.items():
        before = study.get(section)
        study[section] = {**before, **values} if isinstance(before, dict) and "name" not in values else values
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    (folder / "site.yaml").write_text(SITE.format(threads=threads))
    return load(folder)


def put_balls(config: Config, *, cases: int, shape: tuple[int, int, int]) -> Dataset:
    """Put cases of a bright ball with a shell, in noise, into the store with the event that an ingest writes."""
    records = []
    with config.workspace.staging() as staged:
        for index in range(cases):
            for role, array in _volumes(np.random.default_rng(index), shape).items():
                np.save(staged / f"p{index}.{role}.npy", array)
            records.append(_record(f"p{index}", shape))
        splits = split_patients([record.patient for record in records], test=0.0, folds=2, seed=0)
        manifest = Manifest(
            study="balls",
            contract=config.study.contract,
            cases=tuple(records),
            splits=splits,
            received=2 * cases,
            accepted=2 * cases,
            rejected={},
            duplicates=0,
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        digest = config.workspace.put(staged)
    config.workspace.ledger.append("ingested", outputs={"dataset": digest})
    return Dataset(digest, config.workspace)


def _volumes(rng: np.random.Generator, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    centre = [rng.uniform(0.4, 0.6) * side for side in shape]
    axes = (((np.arange(side, dtype=np.float32) - at) / (side / 4)) ** 2 for side, at in zip(shape, centre, strict=True))
    far = sum(np.meshgrid(*axes, indexing="ij", sparse=True))
    label = ((far < 1).astype(np.uint8) + (far < 0.5))[None]
    image = rng.standard_normal(label.shape, dtype=np.float32) * 0.5 + label
    return {"image": image, "label": label.astype(np.uint8)}


def _record(name: str, shape: tuple[int, int, int]) -> CaseRecord:
    affine = tuple(tuple(float(value) for value in row) for row in np.eye(4))
    volumes = {
        role: VolumeRecord(file=f"{name}.{role}.npy", affine=affine, shape=(1, *shape), source="0" * 64, geometry="sform")
        for role in ("image", "label")
    }
    return CaseRecord(id=name, patient=name, volumes=volumes)
