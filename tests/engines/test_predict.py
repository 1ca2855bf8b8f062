"""Claims about the one path from a case to an answer."""

from itertools import product

import numpy as np
import pytest

from bedside.core.case import Case
from bedside.core.errors import InputRejected
from bedside.core.model import Preprocessing
from bedside.core.volume import Reorientation, Volume
from bedside.data.transforms import prepare
from bedside.engines.onnxruntime import OnnxRuntimeEngine
from bedside.engines.predict import open_model
from bedside.engines.torch import TorchEngine


def test_the_answer_lies_on_the_case_s_own_grid(unet, case):
    prediction = open_model(unet)(case)
    assert prediction.value.shape == case.image.shape[1:]
    assert prediction.value.dtype == np.uint8
    assert set(np.unique(prediction.value)) <= {0, 1, 2}
    assert prediction.uncertainty.shape == case.image.shape[1:]
    assert prediction.uncertainty.dtype == np.float32
    assert 0 <= prediction.uncertainty.min() <= prediction.uncertainty.max() <= 1
    assert (prediction.model, prediction.case) == (unet.digest, "case-1")


def test_the_test_model_does_not_say_one_thing_everywhere(unet, case):
    assert len(np.unique(open_model(unet)(case).value)) > 1


@pytest.mark.parametrize("name", ["unet", "unet_onnx", "dynunet", "dynunet_onnx"])
def test_predicting_twice_gives_the_same_bytes(name, case, request):
    model = request.getfixturevalue(name)
    first, second = open_model(model)(case), open_model(model)(case)
    assert first.value.tobytes() == second.value.tobytes()
    assert first.uncertainty.tobytes() == second.uncertainty.tobytes()


def test_each_model_opens_with_the_engine_it_names(unet, unet_onnx, case):
    (plain, first), (exported, second) = open_model(unet).answer(case), open_model(unet_onnx).answer(case)
    assert np.abs(first - second).max() < 1e-4
    assert plain.model != exported.model
    assert unet_onnx.spec.engine["name"] == "onnxruntime"


def test_another_engine_may_be_asked_for(unet, case):
    exact = open_model(unet).answer(case)[1]
    close = open_model(unet, engine=TorchEngine(precision="bf16")).answer(case)[1]
    assert 0 < np.abs(exact - close).max() < 0.05


def test_the_averaged_output_is_a_probability(unet, case):
    output = open_model(unet).answer(case)[1]
    assert output.shape == (3, *case.image.shape[1:])
    np.testing.assert_allclose(output.sum(axis=0), 1.0, atol=1e-5)


def test_every_stage_s_seconds_are_given(unet, case):
    seconds = open_model(unet)(case).seconds
    assert set(seconds) == {"preprocess", "infer", "postprocess"}
    assert min(seconds.values()) >= 0
    assert seconds["infer"] > 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3))[::3])
def test_a_scan_stored_in_other_axes_gets_the_same_answer(unet, case, order, flips):
    image = case.image
    turn = Reorientation(order, flips)
    turned = Volume.of(np.ascontiguousarray(turn.apply(image.array)), turn.affine(image))
    predictor = open_model(unet)
    expected = predictor(case).value
    found = predictor(Case("turned", "patient-1", {"image": turned})).value
    np.testing.assert_array_equal(turn.undo(found[None])[0], expected)


def test_a_model_with_its_own_spacing_still_answers_on_the_case_s_grid(store_model, workspace, case):
    model = store_model(workspace, preprocessing=Preprocessing(spacing_mm=(1.0, 1.0, 1.0)))
    predictor = open_model(model)
    prediction, output = predictor.answer(case)
    prepared = prepare(case.image, model.spec.preprocessing)
    assert prepared.array.shape[1:] != case.image.shape[1:]
    assert prediction.value.shape == case.image.shape[1:]
    np.testing.assert_allclose(output, prepared.restore(predictor.window(prepared.array)), atol=1e-6)


def test_more_overlap_may_be_asked_for(unet):
    assert open_model(unet).window.overlap == 0.5
    assert open_model(unet, overlap=0.75).window.overlap == 0.75
    wide = np.random.default_rng(5).normal(size=(40, 16, 16)).astype(np.float32)
    larger = Case("wide", "patient-1", {"image": Volume.of(wide, np.eye(4))})
    few, many = (open_model(unet, overlap=overlap).answer(larger)[1] for overlap in (0.0, 0.75))
    assert not np.array_equal(few, many)


def test_a_label_beside_the_image_changes_nothing(unet, case):
    label = Volume.of(np.ones(case.image.shape[1:], dtype=np.uint8), case.image.affine)
    labelled = Case(case.id, case.patient, {"image": case.image, "label": label})
    predictor = open_model(unet)
    assert predictor(labelled).value.tobytes() == predictor(case).value.tobytes()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda array: np.where(array > 100, np.nan, array), "NOT_FINITE"),
        (np.zeros_like, "CONSTANT"),
        (lambda array: array[:2], "EXTENT"),
    ],
)
def test_a_case_outside_the_contract_gets_no_answer(unet, case, change, code):
    broken = Volume.of(change(case.image.array[0]), case.image.affine)
    with pytest.raises(InputRejected) as caught:
        open_model(unet)(Case("broken", "patient-1", {"image": broken}))
    assert caught.value.code == code


def test_an_image_with_more_channels_than_the_model_takes_is_rejected(unet, case):
    double = Volume.of(np.concatenate([case.image.array] * 2), case.image.affine)
    with pytest.raises(InputRejected, match="2 channels; the model needs 1") as caught:
        open_model(unet)(Case("double", "patient-1", {"image": double}))
    assert caught.value.code == "CHANNELS"


def test_a_case_without_an_image_is_rejected(unet):
    with pytest.raises(InputRejected, match="no image"):
        open_model(unet)(Case("empty", "patient-1", {}))


class BlowsUp(TorchEngine):
    """Gives one voxel that is not a number."""

    def forward(self, model):
        inner = super().forward(model)

        def compute(windows):
            output = inner(windows).copy()
            output[0, 0, 8, 8, 8] = np.nan
            return output

        return compute


def test_no_answer_is_made_of_output_that_is_not_a_number(unet, case):
    with pytest.raises(InputRejected, match="NaN or infinity") as caught:
        open_model(unet, engine=BlowsUp())(case)
    assert caught.value.code == "OUTPUT_NOT_FINITE"


def test_the_exported_model_needs_no_torch_network(unet_onnx, case):
    predictor = open_model(unet_onnx, engine=OnnxRuntimeEngine(threads=1))
    assert predictor(case).value.shape == case.image.shape[1:]
