"""A model that is known to the last bit: thresholds on HU, as an ONNX graph that the real engine runs."""

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
CLIP_HU = (-1000.0, 1000.0)  # mapped to -1..1, so that a thousandth is one HU
CANCELLOUS_HU, CORTICAL_HU = 180.5, 620.5


def threshold_graph() -> bytes:
    """Three channels, linear in HU: background, then cortical above 620.5 HU, and cancellous between 180.5 and 620.5 HU."""
    slopes = {"background": (0.0, 0.0), "cortical": (60.0, 0.0), "cancellous": (20.0, -20.0 * CANCELLOUS_HU / 1000)}
    crossing = 20.0 * CORTICAL_HU / 1000 + slopes["cancellous"][1]
    slopes["cortical"] = (60.0, crossing - 60.0 * CORTICAL_HU / 1000)
    weight = np.array([a for a, _ in slopes.values()], dtype=np.float32).reshape(1, 3, 1, 1, 1)
    bias = np.array([b for _, b in slopes.values()], dtype=np.float32).reshape(1, 3, 1, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, *PATCH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, *PATCH])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


def store_threshold(workspace: Workspace, **contract: object) -> Model:
    """Put the model into a study's store."""
    labels = {"background": 0, "cortical_bone": 1, "cancellous_bone": 2}
    limits = {"modality": "CT", "spacing_mm": (0.5, 6.0), "unit": "HU", "labels": labels, "min_extent_voxels": 4}
    spec = ModelSpec(
        study="thresholds",
        format="onnx",
        task={"name": "segmentation"},
        network={"name": "unet"},
        contract=Contract.model_validate(limits | contract),
        preprocessing=Preprocessing(clip=CLIP_HU, normalise="clip"),
        patch=PATCH,
        overlap=0.25,
        in_channels=1,
        out_channels=3,
        dataset="0" * 64,
        run="1" * 64,
        study_digest="2" * 64,
        engine={"name": "onnxruntime"},
    )
    with workspace.staging() as staged:
        (staged / "model.onnx").write_bytes(threshold_graph())
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
