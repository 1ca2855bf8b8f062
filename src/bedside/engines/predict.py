"""The one path from a case to an answer: contract, preprocessing, windows, back to the case's own grid, decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from time import perf_counter
from types import MappingProxyType
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from bedside.core.case import Case, Prediction
from bedside.core.errors import InputRejected
from bedside.core.model import Model, Preprocessing
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import Engine, FloatArray, Forward, Task
from bedside.core.volume import Reorientation
from bedside.data.regrid import Regrid
from bedside.data.transforms import prepare
from bedside.engines.ensemble import Activated, MemberMean, members_of
from bedside.engines.memory import Ceiling, resident_bytes
from bedside.engines.stream import FLOAT_BYTES
from bedside.engines.windows import Box, Shape
from bedside.engines.wrap import MirrorAverage, SlidingWindow


@dataclass(frozen=True)
class CasePredictor:
    """What an engine makes of a model: a case in, an answer on the case's own grid out.

    The averaged output is decoded as it becomes ready and never held as a whole, unless it is asked for. The same case gives the
    same bytes each time on one machine with one number of threads, whether or not it is.

    Attributes:
        model: what predicts.
        task: turns averaged output into an answer.
        window: runs the engine over a volume.
        progress: told of the windows of each case.
        ceiling: of memory; None: none.
        others: preprocessing of the further members of an ensemble, where it is not that of the first.
    """

    model: Model
    task: Task
    window: SlidingWindow
    progress: Progress = SILENT
    ceiling: Ceiling | None = None
    others: tuple[Preprocessing, ...] = ()

    def __call__(self, case: Case) -> Prediction:
        """Predict one case; only its image is looked at.

        Raises:
            InputRejected: the case breaks the model's contract, or the output holds NaN or infinity.
            ResourceError: the case needs more memory than is allowed (MEMORY); it was not begun.
        """
        return self._predict(case, keep=False)[0]

    def answer(self, case: Case) -> tuple[Prediction, FloatArray]:
        """Predict one case and also give the averaged output, (C_out, I, J, K) float32 on the case's own grid.

        Raises:
            InputRejected: the case breaks the model's contract, or the output holds NaN or infinity.
            ResourceError: the case needs more memory than is allowed (MEMORY); it was not begun.
        """
        prediction, kept = self._predict(case, keep=True)
        assert kept is not None
        return prediction, kept

    def _predict(self, case: Case, *, keep: bool) -> tuple[Prediction, FloatArray | None]:
        spec = self.model.spec
        begun = perf_counter()
        spec.contract.check(case)
        prepared = prepare(case.image, spec.preprocessing)
        _check_channels(prepared.array, spec.in_channels)
        array = np.concatenate([prepared.array, *self._seen_by_others(case)]) if self.others else prepared.array
        ready, post = perf_counter(), 0.0
        size = (prepared.array.shape[1], prepared.array.shape[2], prepared.array.shape[3])
        order = self.window.grid(size).order
        kept = np.zeros((spec.out_channels, *case.image.shape[1:]), dtype=np.float32) if keep else None
        answer = _Answer(self.task, prepared.turn, _spatial(case), kept)
        regrid = Regrid(size, prepared.grid, order, answer.take)
        later_bytes = answer.later_bytes + regrid.held_bytes(spec.out_channels)
        if self.ceiling is not None:
            taken_bytes = resident_bytes() + spec.out_channels * prod(spec.patch) * FLOAT_BYTES + later_bytes
            left_bytes = self.ceiling.left_bytes(taken_bytes)
            self.ceiling.check(taken_bytes + self.window.held_bytes(size, spec.out_channels, left_bytes=left_bytes))

        def take(box: Box, values: FloatArray) -> None:
            nonlocal post
            came = perf_counter()
            regrid(box, values)
            post += perf_counter() - came

        self.window.stream(array, take, progress=self.progress, ceiling=self.ceiling, later_bytes=later_bytes)
        value, uncertainty = answer.whole()
        seconds = {"preprocess": ready - begun, "infer": perf_counter() - ready - post, "postprocess": post}
        return Prediction(value, self.model.digest, case.id, uncertainty, MappingProxyType(seconds)), kept

    def _seen_by_others(self, case: Case) -> list[FloatArray]:
        return [prepare(case.image, preprocessing).array for preprocessing in self.others]


class _Answer:
    """Value and uncertainty on the case's own grid, filled box by box; and the averaged output where it is to be kept."""

    def __init__(self, task: Task, turn: Reorientation, shape: Shape, kept: FloatArray | None) -> None:
        self._task, self._turn, self._shape = task, turn, shape
        self._kept = None if kept is None else turn.apply(kept)
        self._value: NDArray[np.generic] | None = None
        self._uncertainty = np.zeros(shape, dtype=np.float32)

    @property
    def later_bytes(self) -> int:
        """What the filled arrays will hold; they take no room before."""
        kept = 0 if self._kept is None else self._kept.nbytes
        return prod(self._shape) * (1 + FLOAT_BYTES) + kept

    def take(self, box: Box, values: FloatArray) -> None:
        """Decode a box of the turned grid."""
        value, uncertainty = self._task.decode(values)
        if self._value is None:
            self._value = np.zeros(self._shape, dtype=value.dtype)
        self._turn.apply(self._value[np.newaxis])[0][box] = value
        self._turn.apply(self._uncertainty[np.newaxis])[0][box] = uncertainty
        if self._kept is not None:
            self._kept[(slice(None), *box)] = values

    def whole(self) -> tuple[NDArray[np.generic], FloatArray]:
        """Both arrays, (I, J, K), after the last box."""
        assert self._value is not None
        return self._value, self._uncertainty


