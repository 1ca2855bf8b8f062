"""What a voxel of a mask says where the annotator did not look at everything: nothing, or which structures it may be."""

from collections.abc import Sequence
from typing import Annotated, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from bedside.core.case import Case
from bedside.core.errors import InputRejected
from bedside.core.labels import FIRST_CODE, UNANNOTATED
from bedside.core.record import Record

MAX_PARTIAL = UNANNOTATED - FIRST_CODE
Structure = Annotated[int, Field(ge=1, lt=FIRST_CODE)]


class Partial(Record):
    """Cases in which only some structures were annotated: what is background there may be any of the others.

    Attributes:
        column: of the clinical table, or "site".
        value: of that column; the cases that have it are meant.
        structures: training ids that were annotated in them.
    """

    column: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[str, Field(max_length=64)]
    structures: tuple[Structure, ...] = Field(min_length=1)

    def holds(self, case: Case) -> bool:
        """Whether the case is one of these."""
        found = case.site if self.column == "site" else case.clinical.get(self.column)
        return found is not None and str(found) == self.value


def target_of(case: Case, partial: Sequence[Partial]) -> NDArray[np.uint8]:
    """The training ids of a case, (I, J, K); its background becomes the code of the first rule that holds for it.

    Raises:
        InputRejected: LABEL_PARTIAL: the mask holds a structure that is said not to have been annotated.
    """
    label = np.asarray(case.volumes["label"].array[0], dtype=np.uint8)
    number = _rule_of(case, partial)
    if number is None:
        return label
    _check_holds(label, partial[number])
    return np.where(label == 0, np.uint8(_code(number)), label)


def target_settings_of(case: Case, partial: Sequence[Partial]) -> dict[str, JsonValue]:
    """What `target_of` goes by beside the mask: the first rule that holds for the case."""
    number = _rule_of(case, partial)
    rule = {} if number is None else {"code": _code(number), "structures": sorted(partial[number].structures)}
    return {"target": "annotation", **cast("dict[str, JsonValue]", rule)}


def annotated_in(case: Case, partial: Sequence[Partial], structures: int) -> frozenset[int]:
    """The training ids, of 1 to `structures`, that somebody looked for in a case; none where its mask is unannotated throughout.

    Raises:
        InputRejected: LABEL_PARTIAL: the mask holds a structure that is said not to have been annotated.
    """
    label = np.asarray(case.volumes["label"].array[0])
    if (label == UNANNOTATED).all():
        return frozenset()
    number = _rule_of(case, partial)
    if number is None:
        return frozenset(range(1, structures + 1))
    _check_holds(label, partial[number])
    return frozenset(id for id in partial[number].structures if id <= structures)


def partial_of(task: object) -> tuple[Partial, ...]:
    """The rules of a task; of one that holds others those of the one that answers."""
    if hasattr(task, "partial"):
        return tuple(task.partial)
    inner = getattr(task, "kept", None) or getattr(task, "first", None)
    return () if inner is None else partial_of(inner)


def _rule_of(case: Case, partial: Sequence[Partial]) -> int | None:
    """The place of the first rule that holds for a case."""
    return next((number for number, rule in enumerate(partial) if rule.holds(case)), None)


def _check_holds(label: NDArray[np.generic], rule: Partial) -> None:
    strange = sorted(set(np.unique(label).tolist()) - {0, UNANNOTATED, *rule.structures})
    if strange:
        raise InputRejected(
            f"A mask holds the structures {strange}, which task.partial says were not annotated in such cases; list them there.",
            code="LABEL_PARTIAL",
        )


def possible(channels: int, partial: Sequence[Partial]) -> NDArray[np.bool_]:
    """Which structures a voxel of each code may be, (256, channels): one for an id, every one where nothing was annotated."""
    table = np.zeros((256, channels), dtype=bool)
    table[range(channels), range(channels)] = True
    table[UNANNOTATED] = True
    for number, rule in enumerate(partial):
        table[_code(number)] = True
        table[_code(number), list(rule.structures)] = False
    return table


def _code(number: int) -> int:
    """Codes of partial annotation count down from that of none."""
    return UNANNOTATED - 1 - number
