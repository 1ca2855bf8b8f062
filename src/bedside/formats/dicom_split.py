"""One series divided into volumes: first by what no volume mixes, then by what tells several images of one place apart.

Slices of different frames of reference, directions or grids never lie in one volume. Where slices share places, the marks of
`dicom_facts.MARKS` are tried in that order for one that divides them into stacks with the same places, each place once; then for
two or three in a row (an echo of the real part); then the scanner's own numbering, when it runs through the places in equal
rounds.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected
from bedside.formats.dicom_facts import MARKS, NUMERIC_MARKS
from bedside.formats.dicom_geometry import all_apart, places
from bedside.formats.dicom_header import Facts
from bedside.formats.dicom_pixels import Slice

SAME_DIRECTION = 1e-4
_SAME_SPACING = 1e-5
_MOST_GROUPS = 64
_MOST_MARKS = 3
_SAME_PLACE_MM = 0.01

Slices = tuple[Slice, ...]


@dataclass(frozen=True)
class Division:
    """Parts of a series.

    Attributes:
        parts: in the order of what divides them.
        by: what that is, in the words of a note: "ECHO", "ORIENTATION"; "" when nothing was divided.
    """

    parts: tuple[Slices, ...]
    by: str = ""


def by_grid(slices: Slices) -> Division:
    """Divide by frame of reference, direction and grid; `by` names the first of them that differs."""
    rules: tuple[tuple[str, Callable[[Facts, Facts], bool]], ...] = (
        ("FRAME", lambda a, b: a.frame_uid == b.frame_uid),
        ("ORIENTATION", _same_direction),
        ("GRID", _same_grid),
    )
    parts: tuple[Slices, ...] = (slices,)
    names: list[str] = []
    if len({id(one.header.facts) for one in slices}) == 1:
        return Division(parts)
    for name, alike in rules:
        divided = tuple(part for group in parts for part in _alike(group, alike))
        if len(divided) > len(parts):
            names.append(name)
        parts = divided
    return Division(parts, names[0] if names else "")


def _alike(slices: Slices, alike: Callable[[Facts, Facts], bool]) -> list[Slices]:
    """Groups whose first slices differ; a series in more pieces than any scanner makes is left whole."""
    known: dict[int, int] = {}
    firsts: list[Facts] = []
    groups: list[list[Slice]] = []
    for one in slices:
        facts = one.header.facts
        if id(facts) not in known:
            number = next((n for n, first in enumerate(firsts) if alike(first, facts)), len(firsts))
            known[id(facts)] = number
            if number == len(firsts):
                firsts.append(facts)
                groups.append([])
            if len(firsts) > _MOST_GROUPS:
                raise InputRejected("The slices point in too many directions to be volumes.", code="SERIES_MIXED_ORIENTATION")
        groups[known[id(facts)]].append(one)
    return [tuple(group) for group in groups]


def _same_direction(first: Facts, second: Facts) -> bool:
    pairs = zip((*first.row_direction, *first.column_direction), (*second.row_direction, *second.column_direction), strict=True)
    return max(abs(a - b) for a, b in pairs) <= SAME_DIRECTION


def _same_grid(first: Facts, second: Facts) -> bool:
    near = all(abs(a - b) <= _SAME_SPACING * abs(b) for a, b in zip(first.spacing_mm, second.spacing_mm, strict=True))
    return near and (first.rows, first.columns) == (second.rows, second.columns)


def by_marks(slices: Slices) -> Division:
    """Divide slices of one grid that share places.

    Returns:
        One part when every place is there once; several with the same places when something divides them so.

    Raises:
        InputRejected: SERIES_DUPLICATE_POSITION: nothing does.
    """
    normal = np.array(slices[0].header.facts.normal)
    positions_mm = np.array([one.header.position_mm for one in slices])
    if all_apart(positions_mm @ normal):
        return Division((slices,))
    where = places(positions_mm, normal)
    divided = None
    if where.any():
        divided = _by_one_mark(slices, where) or _by_several(slices, where, _MOST_MARKS) or _by_number(slices, where)
    if divided is None or not _share_places(divided.parts):
        raise InputRejected(
            "Two different slices lie at one position, and nothing in their headers divides them into volumes; split the series.",
            code="SERIES_DUPLICATE_POSITION",
        )
    return divided


def _by_one_mark(slices: Slices, where: NDArray[np.intp]) -> Division | None:
    for number, name in enumerate(MARKS):
        groups = _grouped(slices, number)
        sizes = {len(group) for group in groups}
        if len(groups) > 1 and sizes == {int(where.max()) + 1} and all(len(set(where[group])) == len(group) for group in groups):
            return Division(tuple(tuple(slices[index] for index in group) for group in groups), name.upper())
    return None


def _by_several(slices: Slices, where: NDArray[np.intp], depth: int) -> Division | None:
    """By one mark into groups of equal places, and each of those by others."""
    if depth < 2:
        return None
    count = int(where.max()) + 1
    for number, name in enumerate(MARKS):
        groups = _grouped(slices, number)
        if len(groups) < 2 or any(len(group) % count or len(set(where[group])) < count for group in groups):
            continue
        parts: list[Slices] = []
        names = [name.upper()]
        for group in groups:
            members, inside = tuple(slices[index] for index in group), where[group]
            divided: Division | None = Division((members,))
            if len(group) > count:
                divided = _by_one_mark(members, inside) or _by_several(members, inside, depth - 1) or _by_number(members, inside)
            if divided is None:
                break
            parts.extend(divided.parts)
            names.extend(part for part in divided.by.split("_AND_") if part and part not in names)
        else:
            return Division(tuple(parts), "_AND_".join(names))
    return None


def _by_number(slices: Slices, where: NDArray[np.intp]) -> Division | None:
    """By InstanceNumber (frame number), when it goes through all places again and again, or stays at each place equally long.

    The number never says where a slice lies, only which of several images of one place is which.
    """
    numbers = [(one.header.instance, one.header.frame) for one in slices]
    count = int(where.max()) + 1
    if len(set(numbers)) < len(numbers) or len(numbers) % count:
        return None
    order = np.array(sorted(range(len(numbers)), key=numbers.__getitem__))
    rounds = order.reshape(-1, count)
    if (where[rounds] == where[rounds[0]]).all() and len(set(where[rounds[0]])) == count:
        return Division(tuple(tuple(slices[index] for index in group) for group in rounds), "NUMBER")
    stays = order.reshape(count, -1)
    if (where[stays] == where[stays[:, :1]]).all() and len(set(where[stays[:, 0]])) == count:
        return Division(tuple(tuple(slices[index] for index in group) for group in stays.T), "NUMBER")
    return None


def _grouped(slices: Slices, number: int) -> list[list[int]]:
    """Indices of slices with equal marks, ordered by the mark where it is a number and by InstanceNumber where it is not."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(slices):
        groups[one.header.marks[number]].append(index)
    numeric = MARKS[number] in NUMERIC_MARKS

    def key(mark: str) -> tuple[float, int, int, Hashable]:
        value = _value(mark) if numeric else 0.0
        first = min((slices[index].header.instance, slices[index].header.frame) for index in groups[mark])
        return value, *first, mark

    return [groups[mark] for mark in sorted(groups, key=key)]


def _value(mark: str) -> float:
    try:
        return float(mark.partition("\\")[0])
    except ValueError:
        return 0.0


def _share_places(parts: Sequence[Slices]) -> bool:
    """Whether every part has its slices where the first part has them, sideways too."""
    normal = np.array(parts[0][0].header.facts.normal)
    first = None
    for part in parts:
        positions = np.array([one.header.position_mm for one in part])
        positions = positions[np.argsort(positions @ normal, kind="stable")]
        first = positions if first is None else first
        if positions.shape != first.shape or np.abs(positions - first).max() > _SAME_PLACE_MM:
            return False
    return True