def open_model(
    model: Model,
    *,
    engine: Part | None = None,
    overlap: float | None = None,
    mirror: bool | None = None,
    progress: Progress = SILENT,
    memory_mb: float | None = None,
) -> CasePredictor:
    """Load a model and return what predicts with it.

    Args:
        model: from the store; its bytes are hashed again here.
        engine: what computes; default: the engine that the model names.
        overlap: of neighbouring windows, as a fraction of the patch; default: what the model names.
        mirror: average over each window and its left-right mirror image; default: what the model names.
        progress: told of the windows of each case.
        memory_mb: ceiling of this process at the peak of a case, in MB of 10^6 bytes; default: none.

    Raises:
        IntegrityError: the model's bytes have changed.
        UsageError: the engine does not run the model's format, or the overlap is no fraction.
        UnsafeArtefact: the weights could reach outside their file.
    """
    spec = model.spec
    task = cast("Task", _part("task", spec.task))
    fraction = spec.overlap if overlap is None else overlap
    mirrored = spec.mirror if mirror is None else mirror
    limit = None if memory_mb is None else Ceiling(memory_mb)
    if spec.format == "ensemble":
        members = members_of(model)
        forwards = (_forward(member, engine) for member in members)
        active = tuple(MirrorAverage(each, task.activate) if mirrored else Activated(each, task.activate) for each in forwards)
        seen = tuple(member.spec.preprocessing for member in members)
        alike = all(each == seen[0] for each in seen)
        mean = MemberMean(active, None if alike else spec.in_channels)
        return CasePredictor(model, task, SlidingWindow(mean, spec.patch, fraction), progress, limit, () if alike else seen[1:])
    forward = _forward(model, engine)
    if mirrored:
        window = SlidingWindow(MirrorAverage(forward, task.activate), spec.patch, fraction)
    else:
        window = SlidingWindow(forward, spec.patch, fraction, task.activate)
    return CasePredictor(model, task, window, progress, limit)


def _forward(model: Model, engine: Part | None) -> Forward:
    """What an engine makes of a model; None: the engine that the model names."""
    return cast("Engine", engine if engine is not None else _part("engine", model.spec.engine)).forward(model)


def _part(kind: str, settings: Mapping[str, JsonValue]) -> Part:
    """Build a part from {name, settings}."""
    part = registry(kind).resolve(str(settings.get("name")))
    return part.model_validate({key: value for key, value in settings.items() if key != "name"})


def _spatial(case: Case) -> Shape:
    i, j, k = case.image.shape[1:]
    return i, j, k


def _check_channels(array: FloatArray, wanted: int) -> None:
    if array.shape[0] != wanted:
        raise InputRejected(f"The image has {array.shape[0]} channels; the model needs {wanted}.", code="CHANNELS")
