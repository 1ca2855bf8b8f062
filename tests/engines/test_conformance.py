"""Claims that hold for every engine: the same answer, the same refusals."""

import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.model import Model
from bedside.core.registry import registry
from bedside.core.workspace import Workspace
from bedside.engines.onnxruntime import OnnxRuntimeEngine
from bedside.engines.torch import TorchEngine

FORMS = {"torch": (TorchEngine(), ""), "onnxruntime": (OnnxRuntimeEngine(), "_onnx")}
"""Engine name to the engine and what the names of fixtures of its models end with."""


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("network", ["unet", "dynunet"])
class TestEveryEngine:
    @pytest.fixture
    def forward(self, name, network, request):
        engine, ending = FORMS[name]
        return engine.forward(request.getfixturevalue(network + ending))

    def test_it_answers_as_torch_in_float32_does(self, forward, network, windows, request):
        reference = TorchEngine().forward(request.getfixturevalue(network))(windows)
        output = forward(windows)
        assert output.dtype == np.float32
        assert output.shape == (2, 3, 16, 16, 16)
        assert reference.std() > 0.01
        assert np.abs(output - reference).max() < 1e-4

    def test_the_same_windows_give_the_same_bytes(self, forward, windows):
        assert forward(windows).tobytes() == forward(windows).tobytes()

    def test_a_window_is_answered_alike_in_any_batch(self, forward, windows):
        np.testing.assert_allclose(forward(windows[1:]), forward(windows)[1:], atol=1e-5)

    def test_the_windows_are_not_written_to_and_may_be_read_only(self, forward, windows):
        before = windows.copy()
        forward(windows)
        np.testing.assert_array_equal(windows, before)


@pytest.mark.parametrize("name", FORMS)
class TestRefusals:
    def test_a_model_of_another_format_is_wrong_use(self, name, unet, unet_onnx):
        other = unet_onnx if name == "torch" else unet
        with pytest.raises(UsageError, match="engine runs") as caught:
            FORMS[name][0].forward(other)
        assert (caught.value.exit_code, caught.value.code) == (2, "ENGINE_FORMAT")

    def test_weights_with_one_changed_byte_are_never_opened(self, name, tmp_path, unet, unet_onnx):
        model = unet if name == "torch" else unet_onnx
        copy = copied(model, tmp_path)
        flip_last_byte(copy)
        with pytest.raises(IntegrityError, match="have changed") as caught:
            FORMS[name][0].forward(copy)
        assert (caught.value.exit_code, caught.value.code) == (4, "CHANGED")

    def test_a_model_that_is_not_there_is_named(self, name, workspace):
        with pytest.raises(IntegrityError) as caught:
            FORMS[name][0].forward(Model("a" * 64, workspace))
        assert caught.value.code == "MISSING"

    def test_it_is_found_by_name_and_its_settings_are_its_constructor(self, name):
        engine = registry("engine").resolve(name).model_validate({"threads": 1})
        where = {"device": "cpu"} if name == "torch" else {}
        assert engine.settings() == {"name": name, "precision": "fp32", "threads": 1} | where


def test_an_engine_that_wants_an_accelerator_says_that_there_is_none(unet, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="accelerator") as caught:
        TorchEngine(device="cuda").forward(unet)
    assert caught.value.code == "DEVICE"


def copied(model: Model, folder) -> Model:
    """The same model in a store that a test may break."""
    workspace = Workspace(folder)
    with workspace.staging() as staged:
        for path in model.folder.iterdir():
            (staged / path.name).write_bytes(path.read_bytes())
        return Model(workspace.put(staged), workspace)


def flip_last_byte(model: Model) -> None:
    (weights,) = [path for path in (model.workspace.store / model.digest).iterdir() if path.name != "model.json"]
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(stat.S_IRUSR | stat.S_IWUSR)
    weights.write_bytes(data)


def test_a_weight_that_is_not_a_number_is_refused(workspace, store_model):
    with pytest.raises(InputRejected, match="NaN or infinite") as caught:
        TorchEngine().forward(store_model(workspace, poison=True))
    assert caught.value.exit_code == 3


def test_weights_of_another_network_are_refused(workspace, unet):
    with workspace.staging() as staged:
        (staged / "weights.safetensors").write_bytes(unet.weights.read_bytes())
        text = (unet.folder / "model.json").read_text().replace('"features":2', '"features":3')
        (staged / "model.json").write_text(text)
        other = Model(workspace.put(staged), workspace)
    with pytest.raises(IntegrityError, match="do not fit the network"):
        TorchEngine().forward(other)


def test_a_pickle_in_place_of_weights_is_refused_unopened(workspace, tmp_path, unet):
    marker = tmp_path / "opened"

    class Payload:
        def __reduce__(self):
            return marker.touch, ()

    with workspace.staging() as staged:
        torch.save({"model": Payload()}, staged / "weights.safetensors")
        (staged / "model.json").write_bytes((unet.folder / "model.json").read_bytes())
        hostile = Model(workspace.put(staged), workspace)
    with pytest.raises(IntegrityError):
        TorchEngine().forward(hostile)
    assert not marker.exists()


def test_bfloat16_is_close_and_gives_float32(unet, windows):
    exact = TorchEngine().forward(unet)(windows)
    close = TorchEngine(precision="bf16").forward(unet)(windows)
    assert close.dtype == np.float32
    assert 0 < np.abs(close - exact).max() < 0.1


def test_the_number_of_threads_is_given_back(unet, windows):
    before = torch.get_num_threads()
    wanted = before + 1
    TorchEngine(threads=wanted).forward(unet)(windows)
    assert torch.get_num_threads() == before


def test_naming_the_engines_loads_neither_torch_nor_onnx():
    code = (
        "import sys; from bedside.core.registry import registry as r;"
        "[r('engine').resolve(n)() for n in r('engine').names()];"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
