"""Scoring the left-out fold during training, on the network's own grid."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bedside.core.labels import FIRST_CODE, UNANNOTATED
from bedside.core.lesson import Lesson, Moment, needs_labels
from bedside.core.task import FloatArray, Task
from bedside.data.patches import Example, PatchSampler
from bedside.engines.windows import Box
from bedside.engines.wrap import SlidingWindow
from bedside.metrics.overlap import dice
from bedside.tasks.annotation import partial_of, possible
from bedside.train.device import device_of

DRAWS = 4
"""Patches of each case by which a task without masks is judged."""


def score(net: nn.Module, example: Example, task: Task, lesson: Lesson, patch: tuple[int, int, int]) -> float:
    """What one left-out case says of weights, larger for better: its Dice, or where there are no masks minus the loss."""
    if needs_labels(task):
        return foreground_dice(net, [example], task=task, patch=patch)
    return -mean_loss(net, example, task=task, lesson=lesson, patch=patch)


@torch.inference_mode()
def mean_loss(net: nn.Module, example: Example, *, task: Task, lesson: Lesson, patch: tuple[int, int, int]) -> float:
    """Mean loss of a few patches of a case, the same ones each time."""
    sampler = PatchSampler([example], patch, 1, foreground=1.0, seed=0)
    losses = []
    for step in range(DRAWS):
        moment = Moment(step=step, total=DRAWS, seed=0, cases=(example.id,), rows=(0,))
        images, labels = (each.to(device_of(net)) for each in sampler.draw(step))
        shown, target = lesson.show(images, labels, moment)
        losses.append(float(task.loss(net(shown.to(memory_format=torch.channels_last_3d)), target)))
    return sum(losses) / len(losses)


def foreground_dice(net: nn.Module, examples: list[Example], *, task: Task, patch: tuple[int, int, int]) -> float:
    """Mean Dice over structures and cases, for choosing among weights; a missed structure counts as 0.

    Of a case no more is held than the windows that overlap, whatever its length.
    """

    @torch.inference_mode()
    def forward(windows: FloatArray) -> FloatArray:
        batch = torch.from_numpy(windows).to(device_of(net)).to(memory_format=torch.channels_last_3d)
        return np.asarray(net(batch).float().cpu().numpy())

    window = SlidingWindow(forward, patch=patch, overlap=0.25, activate=task.activate)
    scores = []
    for example in examples:
        label = np.asarray(example.label)
        answer = np.zeros_like(label)

        def take(box: Box, values: FloatArray, answer: NDArray[np.uint8] = answer) -> None:
            answer[box] = task.decode(values)[0]

        window.stream(example.image, take)
        scores.append(_mean_dice(answer, label, task))
    return float(np.mean(scores))


def _mean_dice(answer: NDArray[np.generic], label: NDArray[np.uint8], task: Task) -> float:
    """Mean over the structures that were annotated, each over the voxels that are known to be or not to be of it."""
    rules = partial_of(task)
    most = int(label[label < FIRST_CODE].max(initial=1))
    may_be = possible(1 + max([most, *(id for rule in rules for id in rule.structures)]), rules)
    codes = [code for code in np.unique(label).tolist() if FIRST_CODE <= code < UNANNOTATED]
    looked_for = [index for index in range(1, may_be.shape[1]) if not may_be[codes, index].any()]
    found = []
    for index in [index for index in looked_for if index <= most] or looked_for:
        known = (label == index) | ~may_be[:, index][label]
        found.append(dice((answer == index) & known, label == index))
    return float(np.mean(found))
