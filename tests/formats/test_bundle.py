"""Claims about weights from outside: tensors are read, programs are refused, and nothing asks for more than it may."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bedside.core.errors import BedsideError, InputRejected, UnsafeArtefact, UsageError
from bedside.formats.bundle import read_foreign
from bedside.formats.gate import Limits

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Program:
    """What unpickling this would do is seen in a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def bundle(folder: Path, *, config: str = '{"network_def": {"_target_": "monai.networks.nets.UNet"}}') -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(config)
    return folder


@pytest.mark.parametrize("wrapped", [STATE, {"state_dict": STATE}, {"model": STATE}])
def test_a_bundle_gives_the_tensors_and_the_name_of_its_network(tmp_path, wrapped):
    place = bundle(tmp_path / "b")
    torch.save(wrapped, place / "models" / "model.pt")
    found = read_foreign(place)
    assert (found.kind, found.network, found.classes) == ("bundle", "UNet", ())
    assert {name: value.tolist() for name, value in found.tensors.items()} == {n: v.tolist() for n, v in STATE.items()}


def test_safetensors_are_read_alone_and_in_a_bundle_and_yaml_serves_as_well(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert set(read_foreign(tmp_path / "w.safetensors").tensors) == set(STATE)
    place = bundle(tmp_path / "b")
    (place / "configs" / "inference.json").unlink()
    (place / "configs" / "inference.yaml").write_text("network_def:\n  _target_: SegResNet\n  x: $__import__('os').getcwd()\n")
    save_file(STATE, place / "models" / "model.safetensors")
    assert read_foreign(place).network == "SegResNet"


def test_an_expression_is_never_run(tmp_path):
    mark = tmp_path / "ran"
    text = json.dumps({"imports": [f"$__import__('pathlib').Path('{mark}').touch()"], "network_def": {"_target_": "$x"}})
    place = bundle(tmp_path / "b", config=text)
    save_file(STATE, place / "models" / "model.safetensors")
    assert read_foreign(place).network == ""
    assert not mark.exists()


def test_a_pickled_program_is_refused_and_not_run(tmp_path):
    place, mark = bundle(tmp_path / "b"), tmp_path / "ran"
    torch.save({"a": Program(mark)}, place / "models" / "model.pt")
    with pytest.raises(UnsafeArtefact) as caught:
        read_foreign(place)
    assert caught.value.code == "UNSAFE_WEIGHTS"
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.ts", "model.pt"])
def test_torchscript_is_refused_by_whatever_name(tmp_path, name):
    place = bundle(tmp_path / "b")
    with zipfile.ZipFile(place / "models" / name, "w") as archive:
        archive.writestr("model/code/__torch__.py", "def forward(x): return x")
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(UnsafeArtefact) as caught:
        read_foreign(place)
    assert caught.value.code == "TORCHSCRIPT"


def test_a_tensor_that_claims_what_is_not_there_is_refused_before_it_takes_memory(tmp_path):
    place = bundle(tmp_path / "b")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, place / "models" / "model.pt")
    with pytest.raises(InputRejected) as caught:
        read_foreign(place)
    assert caught.value.code == "FILE_SIZE"


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path):
    place = bundle(tmp_path / "b")
    with zipfile.ZipFile(place / "models" / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/0", bytes(3 << 20))
    with pytest.raises(InputRejected) as caught:
        read_foreign(place, limits=Limits(max_file_bytes=1 << 20))
    assert caught.value.code == "FILE_SIZE"


def test_nan_is_refused(tmp_path):
    save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "w.safetensors")
    with pytest.raises(InputRejected, match="NaN"):
        read_foreign(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("w.safetensors", b"\xff" * 40),
        ("w.safetensors", b""),
        ("b.zip", b"PK\3\4" + bytes(40)),
        ("w.pt", b"PK\3\4" + bytes(40)),
        ("w.bin", b"anything"),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BedsideError) as caught:
        read_foreign(tmp_path / name)
    assert isinstance(caught.value, InputRejected | UsageError)


def test_every_cut_of_a_bundle_is_refused_and_none_is_a_defect(tmp_path):
    place = bundle(tmp_path / "b")
    stream = io.BytesIO()
    torch.save(STATE, stream)
    data = stream.getvalue()
    for cut in range(0, len(data), max(1, len(data) // 40)):
        (place / "models" / "model.pt").write_bytes(data[:cut])
        with pytest.raises((InputRejected, UnsafeArtefact)):
            read_foreign(place)


def test_a_folder_that_is_no_bundle_and_one_without_weights_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="no MONAI Bundle"):
        read_foreign(tmp_path)
    with pytest.raises(UsageError, match="download its weights"):
        read_foreign(bundle(tmp_path / "b"))


def test_a_link_out_of_the_bundle_is_not_followed(tmp_path):
    place = bundle(tmp_path / "b")
    torch.save(STATE, tmp_path / "elsewhere.pt")
    (place / "models" / "model.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(UnsafeArtefact):
        read_foreign(place)
