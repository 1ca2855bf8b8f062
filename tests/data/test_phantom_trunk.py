"""Generated trunks: the same call makes the same voxels, bone is where the mask says, and other things are as bright."""

import numpy as np
import pytest

from bedside.core.errors import UsageError
from bedside.data.phantom import HU_LIMITS
from bedside.data.phantom_trunk import SHAPE, STRUCTURES, trunk, trunks


@pytest.fixture(scope="module")
def some():
    return list(trunks(6, seed=3))


def test_index_and_seed_determine_every_voxel(some):
    again = trunk(2, 3)
    assert np.array_equal(again.image.array, some[2].image.array)
    assert np.array_equal(again.label.array, some[2].label.array)
    assert np.array_equal(again.image.affine, some[2].image.affine)
    assert not np.array_equal(trunk(2, 4).image.array, some[2].image.array)


def test_image_and_mask_share_a_grid_within_the_limits_of_ct(some):
    for one in some:
        assert one.image.shape == one.label.shape == (1, *SHAPE)
        assert np.array_equal(one.image.affine, one.label.affine)
        assert one.image.array.dtype == np.int16
        assert HU_LIMITS[0] <= one.image.array.min() < one.image.array.max() <= HU_LIMITS[1]
        assert set(np.unique(one.label.array)) == set(STRUCTURES.values())


def test_bone_is_brighter_than_what_surrounds_it_and_a_small_part_of_the_trunk(some):
    for one in some:
        bone = one.label.array[0] == STRUCTURES["bone"]
        assert 0.01 < bone.mean() < 0.12
        assert np.median(one.image.array[0][bone]) > np.median(one.image.array[0][~bone]) + 100


def test_no_threshold_finds_bone(some):
    """Contrast agent, couch and calcium are brighter than sponge and marrow, as in life."""
    for one in some:
        image, bone = one.image.array[0], one.label.array[0] == STRUCTURES["bone"]
        dice = [2 * ((image > hu) & bone).sum() / ((image > hu).sum() + bone.sum()) for hu in (100, 150, 200, 300, 400)]
        assert max(dice) < 0.92
    assert (
        np.mean([((one.image.array[0] < 200) & (one.label.array[0] == 1)).sum() / one.label.array[0].sum() for one in some])
        > 0.15
    )


def test_some_of_what_is_as_bright_as_bone_is_no_bone(some):
    bright = [((one.image.array[0] > 200) & (one.label.array[0] == 0)).sum() / (one.label.array[0] == 1).sum() for one in some]
    assert max(bright) > 0.1


def test_air_around_the_body_is_air(some):
    for one in some:
        assert abs(float(np.median(one.image.array[0, :3, :3, :])) + 1000) < 30


def test_a_cohort_needs_somebody():
    with pytest.raises(UsageError):
        trunks(0, seed=1)
