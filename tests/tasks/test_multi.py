"""Claims about several heads on one network."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bedside.core.lesson import Moment
from bedside.tasks.masked_volume import MaskedVolume
from bedside.tasks.multi import MultiTask, Weighted
from bedside.tasks.regions import RegionSegmentation
from bedside.tasks.segmentation import Segmentation
from bedside.testing import CONTRACT, sample_case, sample_classroom

BOTH = MultiTask(tasks=(Weighted(task=Segmentation()), Weighted(task=MaskedVolume(), weight=0.25)))


def test_the_loss_is_the_weighted_mean_of_what_each_task_says_alone():
    chance = torch.Generator().manual_seed(0)
    images, labels = torch.randn(2, 1, 8, 8, 8, generator=chance), torch.randint(0, 3, (2, 8, 8, 8), generator=chance).byte()
    moment = Moment(step=1, total=2, seed=0, cases=("a", "b"), rows=(0, 1))
    shown, target = BOTH.lesson(sample_classroom()).show(images, labels, moment)
    alone, of_cubes = MaskedVolume().lesson(sample_classroom()).show(images, labels, moment)
    assert torch.equal(shown, alone)
    output = torch.randn(2, 4, 8, 8, 8, generator=chance)
    expected = (Segmentation().loss(output[:, :3], labels) + 0.25 * MaskedVolume().loss(output[:, 3:], of_cubes)) / 1.25
    assert float(BOTH.loss(output, target)) == pytest.approx(float(expected), rel=1e-6)


def test_the_first_task_answers():
    assert BOTH.out_channels(CONTRACT) == 4
    assert BOTH.metrics == Segmentation().metrics
    output = np.random.default_rng(0).normal(size=(4, 6, 5, 4)).astype(np.float32)
    value, uncertainty = BOTH.decode(BOTH.activate(output.copy()))
    alone, doubt = Segmentation().decode(Segmentation().activate(output[:3].copy()))
    assert np.array_equal(value, alone)
    assert np.array_equal(uncertainty, doubt)


def test_the_mask_is_read_by_the_first_task_that_needs_one():
    turned = MultiTask(tasks=(Weighted(task=MaskedVolume()), Weighted(task=_regions())))
    assert np.array_equal(turned.target(sample_case()), sample_case().volumes["label"].array[0])
    assert turned.needs_labels
    assert turned.target_channels(turned.out_channels(CONTRACT)) == 3


def _regions() -> RegionSegmentation:
    return RegionSegmentation.model_validate(
        {"regions": [{"name": "whole", "structures": [1, 2]}, {"name": "back", "structures": [2]}]}
    )


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([{"name": "masked_volume"}, {"name": "segmentation"}], "can only be the first"),
        ([{"name": "segmentation"}, {"name": "distilled", "teacher": "0" * 64}], "put it around multi"),
        ([{"name": "segmentation"}], "at least 2"),
        ([{"name": "segmentation"}, {"name": "masked_volum"}], "masked_volume"),
    ],
)
def test_tasks_that_cannot_share_are_refused(tasks, said):
    with pytest.raises(ValidationError, match=said):
        MultiTask.model_validate({"tasks": [{"task": task} for task in tasks]})


def test_two_readings_of_one_mask_are_refused():
    partial = [{"column": "site", "value": "north", "structures": [1]}]
    regions = {**_regions().settings(), "partial": partial}
    with pytest.raises(ValidationError, match="same `partial`"):
        MultiTask.model_validate({"tasks": [{"task": {"name": "segmentation"}}, {"task": regions}]})
