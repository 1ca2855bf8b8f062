"""Tiny models with fixed weights, in stores of their own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bedside.accelerate.export import restage
from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.registry import registry
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.engines.onnxruntime import OnnxRuntimeEngine

CONTRACT = Contract(modality="MR", spacing_mm=(0.2, 5.0), labels={"background": 0, "anterior": 1, "posterior": 2})


def spec(**changes: object) -> ModelSpec:
    """A model spec of a tiny U-Net with 16^3 windows."""
    settings: dict[str, object] = {
        "study": "tiny",
        "format": "safetensors",
        "task": {"name": "segmentation", "dice_weight": 0.5},
        "network": {"name": "unet", "features": 2, "levels": 2, "residual_units": 1},
        "contract": CONTRACT,
        "preprocessing": Preprocessing(),
        "patch": (16, 16, 16),
        "overlap": 0.5,
        "in_channels": 1,
        "out_channels": 3,
        "dataset": "0" * 64,
        "run": "1" * 64,
        "study_digest": "2" * 64,
        "engine": {"name": "torch", "precision": "fp32"},
    }
    return ModelSpec.model_validate(settings | changes)


def store(workspace: Workspace, *, seed: int = 0, poison: bool = False, **changes: object) -> Model:
    """Store a network with seeded random weights; `poison` makes one of them NaN."""
    described = spec(**changes)
    network = {key: value for key, value in described.network.items() if key != "name"}
    torch.manual_seed(seed)
    net = registry("network").resolve(str(described.network["name"])).model_validate(network).build(1, 3)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    if poison:
        next(iter(weights.values())).view(-1)[0] = float("nan")
    with workspace.staging() as staged:
        save_file(weights, staged / "weights.safetensors")
        return put_model(workspace, staged, described)


@pytest.fixture(scope="session")
def store_model() -> Callable[..., Model]:
    """The function that stores a tiny model with changes to its spec."""
    return store


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One store for all models that no test changes."""
    folder: Path = tmp_path_factory.mktemp("shelf")
    return Workspace(folder)


@pytest.fixture(scope="session")
def unet(shelf: Workspace) -> Model:
    """A tiny UNet, safetensors."""
    return store(shelf)


@pytest.fixture(scope="session")
def dynunet(shelf: Workspace) -> Model:
    """A tiny DynUNet, safetensors."""
    return store(shelf, network={"name": "dynunet", "features": 2, "levels": 3})


@pytest.fixture(scope="session")
def unet_onnx(unet: Model, shelf: Workspace) -> Model:
    """The tiny UNet as ONNX."""
    return restage(unet, OnnxRuntimeEngine(), workspace=shelf)


@pytest.fixture(scope="session")
def dynunet_onnx(dynunet: Model, shelf: Workspace) -> Model:
    """The tiny DynUNet as ONNX."""
    return restage(dynunet, OnnxRuntimeEngine(), workspace=shelf)


@pytest.fixture
def windows() -> np.ndarray:
    """Two windows of noise."""
    return np.random.default_rng(3).normal(size=(2, 1, 16, 16, 16)).astype(np.float32)


@pytest.fixture
def case() -> Case:
    """A case without a label, larger than the patch along one axis and smaller along another."""
    array = np.random.default_rng(4).normal(100.0, 20.0, size=(20, 12, 17)).astype(np.float32)
    affine = np.diag([1.0, 0.8, 1.5, 1.0])
    affine[:3, 3] = (-3.0, 7.0, 11.0)
    return Case("case-1", "patient-1", {"image": Volume.of(array, affine)})
