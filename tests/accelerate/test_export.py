"""Claims about the exported file: the same function, one file, nothing of this machine in it."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch

from bedside.accelerate.export import OPSET, export_onnx, restage
from bedside.core.errors import UsageError
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.engines.onnxruntime import OnnxRuntimeEngine, check_onnx
from bedside.engines.torch import TorchEngine


@pytest.fixture(scope="module")
def exported(kept_model, shelf):
    return restage(kept_model, OnnxRuntimeEngine(threads=1), workspace=shelf)


def test_the_exported_file_computes_what_torch_does(kept_model, exported):
    windows = np.random.default_rng(0).normal(size=(3, 1, 16, 16, 16)).astype(np.float32) * 3
    expected = TorchEngine().forward(kept_model)(windows)
    output = OnnxRuntimeEngine().forward(exported)(windows)
    assert np.abs(expected).max() > 0.1
    assert np.abs(output - expected).max() < 1e-4


def test_it_says_what_it_is_and_where_it_comes_from(kept_model, exported):
    spec = exported.spec
    assert (spec.format, spec.parent) == ("onnx", kept_model.digest)
    assert spec.engine == {"name": "onnxruntime", "precision": "fp32", "threads": 1}
    same = {"format", "parent", "engine"}
    assert spec.model_dump(exclude=same) == kept_model.spec.model_dump(exclude=same)
    assert sorted(path.name for path in exported.folder.iterdir()) == ["model.json", "model.onnx"]


def test_it_is_one_file_of_standard_operators_with_a_free_batch(exported):
    model = onnx.load(exported.weights)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    (given,) = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, 16, 16, 16]
    check_onnx(exported.weights.read_bytes())


def test_nothing_of_this_machine_is_in_it(exported):
    data = exported.weights.read_bytes()
    for trace in (b"site-packages", b".py", b"monai", b"stack_trace", str(Path.home()).encode() + b"/", b"/tmp"):
        assert trace not in data


def test_the_same_weights_give_the_same_file(kept_model, exported):
    assert export_onnx(kept_model) == exported.weights.read_bytes()


def test_another_torch_precision_keeps_the_weights(kept_model, workspace):
    staged = restage(kept_model, TorchEngine(precision="bf16"), workspace=workspace)
    assert staged.weights.read_bytes() == kept_model.weights.read_bytes()
    assert staged.spec.engine == {"name": "torch", "device": "cpu", "precision": "bf16", "threads": None}
    assert staged.spec.parent == kept_model.digest != staged.digest


class Undecided(Part):
    """A network whose way depends on the values it sees."""

    kind: ClassVar[str] = "network"
    part_name: ClassVar[str] = "undecided"

    def build(self, in_channels, out_channels):
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.convolution = torch.nn.Conv3d(in_channels, out_channels, 1)

            def forward(self, image):
                return self.convolution(image) if float(image.sum()) > 0 else self.convolution(-image)

        return Net()


def test_a_network_that_cannot_be_written_is_named(workspace, monkeypatch, store):
    monkeypatch.setitem(registry("network")._known, "undecided", f"{__name__}:Undecided")
    model = store(workspace, network={"name": "undecided"})
    with pytest.raises(UsageError, match="Net cannot be written as ONNX") as caught:
        export_onnx(model)
    assert caught.value.code == "EXPORT"
