"""A tiny model and a dataset on which it is right: the labels are its own answers."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord, Dataset, Manifest, Splits, VolumeRecord
from bedside.core.digest import canonical_json
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.registry import registry
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.engines.predict import open_model

CONTRACT = Contract(modality="MR", spacing_mm=(0.2, 5.0), labels={"background": 0, "anterior": 1, "posterior": 2})
PATIENTS = ("p0", "p1", "p2", "p3", "p4")
SHAPE = (1, 30, 18, 14)


def store_model(workspace, *, network):
    """Store a network with seeded random weights whose answers use every structure."""
    settings = {key: value for key, value in network.items() if key != "name"}
    torch.manual_seed(1)
    net = registry("network").resolve(network["name"]).model_validate(settings).build(1, 3)
    spec = ModelSpec(
        study="tiny",
        format="safetensors",
        task={"name": "segmentation", "dice_weight": 0.5},
        network=network,
        contract=CONTRACT,
        preprocessing=Preprocessing(),
        patch=(16, 16, 16),
        overlap=0.5,
        in_channels=1,
        out_channels=3,
        dataset="0" * 64,
        run="1" * 64,
        study_digest="2" * 64,
        engine={"name": "torch", "precision": "fp32"},
    )
    with workspace.staging() as staged:
        save_file(net.state_dict(), staged / "weights.safetensors")
        return put_model(workspace, staged, spec)


def store_dataset(workspace, model, *, labelled=True):
    """Store five patients, one of them in the test split; the label is what the model says."""
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    rows = tuple(tuple(float(value) for value in row) for row in affine)
    predictor = open_model(model)
    records = []
    with workspace.staging() as staged:
        for number, patient in enumerate(PATIENTS):
            image = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
            np.save(staged / f"{patient}-image.npy", image)
            volumes = {"image": f"{patient}-image.npy"}
            if labelled:
                answer = predictor(Case(patient, patient, {"image": Volume.of(image, affine)}))
                np.save(staged / f"{patient}-label.npy", answer.value[np.newaxis])
                volumes["label"] = f"{patient}-label.npy"
            described = {
                role: VolumeRecord(file=file, affine=rows, shape=SHAPE, source="3" * 64, geometry="sform")
                for role, file in volumes.items()
            }
            records.append(CaseRecord(id=f"case-{patient}", patient=patient, volumes=described))
        manifest = Manifest(
            study="tiny",
            contract=CONTRACT,
            cases=tuple(records),
            splits=Splits(test=("p4",), folds=(("p0", "p1"), ("p2", "p3"))),
            received=5,
            accepted=5,
            rejected={},
            duplicates=0,
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        return Dataset(workspace.put(staged), workspace)


@pytest.fixture(scope="session")
def store():
    """The function that stores a tiny model."""
    return store_model


@pytest.fixture
def model(workspace) -> Model:
    """A small UNet with random weights."""
    return store_model(workspace, network={"name": "unet", "features": 4, "levels": 3, "residual_units": 1})


@pytest.fixture
def dataset(workspace, model) -> Dataset:
    """Five patients whose labels are the model's answers, so that its Dice is 1."""
    return store_dataset(workspace, model)


@pytest.fixture
def unlabelled(workspace, model) -> Dataset:
    """The same patients without labels."""
    return store_dataset(workspace, model, labelled=False)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory) -> Workspace:
    """A store for models that no test changes."""
    return Workspace(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="session")
def kept_model(shelf) -> Model:
    """A small DynUNet with random weights."""
    return store_model(shelf, network={"name": "dynunet", "features": 2, "levels": 3})
