"""A study of phantoms, small received folders, and what to look at afterwards."""

import json
from pathlib import Path

import numpy as np
import pytest

from bedside.core.config import Config, Study
from bedside.core.site import Site
from bedside.core.workspace import Workspace
from bedside.formats.nifti import write_nifti

SECTIONS = {
    "study": "test",
    "contract": {"modality": "CT", "spacing_mm": [0.5, 5.0], "labels": {"background": 0, "bone": 7, "marrow": 300}},
    "source": {"images": "images", "labels": "labels", "identity": "keep"},
    "split": {"test": 0.2, "folds": 2, "seed": 0},
    "task": {"name": "segmentation"},
    "network": {"name": "dynunet"},
    "train": {"patch": [8, 8, 8]},
    "promote": {"gates": [{"name": "absolute", "metric": "dice", "floor": 0.5}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}]},
}


class Received:
    """A received folder that can be filled and spoilt."""

    shape = (6, 5, 4)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir(parents=True)
        (root / "labels").mkdir()

    def image(self, number):
        """A (6, 5, 4) int16 image that no other number gives."""
        return np.random.default_rng(number).integers(-1000, 1000, self.shape).astype(np.int16)

    def mask(self):
        """A (6, 5, 4) mask with the contract's three source codes."""
        codes = np.zeros(self.shape, np.uint16)
        codes[2:5] = 7
        codes[3] = 300
        return codes

    def add(self, name, number, *, image=None, mask=None, mask_affine=None):
        """Write images/<name>.nii.gz and labels/<name>.nii.gz."""
        self.write("images", name, self.image(number) if image is None else image)
        self.write("labels", name, self.mask() if mask is None else mask, mask_affine)
        return self

    def write(self, folder, name, array, affine=None):
        path = self.root / folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, array, self.affine if affine is None else affine)
        return path

    def path(self, folder, name):
        return self.root / folder / f"{name}.nii.gz"

    def count(self):
        """Files that came in."""
        return sum(1 for path in self.root.rglob("*") if path.is_symlink() or not path.is_dir())


@pytest.fixture
def received(tmp_path):
    """An empty received folder."""
    return Received(tmp_path / "received")


@pytest.fixture
def batch(received):
    """Four sound cases a, b, c, d."""
    for number, name in enumerate("abcd"):
        received.add(name, number)
    return received


@pytest.fixture
def configure(tmp_path):
    """Make a configuration; keywords replace sections of the study, `folder` names another study folder."""

    def make(folder="study", **changes):
        return Config(Study.model_validate({**SECTIONS, **changes}), Site(executor="inline"), Workspace(tmp_path / folder))

    return make


@pytest.fixture
def config(configure):
    """The study of small volumes in an empty folder."""
    return configure()


@pytest.fixture
def study_file(tmp_path):
    """The study of small volumes as a file, for other processes."""
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(SECTIONS))  # JSON is YAML
    return path


@pytest.fixture
def events():
    """Events of one action in a configuration's ledger."""
    return lambda config, action: [event for event in config.workspace.ledger.events() if event.action == action]


@pytest.fixture
def refusals():
    """Lines of the quarantine's index."""

    def read(config):
        index = config.workspace.quarantine / "index.jsonl"
        return [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []

    return read
