"""Scoring the left-out fold during training, on the network's own grid."""

import numpy as np
import torch
from torch import nn

from bedside.core.labels import FIRST_CODE
from bedside.core.task import FloatArray, Task
from bedside.data.patches import Example
from bedside.engines.wrap import SlidingWindow
from bedside.metrics.overlap import dice


def foreground_dice(net: nn.Module, examples: list[Example], *, task: Task, patch: tuple[int, int, int]) -> float:
    """Mean Dice over structures and cases, for choosing among weights; a missed structure counts as 0."""

    @torch.inference_mode()
    def forward(windows: FloatArray) -> FloatArray:
        batch = torch.from_numpy(windows).to(memory_format=torch.channels_last_3d)
        return np.asarray(net(batch).float().numpy())

    window = SlidingWindow(forward, patch=patch, overlap=0.25, activate=task.activate)
    scores = []
    for example in examples:
        answer, _ = task.decode(window(np.asarray(example.image)))
        label = np.asarray(example.label)
        annotated = label < FIRST_CODE
        structures = range(1, max(2, int(label[annotated].max(initial=0)) + 1))
        found = [dice((answer == index) & annotated, label == index) for index in structures]
        scores.append(float(np.mean(found)))
    return float(np.mean(scores))
