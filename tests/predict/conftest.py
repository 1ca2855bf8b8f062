"""A model that is known to the last bit: thresholds on HU, as an ONNX graph that the real engine runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bedside.core.contract import Contract
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.data.phantom import patient
from bedside.formats.dicom_write import SeriesIdentity, write_series

PATCH = (32, 32, 32)
WIDE = (128, 128, 32)  # fewer windows, for whole slices
CLIP_HU = (-1000.0, 1000.0)  # mapped to -1..1, so that a thousandth is one HU
CANCELLOUS_HU, CORTICAL_HU = 180.5, 620.5


def threshold_graph(lines: Sequence[tuple[float, float]], patch: tuple[int, int, int]) -> bytes:
    """A channel for each line, given as slope and intercept over values of a thousand HU; the highest one is the answer."""
    slopes, intercepts = (np.array(part, dtype=np.float32).reshape(1, -1, 1, 1, 1) for part in zip(*lines, strict=True))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, *patch])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(lines), *patch])],
        [numpy_helper.from_array(slopes, "w"), numpy_helper.from_array(intercepts, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def lines_of(crossings_hu: Sequence[float]) -> list[tuple[float, float]]:
    """Lines of which the next one overtakes the one before at each HU, the first being flat."""
    lines = [(0.0, 0.0)]
    for number, crossing in enumerate(crossings_hu, start=1):
        slope, intercept = lines[-1]
        lines.append((20.0 * 3 ** (number - 1), intercept - (20.0 * 3 ** (number - 1) - slope) * crossing / 1000))
    return lines


def store_threshold(workspace: Workspace, **contract: object) -> Model:
    """Put a model of cortical (above 620.5 HU) and cancellous bone (between 180.5 and 620.5 HU) into a study's store."""
    labels = {"background": 0, "cortical_bone": 1, "cancellous_bone": 2}
    limits = {"modality": "CT", "spacing_mm": (0.5, 6.0), "unit": "HU", "labels": labels, "min_extent_voxels": 4}
    background, cancellous, cortical = lines_of((CANCELLOUS_HU, CORTICAL_HU))
    return _store(workspace, Contract.model_validate(limits | contract), (background, cortical, cancellous), PATCH)


def store_bone(workspace: Workspace, contract: Contract) -> Model:
    """Put a model of {background, bone} into a study's store: all that is above 180.5 HU."""
    return _store(workspace, contract, lines_of((CANCELLOUS_HU,)), WIDE)


def _store(workspace: Workspace, contract: Contract, lines: Sequence[tuple[float, float]], patch: tuple[int, int, int]) -> Model:
    spec = ModelSpec(
        study="thresholds",
        format="onnx",
        task={"name": "segmentation"},
        network={"name": "unet"},
        contract=contract,
        preprocessing=Preprocessing(clip=CLIP_HU, normalise="clip"),
        patch=patch,
        overlap=0.25,
        in_channels=1,
        out_channels=len(lines),
        dataset="0" * 64,
        run="1" * 64,
        study_digest="2" * 64,
        engine={"name": "onnxruntime"},
    )
    with workspace.staging() as staged:
        (staged / "model.onnx").write_bytes(threshold_graph(lines, patch))
        return put_model(workspace, staged, spec)


def crop(index: int) -> Volume:
    """The middle of a phantom patient, (1, 44, 30, 16); its bones run through both ends."""
    image = patient(index, 11).image
    return Volume.of(image.array[:, 10:54, 17:47, 12:28], image.affine)


@pytest.fixture
def model(workspace: Workspace) -> Model:
    """The thresholds, in a fresh study folder."""
    return store_threshold(workspace)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom patients as DICOM series, a copy of one slice, and a file that is none."""
    folder = tmp_path_factory.mktemp("received")
    for index in range(2):
        write_series(folder / f"series-{index}", crop(index), identity=SeriesIdentity.of(f"SECRET-{index}"))
    again = next((folder / "series-0").iterdir())
    (folder / "copy.dcm").write_bytes(again.read_bytes())
    (folder / "note.txt").write_text("no image")
    return folder
