"""Names lead to parts, lazily; an unknown name is answered with the known ones."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from bedside.core import registry as module
from bedside.core.errors import UsageError
from bedside.core.record import Part
from bedside.core.registry import Registry, kinds, registry


class Outside(Part):
    """A part of somebody else."""

    kind = "gate"
    part_name = "outside"


NOT_A_PART = dict


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="Unknown engine 'tensorrt'; known: onnxruntime, torch"):
        registry("engine").resolve("tensorrt")


@pytest.mark.parametrize("target", ["collections:OrderedDict", "bedside.core.record:Record", "os:system"])
def test_what_is_no_part_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="no subclass of Part"):
        Registry("gate", {"odd": target}).resolve("odd")


def test_a_plug_in_is_found_by_its_entry_point_and_cannot_replace_a_part_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
        asked.append(group)
        return (EntryPoint("outside", "bedside.core.record:Part", group), EntryPoint("torch", "evil:Engine", group))

    monkeypatch.setattr(module, "entry_points", entry_points)
    found = Registry("engine", {"torch": "bedside.engines.torch:TorchEngine"})
    assert found.names() == ("outside", "torch")
    assert found.resolve("outside") is Part
    assert found.targets()["torch"] == "bedside.engines.torch:TorchEngine"
    assert set(asked) == {"bedside.engines"}


def test_the_kinds_are_those_of_the_design() -> None:
    assert kinds() == ("engine", "gate", "network", "task")


def test_resolving_every_part_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from bedside.core.registry import kinds, registry\n"
        "for kind in kinds():\n"
        "    for name in registry(kind).names(): registry(kind).resolve(name)\n"
        "print(sorted({'torch', 'monai', 'onnx', 'onnxruntime', 'pydicom', 'nibabel'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
