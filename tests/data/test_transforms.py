"""Claims about preprocessing: axes, spacing, normalisation, and the way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bedside.core.errors import InputRejected
from bedside.core.model import Preprocessing
from bedside.core.volume import Volume
from bedside.data.transforms import prepare, prepare_label, resample

TURNED = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, 1], [0, -1.0, 0, 9], [0, 0, 0, 1]])


@given(arrays.arrays(np.int16, (4, 5, 6), elements=st.integers(-1000, 3000)))
def test_turning_and_restoring_gives_every_value_its_place_back(array):
    image = Volume.of(array, TURNED)
    clip = Preprocessing(clip=(-1000, 3000), normalise="clip")
    prepared = prepare(image, clip)
    assert prepared.array.shape == (1, 6, 4, 5)
    back = (prepared.restore(prepared.array) + 1) * 2000 - 1000
    np.testing.assert_allclose(back[0], array, atol=0.01)


def test_zscore_does_not_see_four_orders_of_magnitude():
    values = np.random.default_rng(0).normal(size=(6, 7, 8))
    small, large = (prepare(Volume.of((values * f + f).astype(np.float32), np.eye(4)), Preprocessing()).array for f in (0.5, 5e5))
    np.testing.assert_allclose(small, large, atol=2e-5)
    assert abs(float(small.mean())) < 1e-5
    assert float(small.std()) == pytest.approx(1, abs=1e-5)


def test_clip_maps_the_limits_to_minus_one_and_one():
    array = np.array([-2000, -500, 500, 1500, 9000], np.int16).reshape(5, 1, 1)
    found = prepare(Volume.of(array, np.eye(4)), Preprocessing(clip=(-500, 1500), normalise="clip")).array
    np.testing.assert_allclose(found.ravel(), [-1, -1, 0, 1, 1])


def test_a_case_without_spread_is_refused_by_name():
    with pytest.raises(InputRejected) as caught:
        prepare(Volume.of(np.full((4, 4, 4), -3000, np.int16), np.eye(4)), Preprocessing(clip=(-1000, 1000)))
    assert caught.value.code == "CONSTANT"


def test_resampling_keeps_the_extent_and_a_linear_ramp():
    ramp = (np.arange(32, dtype=np.float32) + 0.5)[None, :, None, None] * np.ones((1, 1, 4, 4), np.float32)
    half = resample(ramp, (16, 4, 4))
    np.testing.assert_allclose(half[0, :, 0, 0], np.arange(16) * 2 + 1.0, atol=1e-4)


def test_labels_go_to_the_networks_grid_without_new_values():
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:6, 2:6, 2:6] = 2
    volume = Volume.of(label, np.diag([2.0, 2.0, 2.0, 1.0]))
    wanted = Preprocessing(spacing_mm=(1.0, 1.0, 1.0))
    found = prepare_label(volume, wanted)
    assert found.shape == (16, 16, 16) == prepare(Volume.of(label + np.uint8(1), volume.affine), wanted).array.shape[1:]
    assert set(np.unique(found)) == {0, 2}
    assert (found == 2).sum() == 8 * (label == 2).sum()
