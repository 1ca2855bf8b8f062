"""What a task may bring to its training beside a loss: what the network is shown, what is learned with it, what is kept.

A task that needs no more than output and target has none of it. One that does has some of these, all optional:

- `lesson(classroom)`: the `Lesson` of one training;
- `target_channels(out_channels)`: channels of the target that its lesson shows, where it is not the plain (B, I, J, K);
- `needs_labels`: False where cases without a mask teach it too;
- `target_settings(case)`: all that its `target` goes by beside the case's arrays, where that is not all settings and all that is
  known of the case; prepared cases are shared among trainings by it;
- `kept`: the task of the model that comes out, where a part is needed in training only;
- `parents`: digests of models that take part in the training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from pydantic import JsonValue

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord
from bedside.core.errors import UsageError
from bedside.core.model import ModelSpec, Preprocessing
from bedside.core.record import Part
from bedside.core.registry import registry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Moment:
    """Which patches of a training are learned from.

    Attributes:
        step: from 0; total: steps of the training as planned now.
        seed: of the training.
        cases: pseudonyms, patch by patch; rows: places of the patches in the batch.
    """

    step: int
    total: int
    seed: int
    cases: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0..1."""
        return min(1.0, self.step / max(1, self.total))

    def chance(self, index: int) -> np.random.Generator:
        """A generator for one of the patches: it depends on the seed, the step and the patch's place in the batch only."""
        return np.random.default_rng((self.seed, self.step, 4, self.rows[index]))

    def of(self, some: Sequence[int]) -> "Moment":
        """The same moment for some of the patches."""
        return replace(self, cases=tuple(self.cases[at] for at in some), rows=tuple(self.rows[at] for at in some))


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model of the store that takes part in a training: its record, and its network in evaluation mode."""

    spec: ModelSpec
    net: "torch.nn.Module"


@dataclass(frozen=True, eq=False)
class Classroom:
    """What a task may look at before a training begins.

    Attributes:
        contract: of the study; records: of the cases that are learned from.
        preprocessing, patch: of the plan.
        teacher: opens a model by its digest, every byte hashed again.
    """

    contract: Contract
    records: tuple[CaseRecord, ...]
    preprocessing: Preprocessing
    patch: tuple[int, int, int]
    teacher: Callable[[str], Teacher]


class Lesson:
    """How a batch is learned from. This one does nothing of its own; those of tasks override what they need."""

    def wrap(self, net: "torch.nn.Module", sample: "torch.Tensor") -> "torch.nn.Module":
        """Return what is trained: the network, or a module around it with weights of its own that are not kept.

        It must give the network's outputs. `sample` is an image batch (1, C, I, J, K) of the size of a patch.
        """
        del sample
        return net

    def show(self, images: "torch.Tensor", labels: "torch.Tensor", moment: Moment) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return what the network is shown, (B, C, I, J, K), and what its output is compared with, (B, ..., I, J, K).

        The same patches at the same moment give the same bytes: all chance comes from `moment.chance()`.
        """
        del moment
        return images, labels

    def added(self, whole: "torch.nn.Module", moment: Moment) -> "torch.Tensor | None":
        """What is added to the loss of the patches that `whole` (of `wrap`) has just computed, or None."""
        del whole, moment
        return None


PLAIN = Lesson()


def lesson_of(task: object, classroom: Classroom) -> Lesson:
    """The lesson of a task for one training, the plain one where it has none."""
    make = getattr(task, "lesson", None)
    return PLAIN if make is None else cast("Lesson", make(classroom))


def target_channels(task: object, out_channels: int) -> int | None:
    """Channels of the target that a task's lesson shows, or None where it is the plain (B, I, J, K)."""
    count = getattr(task, "target_channels", None)
    return None if count is None else cast("int | None", count(out_channels))


def needs_labels(task: object) -> bool:
    """Whether every case needs a mask."""
    return bool(getattr(task, "needs_labels", True))


def target_settings(task: object, case: Case) -> JsonValue:
    """All that the target of a case depends on beside its arrays; of a task that does not say, whatever it could look at."""
    own = getattr(task, "target_settings", None)
    if own is not None:
        return cast("JsonValue", own(case))
    known = {name: getattr(case, name) for name in ("id", "patient", "site", "scanner")}
    facts: dict[str, JsonValue] = {"clinical": {**case.clinical}, "acquisition": {**case.acquisition}}
    settings = cast("dict[str, JsonValue]", cast("Part", task).settings())
    return {"task": settings, **known, **facts}


def check_finds_structures(spec: ModelSpec) -> None:
    """Refuse a model that was made to begin trainings with: it answers with no structures.

    Raises:
        UsageError: NO_STRUCTURES.
    """
    task = registry("task").resolve(str(spec.task.get("name")))
    if not needs_labels(task.model_validate({key: value for key, value in spec.task.items() if key != "name"})):
        raise UsageError(
            "This model learned from images without masks and finds no structures; begin a training with it (train.from) and use"
            " what comes out.",
            code="NO_STRUCTURES",
        )


def kept_task(task: Part) -> Part:
    """The task of the model that a training leaves: of a wrapper, what is inside."""
    kept = getattr(task, "kept", None)
    return kept_task(kept) if isinstance(kept, Part) else task


def parents_of(task: object) -> tuple[str, ...]:
    """Digests of the models that take part in the training of a task."""
    return tuple(getattr(task, "parents", ()))
