"""What to do when memory runs out in the middle of a training: the same step again, in smaller pieces."""

import gc
from collections.abc import Callable

import torch

from bedside.core.errors import ResourceError
from bedside.core.heap import give_back
from bedside.core.plan import Plan
from bedside.core.run import Incident
from bedside.core.task import divisors, least_patches

_SAID_BY_PYTHON = "can't start new thread"
"""Of a thread whose stack does not fit."""
_SAID_BY_TORCH = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation", "status_alloc_failed")
_SAID_BY_ONEDNN = ("could not create a memory", "could not create a primitive", "could not execute a primitive")
"""It has no other words for it; that shapes fit each other was seen when the plan was made."""
Shape = tuple[int, int, int]
LEAST_PIECES = 2
"""A patch keeps at least this many of the network's divisors along each axis that had as many."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's and numpy's error, or what torch's allocators and oneDNN say."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    known = (_SAID_BY_PYTHON, *_SAID_BY_TORCH, *_SAID_BY_ONEDNN)
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in known)


def smaller(plan: Plan, step: int) -> tuple[Plan, Incident]:
    """The plan with fewer patches at once or, where it is one already, with a smaller patch; the batch stays.

    Raises:
        ResourceError: OUT_OF_MEMORY, when nothing is left to make smaller.
    """
    fewer = next((part for part in range(plan.micro_batch // 2, 0, -1) if plan.batch % part == 0), 0)
    if fewer >= least_patches(plan.network):
        said = f"memory ran out with {plan.micro_batch} patches at once; {fewer} of {plan.batch} pass at once from here on"
        return plan.model_copy(update={"micro_batch": fewer}), Incident(step=step, code="SMALLER", said=said)
    patch = shrunk(plan.patch, plan.network)
    if patch is None:
        raise ResourceError(
            f"Memory ran out with {plan.micro_batch} patches of {by(plan.patch)} voxels at a time, and nothing is left to make"
            " smaller; give more memory, or take a smaller network. The last checkpoint is intact.",
            code="OUT_OF_MEMORY",
        )
    said = f"memory ran out with a patch of {by(plan.patch)} voxels; patches have {by(patch)} from here on"
    return plan.model_copy(update={"patch": patch}), Incident(step=step, code="SMALLER", said=said)


def shrunk(patch: Shape, network: object) -> Shape | None:
    """The patch with its longest sides a quarter shorter, in multiples that the network takes; None where all are short."""
    pieces = divisors(network)
    counts = [side // piece for side, piece in zip(patch, pieces, strict=True)]
    free = [axis for axis in range(3) if counts[axis] > LEAST_PIECES]
    longest = max((patch[axis] for axis in free), default=0)
    sides = list(patch)
    for axis in free:
        if patch[axis] == longest:
            sides[axis] = max(LEAST_PIECES, min(counts[axis] - 1, round(counts[axis] * 0.75))) * pieces[axis]
    return (sides[0], sides[1], sides[2]) if free else None


def in_windows(attempt: Callable[[Shape], float], window: Shape, network: object) -> tuple[float, Shape, str]:
    """Score a case in windows of a size, or of the largest smaller one that memory holds.

    Returns:
        The score, the size, and what has to be said where it is a smaller one.

    Raises:
        ResourceError: OUT_OF_MEMORY, when the smallest windows are too large.
    """
    said, first = "", window
    while True:
        try:
            return attempt(window), window, said
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        release()
        smaller_one = shrunk(window, network)
        if smaller_one is None:
            raise ResourceError(
                f"Memory ran out while a case was scored in windows of {by(window)} voxels, and nothing is left to make smaller;"
                " give more memory, or validate on smaller cases. The last checkpoint is intact.",
                code="OUT_OF_MEMORY",
            )
        window = smaller_one
        said = f"memory ran out while a case was scored in windows of {by(first)} voxels; they have {by(window)} from here on"


def check_ceiling(used_mb: float, plan: Plan) -> None:
    """Stop a training that took more than it may; what it saved stays.

    Raises:
        ResourceError: MEMORY.
    """
    if used_mb > plan.memory_mb:
        raise ResourceError(
            f"Training used {used_mb:.0f} MB of memory and train.memory_gb allows {plan.memory_mb:.0f} MB;"
            " make train.patch or train.batch smaller, or raise the ceiling. The last checkpoint is saved.",
            code="MEMORY",
        )


def release() -> None:
    """Give back what nobody uses."""
    gc.collect()
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def by(shape: Shape) -> str:
    """A size in words."""
    return " x ".join(str(side) for side in shape)
