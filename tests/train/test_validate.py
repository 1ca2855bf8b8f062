"""Claims about scoring the left-out fold."""

import numpy as np
import torch

from bedside.core.labels import UNANNOTATED
from bedside.data.patches import Example, find_foreground
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
