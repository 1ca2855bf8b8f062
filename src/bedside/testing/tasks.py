"""What every task must keep."""

import math
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from bedside.core.case import Case
from bedside.core.lesson import Lesson, Moment, kept_task, lesson_of, needs_labels, target_channels
from bedside.core.record import Part
from bedside.core.task import FloatArray, Task
from bedside.testing.parts import check_part
from bedside.testing.samples import CONTRACT, sample_case, sample_classroom

if TYPE_CHECKING:
    import torch

MOMENT = Moment(step=3, total=10, seed=0, cases=("case-1", "case-2"), rows=(0, 1))


def check_task(part: Part) -> None:
    """Check a task on a small labelled case.

    Raises:
        AssertionError: a shape or type is wrong, the loss does not lead downhill, an output is not finite or not repeatable, or
            the lesson that the task brings to a training does not keep what `bedside.core.lesson` says.
    """
    check_part(part)
    task, case = cast("Task", part), sample_case()
    channels = task.out_channels(CONTRACT)
    assert channels >= 1, "out_channels must be at least 1"
    target = task.target(case)
    assert target.shape == case.image.shape[1:], (
        f"target is {target.shape}; it must lie on the case's grid {case.image.shape[1:]}"
    )
    if not needs_labels(part):
        bare = Case(case.id, case.patient, {"image": case.image})
        assert task.target(bare).shape == target.shape, "a task that needs no labels must have a target without them"
    lesson = lesson_of(part, sample_classroom())
    shown, truth = _check_lesson(lesson, part, target, channels)
    _check_loss(task, truth, channels)
    _check_added(task, lesson, (shown, truth), channels)
    kept = cast("Task", kept_task(part))
    assert kept.out_channels(CONTRACT) == channels, "the task that is kept has another number of channels"
    output = np.random.default_rng(0).normal(size=(channels, *target.shape)).astype(np.float32)
    _check_decoding(task, output)
    _check_decoding(task, (output * 1e4).astype(np.float32))
    assert task.metrics, "metrics must name at least one metric, the leading one first"
    assert all(isinstance(name, str) for name in task.metrics), "metrics are names"


def _check_lesson(lesson: Lesson, part: Part, target: NDArray[np.generic], channels: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """What a batch of two patches becomes; each must depend on its own seed, step and place only."""
    import torch

    image = np.asarray(sample_case().image.array, dtype=np.float32)
    images = torch.from_numpy(np.stack([image, image]) - image.mean()) / float(image.std())
    labels, before = torch.from_numpy(np.stack([target, target]).copy()), images.clone()
    shown, truth = lesson.show(images, labels, MOMENT)
    assert torch.equal(images, before), "the lesson changed the images that were passed in"
    assert shown.shape == images.shape, f"the lesson shows {tuple(shown.shape)} of images {tuple(images.shape)}"
    wanted = target_channels(part, channels)
    shape = (2, *target.shape) if wanted is None else (2, wanted, *target.shape)
    assert tuple(truth.shape) == shape, f"the lesson's target is {tuple(truth.shape)}; by target_channels it must be {shape}"
    second, of_second = lesson.show(images[1:], labels[1:], MOMENT.of([1]))
    alike = torch.equal(second, shown[1:]) and torch.allclose(of_second.float(), truth[1:].float(), atol=1e-4)
    assert alike, "what is shown of a patch depends on the others of its batch, or on what was shown before"
    return shown, truth


def _check_added(task: Task, lesson: Lesson, batch: "tuple[torch.Tensor, torch.Tensor]", channels: int) -> None:
    """One step with what the lesson puts around a network: it must leave the network's weights their names."""
    import torch

    shown, truth = batch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv3d(shown.shape[1], 4, 3, padding=1), torch.nn.Conv3d(4, channels, 1))
        names = list(net.state_dict())
        whole = lesson.wrap(net, shown[:1])
    loss = task.loss(whole.train()(shown), truth)
    added = lesson.added(whole, MOMENT)
    torch.autograd.backward(loss if added is None else loss + added)
    assert list(net.state_dict()) == names, "the lesson changed the names of the network's weights"
    idle = [name for name, weight in whole.named_parameters() if weight.grad is None or not bool(weight.grad.isfinite().all())]
    assert not idle, f"weights that nothing trains, or without a finite gradient: {', '.join(idle[:3])}"


def _check_loss(task: Task, truth: "torch.Tensor", channels: int) -> None:
    import torch

    shape = (2, channels, *truth.shape[-3:])
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task.loss(output, truth)
    assert loss.ndim == 0, "loss must be one number"
    before = loss.item()
    assert math.isfinite(before), "loss is not finite"
    (gradient,) = torch.autograd.grad(loss, output)
    assert bool(gradient.isfinite().all()), "the gradient of the loss is not finite"
    assert float(gradient.abs().sum()) > 0, "the loss does not depend on the output"
    step = 1e-2 * output.numel() ** 0.5 / float(gradient.norm())
    with torch.no_grad():
        after = task.loss(output - step * gradient, truth).item()
    assert after < before, "a small step against the gradient does not lower the loss"


def _check_decoding(task: Task, output: FloatArray) -> None:
    active = task.activate(output.copy())
    assert active.shape == output.shape, f"activate turned {output.shape} into {active.shape}; it must keep the shape"
    assert active.dtype == np.float32, f"activate gives {active.dtype}; it must give float32"
    assert np.isfinite(active).all(), "activate gives NaN or infinity for finite output"
    before = active.copy()
    value, uncertainty = task.decode(active)
    assert np.array_equal(active, before), "decode changed the output that was passed in"
    for name, array in (("value", value), ("uncertainty", uncertainty)):
        assert array.shape == output.shape[1:], f"decode's {name} is {array.shape}; it must be {output.shape[1:]}"
    assert uncertainty.dtype == np.float32, "uncertainty must be float32"
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1, "uncertainty must lie in 0..1"
    again, _ = task.decode(task.activate(output.copy()))
    assert np.array_equal(value, again), "decode gives another answer for the same output"
    box = (slice(1, None, 2), slice(2, -1), slice(None, 5))
    part, doubt = task.decode(active[(slice(None), *box)])
    assert part.dtype == value.dtype, "decode of a part of the volume gives another number type"
    assert np.array_equal(part, value[box]), "decode of a part of the volume says something else than of the whole"
    assert np.array_equal(doubt, uncertainty[box]), "decode of a part of the volume is of another uncertainty than of the whole"
