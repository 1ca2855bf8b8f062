"""Tasks that hold tasks: the field that takes one, and a wrapper that passes everything on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import GetJsonSchemaHandler, JsonValue
from pydantic_core import CoreSchema

from bedside.core.case import Case
from bedside.core.config import PartOf
from bedside.core.contract import Contract
from bedside.core.lesson import Classroom, Lesson, lesson_of, needs_labels, target_channels, target_settings
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import FloatArray, Task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Inside(PartOf):
    """Marks a field of a part that holds a part of the same kind; its schema gives names only, or it would hold itself."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        names = {"name": {"enum": [*registry(self.kind).names()]}}
        return {"title": self.kind, "type": "object", "properties": names, "required": ["name"]}


InnerTask = Annotated[Part, Inside("task")]


def as_task(part: Part) -> Task:
    """The same part, for the type checker."""
    return cast("Task", part)


class WrappedTask(Part):
    """A task that is another one, learned in another way: all that concerns the finished model is the inner task's."""

    kind: ClassVar[str] = "task"

    task: InnerTask

    @property
    def kept(self) -> Part:
        """The inner task is that of the model that comes out."""
        return self.task

    @property
    def inner(self) -> Task:
        """The task inside."""
        return as_task(self.task)

    @property
    def needs_labels(self) -> bool:
        """As the inner task."""
        return needs_labels(self.task)

    @property
    def parents(self) -> tuple[str, ...]:
        """Of the inner task."""
        return tuple(getattr(self.task, "parents", ()))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Of the inner task."""
        return self.inner.metrics

    def out_channels(self, contract: Contract) -> int:
        """Of the inner task."""
        return self.inner.out_channels(contract)

    def target(self, case: Case) -> NDArray[np.generic]:
        """Of the inner task."""
        return self.inner.target(case)

    def target_settings(self, case: Case) -> JsonValue:
        """Of the inner task."""
        return target_settings(self.task, case)

    def target_channels(self, out_channels: int) -> int | None:
        """Of the inner task."""
        return target_channels(self.task, out_channels)

    def lesson(self, classroom: Classroom) -> Lesson:
        """Of the inner task."""
        return lesson_of(self.task, classroom)

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Of the inner task."""
        return self.inner.loss(output, target)

    def activate(self, output: FloatArray) -> FloatArray:
        """Of the inner task."""
        return self.inner.activate(output)

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """Of the inner task."""
        return self.inner.decode(output)
