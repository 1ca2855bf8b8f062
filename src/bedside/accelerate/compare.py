"""What a faster form of a model costs and gains against the reference, in numbers, and the rule that judges them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from bedside.core.case import Prediction
from bedside.core.errors import IntegrityError
from bedside.core.record import Record
from bedside.core.task import FloatArray
from bedside.metrics.overlap import dice

Answer = tuple[Prediction, FloatArray]


class Seconds(Record):
    """End-to-end wall-clock seconds of one prediction: read, preprocess, infer, postprocess. `n` runs."""

    p50: float
    p95: float
    n: int


class StructureDice(Record):
    """Mean over cases of one structure's Dice against the ground truth; `difference` is stage minus baseline."""

    baseline: float
    stage: float
    difference: float


class Comparison(Record):
    """One stage against the baseline on the same cases.

    Attributes:
        max_difference, mean_difference: absolute, of the averaged output (probabilities for segmentation), over all voxels and
            channels of all cases.
        voxels: compared, in all cases.
        flips, flip_share: voxels whose label is another one, and their share of all.
        dice: structure to its Dice against the ground truth, background left out.
        seconds_baseline, seconds_stage: measured in turn, baseline and stage, on the same cases after a warm-up.
        speed_ratio: baseline's p50 over the stage's; above 1 the stage is faster.
    """

    max_difference: float
    mean_difference: float
    voxels: int
    flips: int
    flip_share: float
    dice: dict[str, StructureDice]
    seconds_baseline: Seconds
    seconds_stage: Seconds
    speed_ratio: float


class StageResult(Record):
    """One stage: what it is, what was measured, and whether it may be used.

    Attributes:
        name: engine and precision, "torch-bf16".
        engine: the engine as {name, settings}.
        model: digest of the stage's model ("" if it could not be made); in the store only if accepted.
        weights_bytes: size of its weights on disk.
        measured: None if it failed before anything could be measured.
        because: one sentence with the numbers that decided.
    """

    name: str
    engine: dict[str, JsonValue]
    model: str
    weights_bytes: int
    measured: Comparison | None
    accepted: bool
    because: str


class Acceleration(Record):
    """`acceleration.json`: every stage that was tried for a model.

    Attributes:
        model: digest of the model that was given; the baseline runs its weights with torch in eager float32.
        dataset, split: where the cases come from; `cases` how many; `repeats`: timed runs of each.
        max_dice_change: the limit.
        threads: processor threads that were to be had.
        chosen: name of the fastest accepted stage, or of the baseline; `chosen_model`: its digest.
    """

    kind: Literal["acceleration"] = "acceleration"
    model: str
    weights_bytes: int
    dataset: str
    split: str
    cases: int
    repeats: int
    max_dice_change: float
    threads: int
    baseline: str
    stages: tuple[StageResult, ...]
    chosen: str
    chosen_model: str


@dataclass(frozen=True)
class CaseDifference:
    """Stage against baseline on one case: sums, so that cases of different size add up; `dice` is (baseline, stage)."""

    largest: float
    total: float
    values: int
    voxels: int
    flips: int
    dice: Mapping[str, tuple[float, float]]


def compare_case(baseline: Answer, stage: Answer, reference: NDArray[np.generic], *, structures: Sequence[str]) -> CaseDifference:
    """Compare two answers to one case.

    Args:
        baseline: answer and averaged output (C, I, J, K).
        stage: the same of the stage.
        reference: the ground truth, (I, J, K) training ids.
        structures: names in training-id order, background first.

    Raises:
        IntegrityError: the outputs do not have the same shape.
    """
    if stage[1].shape != baseline[1].shape:
        raise IntegrityError(
            f"The stage's output has shape {stage[1].shape}, the baseline's {baseline[1].shape}; they must be equal.",
            code="OUTPUT_SHAPE",
        )
    apart = np.abs(stage[1].astype(np.float64) - baseline[1])
    first, second = baseline[0].value, stage[0].value
    scores = {
        name: (dice(first == index, reference == index), dice(second == index, reference == index))
        for index, name in enumerate(structures)
        if index > 0
    }
    return CaseDifference(
        largest=float(apart.max()),
        total=float(apart.sum()),
        values=apart.size,
        voxels=first.size,
        flips=int(np.count_nonzero(first != second)),
        dice=scores,
    )


def summarise(
    differences: Sequence[CaseDifference], seconds_baseline: Sequence[float], seconds_stage: Sequence[float]
) -> Comparison:
    """Put cases and timed runs together; at least one of each."""
    voxels = sum(case.voxels for case in differences)
    flips = sum(case.flips for case in differences)
    slow, fast = seconds_of(seconds_baseline), seconds_of(seconds_stage)
    return Comparison(
        max_difference=max(case.largest for case in differences),
        mean_difference=sum(case.total for case in differences) / sum(case.values for case in differences),
        voxels=voxels,
        flips=flips,
        flip_share=flips / voxels,
        dice={name: _mean_dice([case.dice[name] for case in differences]) for name in differences[0].dice},
        seconds_baseline=slow,
        seconds_stage=fast,
        speed_ratio=slow.p50 / fast.p50 if fast.p50 > 0 else math.inf,
    )


def _mean_dice(pairs: Sequence[tuple[float, float]]) -> StructureDice:
    baseline, stage = (float(np.mean(column)) for column in zip(*pairs, strict=True))
    return StructureDice(baseline=baseline, stage=stage, difference=stage - baseline)


def seconds_of(runs: Sequence[float]) -> Seconds:
    """Median and 95th percentile (linear between runs)."""
    p50, p95 = np.percentile(runs, [50, 95])
    return Seconds(p50=float(p50), p95=float(p95), n=len(runs))


def judge(measured: Comparison, *, max_dice_change: float) -> tuple[bool, str]:
    """Decide whether a stage may be used, and say why in a sentence.

    It may not be if any structure's mean Dice moves by more than `max_dice_change` (up or down: a stage that changes answers is
    another model), or if its p50 is not below the baseline's.
    """
    slow, fast = measured.seconds_baseline.p50, measured.seconds_stage.p50
    against = f"p50 {fast:.4g} s against {slow:.4g} s"
    reasons = [
        f"Dice of {name} moves by {abs(score.difference):.4g} > {max_dice_change:g}"
        for name, score in measured.dice.items()
        if not abs(score.difference) <= max_dice_change
    ]
    if not fast < slow:
        reasons.append(f"not faster here ({against})")
    if reasons:
        return False, f"rejected: {'; '.join(reasons)}"
    most = max((abs(score.difference) for score in measured.dice.values()), default=0.0)
    return True, f"accepted: {measured.speed_ratio:.2f} times as fast ({against}), Dice moves by at most {most:.2g}"


def timed(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = perf_counter()
    run()
    return perf_counter() - begun
