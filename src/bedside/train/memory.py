"""What to do when memory runs out in the middle of a training: the same step again, in smaller pieces."""

import gc

import torch

from bedside.core.errors import ResourceError
from bedside.core.plan import Plan
from bedside.core.run import Incident
from bedside.core.task import divisors

_SAID_BY_TORCH = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation")
_SAID_BY_ONEDNN = ("could not create a memory", "could not create a primitive", "could not execute a primitive")
"""It has no other words for it; that shapes fit each other was seen when the plan was made."""
LEAST_PIECES = 2
"""A patch keeps at least this many of the network's divisors along each axis that had as many."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's and numpy's error, or what torch's allocators and oneDNN say."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in (*_SAID_BY_TORCH, *_SAID_BY_ONEDNN))


def smaller(plan: Plan, step: int) -> tuple[Plan, Incident]:
    """The plan with fewer patches at once or, where it is one already, with a smaller patch; the batch stays.

    Raises:
        ResourceError: OUT_OF_MEMORY, when nothing is left to make smaller.
    """
    if plan.micro_batch > 1:
        fewer = next(part for part in range(plan.micro_batch // 2, 0, -1) if plan.batch % part == 0)
        said = f"memory ran out with {plan.micro_batch} patches at once; {fewer} of {plan.batch} pass at once from here on"
        return plan.model_copy(update={"micro_batch": fewer}), Incident(step=step, code="SMALLER", said=said)
    pieces = divisors(plan.network)
    counts = [side // piece for side, piece in zip(plan.patch, pieces, strict=True)]
    free = [axis for axis in range(3) if counts[axis] > LEAST_PIECES]
    if not free:
        raise ResourceError(
            f"Memory ran out with one patch of {_by(plan.patch)} voxels at a time, and nothing is left to make smaller; give more"
            " memory, or take a smaller network. The last checkpoint is intact.",
            code="OUT_OF_MEMORY",
        )
    longest = max(plan.patch[axis] for axis in free)
    sides = list(plan.patch)
    for axis in free:
        if plan.patch[axis] == longest:
            sides[axis] = max(LEAST_PIECES, min(counts[axis] - 1, round(counts[axis] * 0.75))) * pieces[axis]
    patch = (sides[0], sides[1], sides[2])
    said = f"memory ran out with a patch of {_by(plan.patch)} voxels; patches have {_by(patch)} from here on"
    return plan.model_copy(update={"patch": patch}), Incident(step=step, code="SMALLER", said=said)


def release() -> None:
    """Give back what nobody uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _by(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(side) for side in shape)
