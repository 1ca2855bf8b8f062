"""How much memory conversions may take at once: two of the largest volumes, however many files and workers there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from bedside.core.ports import Room
from bedside.core.site import Site
from bedside.formats.found import Found, Refused
from bedside.ingest.pairing import Pair

_LEAST_BYTES = 128 << 20
"""Below this nothing is gained by waiting: the workers themselves take as much."""
_SHARE = 2
"""The store, the ledger and the disk's cache want memory too: half is for volumes."""
_AT_ONCE = 2
_ID_BYTES = 1
"""Of one voxel of a mask in the store."""


@dataclass(frozen=True)
class Allowance:
    """What all conversions may hold at the same time.

    Attributes:
        most_bytes: at most; None: no limit.
        wanted: whether a person has set it, so that all of it is to be used.
    """

    most_bytes: int | None = None
    wanted: bool = False

    @classmethod
    def of(cls, site: Site) -> "Allowance":
        """As the site says, or half of what this process may use."""
        if site.volumes_gb is not None:
            return cls(int(site.volumes_gb * (1 << 30)), wanted=True)
        from bedside.adapters.machine import memory_bytes

        return cls(memory_bytes() // _SHARE)

    def refusal(self, pair: Pair) -> Refused | None:
        """Why a pair cannot be converted here at all, or None."""
        if self.most_bytes is None or held_bytes(pair) <= self.most_bytes:
            return None
        needed, given = (size / (1 << 30) for size in (held_bytes(pair), self.most_bytes))
        sentence = f"Reading it takes about {needed:.2f} GB of memory, and this site allows {given:.2f}; raise site.volumes_gb."
        return Refused(pair.files, "VOLUME_MEMORY", sentence)

    def room(self, pairs: Sequence[Pair]) -> Room[Pair] | None:
        """Of pairs that are allowed: as much as two of the largest, or all that a person has allowed."""
        if self.most_bytes is None:
            return None
        largest = max((_volume_bytes(pair.image) for pair in pairs), default=0)
        usual = max(_AT_ONCE * largest, *map(held_bytes, pairs), _LEAST_BYTES)
        return Room(self.most_bytes if self.wanted else min(usual, self.most_bytes), held_bytes)


def held_bytes(pair: Pair) -> int:
    """What the conversion of a pair holds, as its headers let it be foreseen."""
    image = _volume_bytes(pair.image)
    if not isinstance(pair.mask, Found):
        return image
    return image + _volume_bytes(pair.mask) + prod(pair.mask.volume.shape) * _ID_BYTES


def _volume_bytes(found: Found) -> int:
    return prod(found.volume.shape) * found.voxel_bytes
