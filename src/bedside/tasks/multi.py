"""Several tasks at once, each with a head of its own on one network."""

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, model_validator

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.errors import UsageError
from bedside.core.lesson import Classroom, Lesson, Moment, lesson_of, needs_labels, target_channels, target_settings
from bedside.core.record import Part, Record
from bedside.core.task import FloatArray, Task
from bedside.tasks.nested import InnerTask, as_task

if TYPE_CHECKING:
    import torch


class Weighted(Record):
    """One of several tasks, and the weight of its loss."""

    task: InnerTask
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0


class MultiTask(Part):
    """Several tasks that share a network: channels side by side, losses added with weights.

    The first task is the one that answers: metrics and decoding are its own. The others teach the network beside it, as the
    filling in of hidden cubes does. Images pass the tasks in their order, so where one hides cubes, they are hidden for all.

    Attributes:
        tasks: the answering one first. Every other one must have a number of channels that its settings alone give.
    """

    kind: ClassVar[str] = "task"
    part_name: ClassVar[Literal["multi"]] = "multi"

    tasks: tuple[Weighted, ...] = Field(min_length=2, max_length=8)

    @model_validator(mode="after")
    def _can_share(self) -> Self:
        for part in self._parts:
            if isinstance(part, MultiTask) or getattr(part, "kept", None) is not None:
                raise ValueError(f"{part.part_name} wraps tasks itself and cannot be one of several; put it around multi")
        for part in self._parts[1:]:
            if getattr(part, "channels", None) is None:
                raise ValueError(f"{part.part_name} has as many channels as there are structures and can only be the first task")
        rules = {getattr(part, "partial", ()) for part in self._parts if needs_labels(part)}
        if len(rules) > 1:
            raise ValueError("the tasks read one mask and must have the same `partial`")
        return self

    @property
    def _parts(self) -> tuple[Part, ...]:
        return tuple(entry.task for entry in self.tasks)

    @property
    def first(self) -> Task:
        """The task that answers."""
        return as_task(self.tasks[0].task)

    @property
    def needs_labels(self) -> bool:
        """Whether any of the tasks does."""
        return any(needs_labels(part) for part in self._parts)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the first task."""
        return self.first.metrics

    def out_channels(self, contract: Contract) -> int:
        """The channels of all tasks, side by side."""
        return sum(as_task(part).out_channels(contract) for part in self._parts)

    def target_channels(self, out_channels: int) -> int:
        """The targets of all tasks, side by side."""
        return sum(self._target_counts(out_channels))

    def target(self, case: Case) -> NDArray[np.generic]:
        """That of the first task that needs a mask, or of the first."""
        return as_task(self._reading).target(case)

    def target_settings(self, case: Case) -> JsonValue:
        """Of the same task."""
        return target_settings(self._reading, case)

    @property
    def _reading(self) -> Part:
        return next((part for part in self._parts if needs_labels(part)), self._parts[0])

    def lesson(self, classroom: Classroom) -> Lesson:
        """The lessons of all tasks, one after the other."""
        return _Together([lesson_of(part, classroom) for part in self._parts])

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """The weighted sum of the losses, divided by the sum of the weights.

        Args:
            output: (B, C, I, J, K), the channels of the tasks in their order.
            target: (B, T, I, J, K) float32, the targets of the tasks in their order.
        """
        import torch

        channels = self._output_counts(output.shape[1])
        outputs = torch.split(output, channels, dim=1)
        targets = torch.split(target, self._target_counts(output.shape[1]), dim=1)
        losses = []
        for entry, count, mine, truth in zip(self.tasks, channels, outputs, targets, strict=True):
            plain = target_channels(entry.task, count) is None
            whole = truth[:, 0].round().to(torch.uint8) if plain else truth
            losses.append(entry.weight * as_task(entry.task).loss(mine, whole))
        return torch.stack(losses).sum() / sum(entry.weight for entry in self.tasks)

    def activate(self, output: FloatArray) -> FloatArray:
        """Each task its own channels."""
        bounds = accumulate(self._output_counts(len(output)), initial=0)
        for part, (start, end) in zip(self._parts, pairwise(bounds), strict=True):
            output[start:end] = as_task(part).activate(output[start:end])
        return output

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """What the first task says of its channels."""
        return self.first.decode(output[: self._output_counts(len(output))[0]])

    def _output_counts(self, total: int) -> list[int]:
        """Channels of each task; the first has what the others leave."""
        others = [int(getattr(part, "channels", 0)) for part in self._parts[1:]]
        if total <= sum(others):
            raise UsageError(
                f"The output has {total} channels and the tasks after the first take {sum(others)}; give a network made for"
                " them.",
                code="CHANNELS",
            )
        return [total - sum(others), *others]

    def _target_counts(self, out_channels: int) -> list[int]:
        counts = zip(self._parts, self._output_counts(out_channels), strict=True)
        return [target_channels(part, count) or 1 for part, count in counts]


class _Together(Lesson):
    """Passes images through lessons, and puts their targets side by side."""

    def __init__(self, lessons: list[Lesson]) -> None:
        self.lessons = lessons

    def wrap(self, net: "torch.nn.Module", sample: "torch.Tensor") -> "torch.nn.Module":
        """Each around what the one before gives."""
        for lesson in self.lessons:
            net = lesson.wrap(net, sample)
        return net

    def show(self, images: "torch.Tensor", labels: "torch.Tensor", moment: Moment) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images as the last lesson shows them; targets side by side, in float32, which holds every training id exactly."""
        import torch

        targets = []
        for lesson in self.lessons:
            images, target = lesson.show(images, labels, moment)
            targets.append((target if target.ndim == images.ndim else target[:, None]).float())
        return images, torch.cat(targets, dim=1)
