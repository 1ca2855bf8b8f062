"""The one path from a case to an answer: contract, preprocessing, windows, back to the case's own grid, decision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from types import MappingProxyType
from typing import cast

from pydantic import JsonValue

from bedside.core.case import Case, Prediction
from bedside.core.errors import InputRejected
from bedside.core.model import Model
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import Engine, FloatArray, Task
from bedside.data.transforms import prepare
from bedside.engines.wrap import MirrorAverage, SlidingWindow


@dataclass(frozen=True)
class CasePredictor:
    """What an engine makes of a model: a case in, an answer on the case's own grid out.

    The same case gives the same bytes each time on one machine with one number of threads.

    Attributes:
        model: what predicts.
        task: turns averaged output into an answer.
        window: runs the engine over a volume.
    """

    model: Model
    task: Task
    window: Callable[[FloatArray], FloatArray]

    def __call__(self, case: Case) -> Prediction:
        """Predict one case; only its image is looked at.

        Raises:
            InputRejected: the case breaks the model's contract, or the output holds NaN or infinity.
        """
        return self.answer(case)[0]

    def answer(self, case: Case) -> tuple[Prediction, FloatArray]:
        """Predict one case and also give the averaged output, (C_out, I, J, K) float32 on the case's own grid.

        Raises:
            InputRejected: the case breaks the model's contract, or the output holds NaN or infinity.
        """
        spec = self.model.spec
        begun = perf_counter()
        spec.contract.check(case)
        prepared = prepare(case.image, spec.preprocessing)
        _check_channels(prepared.array, spec.in_channels)
        ready = perf_counter()
        averaged = self.window(prepared.array)
        computed = perf_counter()
        output = prepared.restore(averaged)
        value, uncertainty = self.task.decode(output)
        seconds = {"preprocess": ready - begun, "infer": computed - ready, "postprocess": perf_counter() - computed}
        prediction = Prediction(value, self.model.digest, case.id, uncertainty, MappingProxyType(seconds))
        return prediction, output


def open_model(
    model: Model, *, engine: Part | None = None, overlap: float | None = None, mirror: bool | None = None
) -> CasePredictor:
    """Load a model and return what predicts with it.

    Args:
        model: from the store; its bytes are hashed again here.
        engine: what computes; default: the engine that the model names.
        overlap: of neighbouring windows, as a fraction of the patch; default: what the model names.
        mirror: average over the volume and its left-right mirror image; default: what the model names.

    Raises:
        IntegrityError: the model's bytes have changed.
        UsageError: the engine does not run the model's format, or the overlap is no fraction.
        UnsafeArtefact: the weights could reach outside their file.
    """
    spec = model.spec
    chosen = engine if engine is not None else _part("engine", spec.engine)
    task = cast("Task", _part("task", spec.task))
    forward = cast("Engine", chosen).forward(model)
    fraction = spec.overlap if overlap is None else overlap
    window = SlidingWindow(forward, spec.patch, fraction, task.activate)
    mirrored = spec.mirror if mirror is None else mirror
    return CasePredictor(model, task, MirrorAverage(window) if mirrored else window)


def _part(kind: str, settings: Mapping[str, JsonValue]) -> Part:
    """Build a part from {name, settings}."""
    part = registry(kind).resolve(str(settings.get("name")))
    return part.model_validate({key: value for key, value in settings.items() if key != "name"})


def _check_channels(array: FloatArray, wanted: int) -> None:
    if array.shape[0] != wanted:
        raise InputRejected(f"The image has {array.shape[0]} channels; the model needs {wanted}.", code="CHANNELS")
