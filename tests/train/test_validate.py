"""Claims about scoring the left-out fold."""

import numpy as np
import pytest
import torch

from bedside.core.case import Case
from bedside.core.labels import UNANNOTATED
from bedside.core.volume import Volume
from bedside.data.patches import Example, find_foreground
from bedside.tasks.annotation import Partial
from bedside.tasks.segmentation import Segmentation
from bedside.train.validate import foreground_dice


class Threshold(torch.nn.Module):
    """Says structure 1 where the image is above a half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sure = torch.where(images > 0.5, 9.0, -9.0)
        return torch.cat([-sure, sure], dim=1)


def test_voxels_that_nobody_annotated_are_not_scored():
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:4, 2:4] = 1
    image = (label == 1).astype(np.float32)[None]
    image[:, 6:] = 1.0
    label[6:] = UNANNOTATED
    example = Example(image, label, find_foreground(label))
    assert foreground_dice(Threshold(), [example], task=Segmentation(), patch=(8, 8, 8)) == 1.0


def test_a_structure_is_judged_only_where_it_was_annotated():
    """Of a case in which only structure 1 was annotated its background is known not to be 1, and may be 2."""
    rules = (Partial(column="site", value="east", structures=(1,)),)
    label = np.zeros((1, 8, 8, 8), np.uint8)
    label[:, 2:4, 2:4] = 1
    case = Case("c", "p", {"label": Volume.of(label, np.eye(4))}, {}, "east")
    target = Segmentation(partial=rules).target(case)
    exact, invented = (label[0] == 1).astype(np.float32)[None], np.ones((1, 8, 8, 8), np.float32)
    for image, wanted in ((exact, 1.0), (invented, 2 * 32 / (32 + 512))):
        example = Example(image, target, find_foreground(target))
        found = foreground_dice(Threshold(), [example], task=Segmentation(partial=rules), patch=(8, 8, 8))
        assert found == pytest.approx(wanted)


def test_a_structure_that_nobody_looked_for_is_not_judged():
    rules = (Partial(column="site", value="east", structures=(2,)),)
    label = np.full((1, 8, 8, 8), 2, np.uint8)
    label[:, :4] = 0
    case = Case("c", "p", {"label": Volume.of(label, np.eye(4))}, {}, "east")
    target = Segmentation(partial=rules).target(case)
    for value in (0.0, 1.0):
        example = Example(np.full((1, 8, 8, 8), value, np.float32), target, find_foreground(target))
        assert foreground_dice(Threshold(), [example], task=Segmentation(partial=rules), patch=(8, 8, 8)) == 0.0
