"""Claims about hidden cubes: what is hidden, and that only this is learned from."""

import numpy as np
import pytest
import torch

from bedside.core.errors import UsageError
from bedside.core.lesson import Moment
from bedside.tasks.masked_volume import MaskedVolume
from bedside.testing import sample_case, sample_classroom

MOMENT = Moment(step=5, total=10, seed=1, cases=("a", "b"), rows=(0, 1))


@pytest.mark.parametrize("ratio", [0.2, 0.6, 0.9])
def test_the_share_that_is_hidden_is_about_the_ratio(ratio):
    task = MaskedVolume(ratio=ratio, cube=4)
    shares = [task.hidden((32, 24, 20), np.random.default_rng(seed)).mean() for seed in range(20)]
    assert np.mean(shares) == pytest.approx(ratio, abs=0.03)


def test_what_is_hidden_are_whole_cubes_and_a_thin_axis_is_hidden_across():
    hidden = MaskedVolume(cube=8, ratio=0.5).hidden((32, 32, 1), np.random.default_rng(0))
    assert hidden.shape == (32, 32, 1)
    changes = [np.flatnonzero(np.diff(hidden[:, :, 0].astype(int), axis=axis).any(1 - axis)) for axis in (0, 1)]
    assert all(len(found) and len(set(found % 8)) == 1 for found in changes)


def test_a_patch_is_shown_without_what_is_hidden_and_the_target_holds_it():
    images = torch.randn(2, 1, 16, 16, 16) + 5
    shown, target = MaskedVolume(cube=4).lesson(sample_classroom()).show(images, torch.zeros(2, 16, 16, 16), MOMENT)
    hidden = target[:, 1:].bool()
    assert 0.3 < hidden.float().mean() < 0.9
    assert not torch.equal(hidden[0], hidden[1])
    assert (shown[hidden] == 0).all()
    assert torch.equal(shown[~hidden], images[~hidden])
    assert torch.equal(target[:, :1], images)


@pytest.mark.parametrize(("norm", "expected"), [("l1", 2.0), ("l2", 4.0)])
def test_only_hidden_voxels_count(norm, expected):
    target = torch.zeros(1, 2, 4, 4, 4)
    target[:, 1, :2] = 1
    output = torch.full((1, 1, 4, 4, 4), 2.0)
    output[:, :, 2:] = 1e6
    assert float(MaskedVolume(norm=norm).loss(output, target)) == expected


def test_where_nothing_is_hidden_the_loss_is_zero():
    assert float(MaskedVolume().loss(torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2, 2))) == 0


def test_images_of_another_number_of_channels_are_refused():
    with pytest.raises(UsageError, match=r"1 channels and task\.channels is 2"):
        MaskedVolume(channels=2).lesson(sample_classroom())


def test_patches_are_cut_where_something_is():
    case = sample_case()
    assert (MaskedVolume().target(case) == (case.image.array[0] > case.image.array[0].mean())).all()
