"""Where each frame's bytes lie in PixelData: equal pieces when they are uncompressed, runs of fragments when they are not."""

import struct

from bedside.core.errors import InputRejected
from bedside.formats.dicom_elements import PIXEL_DATA, Element, Elements
from bedside.formats.dicom_syntax import NATIVE
from bedside.formats.gate import Content

_EXTENDED_OFFSETS = 0x7FE00001


def frame_places(elements: Elements, frames: int, frame_bytes: int) -> list[tuple[int, int]]:
    """Start and end of every frame in `elements.data`; those of compressed frames enclose whole items.

    Args:
        elements: of the file.
        frames: how many there are.
        frame_bytes: size of an uncompressed one.

    Raises:
        InputRejected: DCM_STRUCTURE, DCM_TRUNCATED, DCM_GEOMETRY, or DCM_FRAGMENTS when it is not told which fragments are whose.
    """
    place = elements.table[PIXEL_DATA]
    if place.encapsulated != (elements.syntax not in NATIVE):
        raise InputRejected("Pixel data and transfer syntax contradict each other.", code="DCM_STRUCTURE")
    return _fragment_runs(elements, place, frames) if place.encapsulated else _native(place, frames, frame_bytes)


def _native(place: Element, frames: int, frame_bytes: int) -> list[tuple[int, int]]:
    """Uncompressed pixels must have exactly the length that the header promises (and one pad byte)."""
    length, expected = place.end - place.start, frames * frame_bytes
    if length < expected:
        raise InputRejected(
            f"The pixel data has {length} bytes, the header asks for {expected}; fetch the file again.", code="DCM_TRUNCATED"
        )
    if length > expected + expected % 2:
        raise InputRejected(
            f"The pixel data has {length} bytes, the header accounts for {expected}; they do not belong together.",
            code="DCM_GEOMETRY",
        )
    if frames == 1:
        return [(place.start, place.end)]
    return [(place.start + n * frame_bytes, place.start + (n + 1) * frame_bytes) for n in range(frames)]


def _fragment_runs(elements: Elements, place: Element, frames: int) -> list[tuple[int, int]]:
    """Divide the fragments among the frames (PS3.5 A.4): by an offset table, or one each."""
    items = _items(elements.data, place)
    if len(items) < 2:
        raise InputRejected("The compressed pixel data is empty; fetch the file again.", code="DCM_TRUNCATED")
    starts = [start for start, _ in items[1:]]
    if frames == 1:
        firsts = [starts[0]]
    else:
        offsets = _offsets(elements, items[0])
        if offsets:
            firsts = [starts[0] + offset for offset in offsets]
            in_place = firsts[0] == starts[0] and firsts == sorted(set(firsts)) and set(firsts) <= set(starts)
            if len(firsts) != frames or not in_place:
                raise InputRejected("The table of frame offsets does not fit the fragments.", code="DCM_FRAGMENTS")
        elif len(starts) == frames:
            firsts = starts
        else:
            raise InputRejected(
                f"{frames} frames lie in {len(starts)} fragments without a table that says which are whose.",
                code="DCM_FRAGMENTS",
            )
    return list(zip(firsts, [*firsts[1:], items[-1][1]], strict=True))


def _items(data: Content, place: Element) -> list[tuple[int, int]]:
    """Start (of the item tag) and end of every item; the walk has seen that they are items."""
    items, at = [], place.start
    while at + 8 <= place.end:
        end = at + 8 + struct.unpack_from("<I", data, at + 4)[0]
        items.append((at, end))
        at = end
    return items


def _offsets(elements: Elements, table: tuple[int, int]) -> list[int]:
    """The Extended Offset Table (PS3.3 C.7.6.3.1.8), else the Basic Offset Table, [] when both are empty."""
    extended = elements.raw(_EXTENDED_OFFSETS)
    if extended and len(extended) % 8 == 0:
        return [value for (value,) in struct.iter_unpack("<Q", extended)]
    basic = elements.data[table[0] + 8 : table[1]]
    return [value for (value,) in struct.iter_unpack("<I", basic)] if len(basic) % 4 == 0 else []
