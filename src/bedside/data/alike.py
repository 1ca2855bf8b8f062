"""The same scan is found again after a crop, a flip, resampling, another intensity scale or noise.

An index proposes a few images for each one (`data.alike_index`); those are laid on it and compared (`data.alike_align`). How
alike two patients are depends on what is shown: of a limb, nearly all of it. So a pair is judged by how far it stands out from
the other images proposed for one of the two, and not by its similarity alone; where there are no alike ones to compare it with,
the texture of flat regions, which no two scans share, must agree too. Of N images at most 12 N pairs are compared.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bedside.core.progress import SILENT, Progress
from bedside.data.alike_align import aligned, detail_likeness, texture_likeness
from bedside.data.alike_index import Index
from bedside.data.fingerprint import Flips, Grid, flipped, halved

_CANDIDATES = 12
_STEPS = 8
_FINE_STEPS = 3
_STRANGERS = 0.85
_COPIES = 4
_ENOUGH = 5
_SAME_TEXTURE = 0.4


@dataclass(frozen=True)
class Match:
    """Two images that may be one scan.

    Attributes:
        first, second: their places in the sequence that was searched; first < second.
        similarity: correlation of detail where both are, -1..1.
        lead: how far it stands out: logarithm of how many times more detail differs between one of the two and the next image.
        flips: axes (right-left, front-back, head-foot) along which one is the mirror image of the other.
        window: of the one, what part of it the other shows: (low, high) per axis as fractions.
    """

    first: int
    second: int
    similarity: float
    lead: float
    flips: Flips
    window: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Laid:
    """The first image laid on the second: similarity, and how it lies."""

    similarity: float
    flips: Flips
    window: tuple[tuple[float, float], ...]
    first: int
    second: int


def search(prints: Sequence[Grid], *, least: float, lead: float, progress: Progress = SILENT) -> tuple[Match, ...]:
    """Find the pairs that stand out, most similar first.

    Args:
        prints: fingerprints.
        least: similarity from which a pair counts.
        lead: see `Match.lead`; `ingest.leaks` says what separates one scan from two patients.
        progress: advances by one per image.
    """
    if len(prints) < 2:
        return ()
    index = Index(prints)
    halves = np.stack([halved(one) for one in prints])
    laid: dict[tuple[int, int], _Laid] = {}
    progress.start("comparing images", len(prints))
    for number, one in enumerate(prints):
        for other, found in _compared(index, halves, number, one).items():
            pair = min(number, other), max(number, other)
            if pair not in laid or found.similarity > laid[pair].similarity:
                laid[pair] = found
        progress.advance(number + 1)
    leads = _leads({pair: found.similarity for pair, found in laid.items()})
    matches = [
        Match(*pair, found.similarity, leads[pair].by, found.flips, found.window)
        for pair, found in laid.items()
        if found.similarity >= least and leads[pair].by >= lead and (leads[pair].over_alike or _same_texture(prints, found))
    ]
    return tuple(sorted(matches, key=lambda match: (-match.similarity, match.first, match.second)))


def similarity(first: Grid, second: Grid) -> float:
    """How alike two fingerprints are at best, -1..1."""
    laid = _compared(Index([first, second]), np.stack([halved(first), halved(second)]), 0, first)
    return laid[1].similarity


def _compared(index: Index, halves: Grid, number: int, one: Grid) -> dict[int, _Laid]:
    """The images that are proposed for one, each as it lies best."""
    proposed = list(index.candidates(number, one, most=_CANDIDATES))
    fixed = np.stack([flipped(halves[candidate.other], candidate.flips) for candidate in proposed])
    moving = np.broadcast_to(halves[number], fixed.shape)
    _, edges = aligned(moving, fixed, np.stack([candidate.edges for candidate in proposed]), steps=_STEPS)
    found: dict[int, _Laid] = {}
    for candidate, window, score in zip(proposed, edges, detail_likeness(moving, fixed, edges), strict=True):
        if candidate.other not in found or score > found[candidate.other].similarity:
            parts = tuple((round(float(low), 3), round(float(high), 3)) for low, high in window)
            found[candidate.other] = _Laid(float(score), candidate.flips, parts, number, candidate.other)
    return found


def _same_texture(prints: Sequence[Grid], laid: _Laid) -> bool:
    moving, fixed = prints[laid.first], flipped(prints[laid.second], laid.flips)
    _, edges = aligned(moving[np.newaxis], fixed[np.newaxis], np.array([laid.window]), steps=_FINE_STEPS)
    return texture_likeness(moving, fixed, edges[0]) >= _SAME_TEXTURE


@dataclass(frozen=True)
class _Lead:
    """How far a pair stands out, and whether over enough strangers that are as alike as strangers usually are."""

    by: float
    over_alike: bool


def _leads(similarities: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], _Lead]:
    """Each pair's lead over the strangers of one of its two images, the larger one.

    An image may have up to four copies: they are the images before the largest step down of its similarities. Who has no
    strangers among the images is compared with as alike as strangers usually are.
    """
    around: dict[int, list[tuple[float, tuple[int, int]]]] = defaultdict(list)
    for pair, value in similarities.items():
        depth = -float(np.log(max(1 - value, 1e-6)))
        for one in pair:
            around[one].append((depth, pair))
    usual = -float(np.log(1 - _STRANGERS))
    leads = {pair: _Lead(-np.inf, over_alike=False) for pair in similarities}
    for neighbours in around.values():
        neighbours.sort(reverse=True)
        depths = [max(depth, usual) for depth, _ in neighbours] + [usual]
        drops = [before - after for before, after in pairwise(depths)][:_COPIES]
        copies = int(np.argmax(drops)) + 1
        alike = sum(depth > usual for depth in depths[copies:]) >= _ENOUGH
        for place, (depth, pair) in enumerate(neighbours):
            lead = _Lead(depth - (depths[copies] if place < copies else depths[0]), alike)
            leads[pair] = max(leads[pair], lead, key=lambda one: one.by)
    return leads
