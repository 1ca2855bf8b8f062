"""Leaks: what stands on both sides of a split and makes scores too good.

One patient id on two sides is refused when a dataset is made, and again whenever it is loaded (`check_splits`). Looked for here
is what ids do not tell: the same bytes, a part cut out of a scan, or the same scan after a change, under two patients.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Literal

from bedside.core.dataset import CaseRecord, Manifest, Splits
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.data.alike import search
from bedside.data.fingerprint import Grid
from bedside.data.rank_marks import Marks, shared_marks

SAME_SCAN = 0.95
"""Similarity from which two images are taken for one scan; `benchmarks/leaks.py` measures what it finds and what it mistakes."""
STANDS_OUT = 1.5
"""Lead from which they are: 4.5 times less detail differs between the two than between one of them and the next image."""


class Leak(Record):
    """Two cases that may show one scan.

    Attributes:
        kind: "identical": the stored voxels are the same bytes; "near_identical": the fingerprints say so, or one shows
            voxels of the other.
        first, second: ids of the cases.
        same_patient: whether both bear the name of one patient; then it is a repetition, and no leak.
        sides: the splits they stand in: "test", "fold0", ...
        crosses: "test": one is in the locked test split and the other is not; "folds": in two folds; "": on one side.
        similarity: 1 of identical bytes; as `data.alike.Match`; of a part that only its voxels tell, the share of common marks.
        flips: axes along which one mirrors the other, in words.
    """

    kind: Literal["identical", "near_identical"]
    first: str
    second: str
    same_patient: bool
    sides: tuple[str, str]
    crosses: Literal["test", "folds", ""]
    similarity: float
    flips: str = ""


def find_leaks(
    manifest: Manifest,
    prints: Mapping[str, Grid],
    marks: Mapping[str, Marks] = MappingProxyType({}),
    *,
    least: float = SAME_SCAN,
    progress: Progress = SILENT,
) -> tuple[Leak, ...]:
    """Find every pair of cases that may show one scan, those that cross into the test split first.

    Args:
        manifest: of the dataset.
        prints: case id to fingerprint of its image; a case without one is compared by its bytes only.
        marks: case id to marks of its image (`data.rank_marks`), by which a part is found; none: parts below 70 % are not.
        least: similarity from which a pair counts that stands out by `STANDS_OUT`.
        progress: advances by one per case.
    """
    cases = {case.id: case for case in manifest.cases}
    sides = sides_of(manifest.splits)
    found = {frozenset(pair): _leak("identical", cases, sides, pair, 1.0, "") for pair in _identical(tuple(cases.values()))}
    names = [name for name in cases if name in prints]
    for match in search([prints[name] for name in names], least=least, lead=STANDS_OUT, progress=progress):
        pair = (names[match.first], names[match.second])
        axes = [axis for axis, flipped in zip(("right-left", "front-back", "head-foot"), match.flips, strict=True) if flipped]
        leak = _leak("near_identical", cases, sides, pair, round(match.similarity, 4), ", ".join(axes))
        found.setdefault(frozenset(pair), leak)
    marked = [name for name in cases if name in marks]
    for (first, second), share in shared_marks([marks[name] for name in marked]).items():
        pair = (marked[first], marked[second])
        found.setdefault(frozenset(pair), _leak("near_identical", cases, sides, pair, round(share, 4), ""))
    order = {"test": 0, "folds": 1, "": 2}
    return tuple(sorted(found.values(), key=lambda leak: (order[leak.crosses], -leak.similarity, leak.first, leak.second)))


def sides_of(splits: Splits) -> dict[str, str]:
    """Patient to the split the patient stands in."""
    sides = dict.fromkeys(splits.test, "test")
    for number, fold in enumerate(splits.folds):
        sides.update(dict.fromkeys(fold, f"fold{number}"))
    return sides


def _identical(cases: Sequence[CaseRecord]) -> list[tuple[str, str]]:
    """Pairs whose images are the same bytes: arrays are named by their content, and received files by their digest."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if "image" in case.volumes:
            groups[case.volumes["image"].file].append(case.id)
            groups[case.volumes["image"].source].append(case.id)
    pairs = {tuple(sorted(pair)) for names in groups.values() for pair in combinations(names, 2)}
    return sorted((first, second) for first, second in pairs)


def _leak(
    kind: Literal["identical", "near_identical"],
    cases: Mapping[str, CaseRecord],
    sides: Mapping[str, str],
    pair: tuple[str, str],
    similarity: float,
    flips: str,
) -> Leak:
    first, second = (cases[name].patient for name in pair)
    stand = sides[first], sides[second]
    crosses: Literal["test", "folds", ""] = ""
    if stand[0] != stand[1]:
        crosses = "test" if "test" in stand else "folds"
    return Leak(
        kind=kind,
        first=pair[0],
        second=pair[1],
        same_patient=first == second,
        sides=stand,
        crosses=crosses,
        similarity=similarity,
        flips=flips,
    )
