"""A small study whose every error is known: masks are boxes, and a fake predictor makes the errors it was told to make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bedside.core.case import Case, Prediction
from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord, Dataset, Manifest, Splits, VolumeRecord
from bedside.core.digest import canonical_json, digest_bytes
from bedside.core.errors import InputRejected
from bedside.core.evidence import Evidence
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.workspace import Workspace
from bedside.evaluate.pipeline import evaluate_predictor

LABELS = {"background": 0, "left_box": 1, "right_box": 2}
SHAPE = (24, 20, 16)
SPACING_MM = (1.0, 2.0, 3.0)
CONTRACT = Contract(modality="CT", spacing_mm=(0.5, 5.0), labels=LABELS)


@dataclass(frozen=True)
class Planned:
    """A case to be made."""

    id: str
    patient: str
    scanner: str = ""
    site: str = ""
    mask: np.ndarray = field(default_factory=lambda: boxes())


def boxes(*, left: bool = True, right: bool = True) -> np.ndarray:
    """Two boxes of 4 x 4 x 4 voxels, (I, J, K)."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 6:10, 5:9] = 1 if left else 0
    mask[14:18, 6:10, 5:9] = 2 if right else 0
    return mask


def image_of(mask: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(int(mask.sum()))
    return (100.0 * mask + generator.normal(0, 20, mask.shape)).astype(np.float32)


def dataset(workspace: Workspace, planned: Sequence[Planned], *, split: str = "test") -> Dataset:
    affine = np.diag([*SPACING_MM, 1.0])
    records = []
    with workspace.staging() as staged:
        for case in planned:
            volumes = {}
            for role, array in (("image", image_of(case.mask)), ("label", case.mask)):
                name = f"{case.id}-{role}.npy"
                np.save(staged / name, array[None], allow_pickle=False)
                volumes[role] = VolumeRecord(
                    file=name,
                    affine=affine.tolist(),
                    shape=(1, *array.shape),
                    source=digest_bytes(name.encode()),
                    geometry="sform",
                )
            records.append(CaseRecord(id=case.id, patient=case.patient, volumes=volumes, site=case.site, scanner=case.scanner))
        patients = tuple(dict.fromkeys(case.patient for case in planned))
        splits = Splits(test=patients, folds=((), ())) if split == "test" else Splits(test=(), folds=(patients, ()))
        count = len(records)
        manifest = Manifest(
            study="boxes",
            contract=CONTRACT,
            cases=tuple(records),
            splits=splits,
            received=count,
            accepted=count,
            rejected={},
            duplicates=0,
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        return Dataset(workspace.put(staged), workspace)


def model(
    workspace: Workspace,
    *,
    write: Callable[[Path], None] | None = None,
    labels: Mapping[str, int] = LABELS,
    partial: Sequence[Mapping[str, object]] = (),
) -> Model:
    spec = ModelSpec(
        study="boxes",
        format="safetensors",
        task={"name": "segmentation", "partial": list(partial)},
        network={"name": "unet", "features": 2, "levels": 2, "residual_units": 0},
        contract=CONTRACT.model_copy(update={"labels": dict(labels)}),
        preprocessing=Preprocessing(),
        patch=(16, 16, 16),
        overlap=0.25,
        in_channels=1,
        out_channels=len(labels),
        dataset="0" * 64,
        run="1" * 64,
        study_digest="2" * 64,
        engine={"name": "torch", "precision": "fp32", "threads": None},
    )
    with workspace.staging() as staged:
        (write or (lambda folder: (folder / "weights.safetensors").write_bytes(b"never opened")))(staged)
        return put_model(workspace, staged, spec)


@dataclass
class Fake:
    """Answers with the case's own mask, changed as told; refuses the cases it was told to refuse."""

    change: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    refuse: frozenset[str] = frozenset()

    def __call__(self, case: Case) -> Prediction:
        if case.id in self.refuse:
            raise InputRejected("The spacing is 9 mm; the contract allows 0.5 to 5 mm.", code="SPACING")
        mask = np.array(case.volumes["label"].array[0])
        return Prediction(self.change.get(case.id, lambda same: same)(mask), "0" * 64, case.id)


def without(label: int) -> Callable[[np.ndarray], np.ndarray]:
    """Miss a structure."""
    return lambda mask: np.where(mask == label, 0, mask).astype(np.uint8)


def shifted(label: int, voxels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Move a structure along the first axis."""

    def move(mask: np.ndarray) -> np.ndarray:
        moved = np.where(mask == label, 0, mask)
        moved[np.roll(mask == label, voxels, axis=0)] = label
        return moved.astype(np.uint8)

    return move


@dataclass(frozen=True)
class Study:
    """A study folder, and what a test needs to fill it."""

    workspace: Workspace
    planned = Planned
    fake = Fake
    boxes = staticmethod(boxes)
    without = staticmethod(without)
    shifted = staticmethod(shifted)
    structures = tuple(LABELS)
    spacing_mm = SPACING_MM
    shape = SHAPE

    def dataset(self, planned: Sequence[Planned], *, split: str = "test") -> Dataset:
        return dataset(self.workspace, planned, split=split)

    def model(self, **changes: object) -> Model:
        return model(self.workspace, **changes)

    def evaluate(
        self,
        planned: Sequence[Planned],
        fake: Fake | None = None,
        *,
        split: str = "test",
        partial: Sequence[Mapping[str, object]] = (),
        **settings: object,
    ) -> Evidence:
        cases = self.dataset(planned, split="test" if split == "test" else "fold").cases(split)
        return evaluate_predictor(fake or Fake(), self.model(partial=partial), cases, **settings)


@pytest.fixture
def study(workspace: Workspace) -> Study:
    return Study(workspace)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that is evaluated once for many readers: one structure missed, one moved, one case refused, one scanner unsafe."""
    found = Study(Workspace(tmp_path_factory.mktemp("shelf")))
    found.workspace.ledger.append("rules_frozen", outputs={"rules": "ab" * 32})
    return found


@pytest.fixture(scope="session")
def evidence(shelf: Study) -> Evidence:
    unsafe = "<script>alert(1)</script> & Sons"
    planned = [
        Planned(f"case-{number}", f"patient-{number:02d}", scanner=unsafe if number < 3 else "Plain 7", site="here")
        for number in range(9)
    ]
    fake = Fake({"case-4": without(2), "case-5": shifted(1, 1), "case-6": shifted(2, 2)}, refuse=frozenset({"case-7"}))
    return shelf.evaluate(planned, fake)
