"""The bounded walk through a DICOM file (PS3.5 section 7): where each element lies, without recursion and without a library.

Everything that could make a parser loop, recurse, allocate or silently stop early is refused here: each length must fit inside
what encloses it, each sequence must be closed, nesting and the number of elements are limited.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bedside.core.errors import InputRejected
from bedside.formats import dicom_preamble
from bedside.formats.dicom_vrs import LONG_VRS, SHORT_VRS, UNWRITTEN
from bedside.formats.gate import LIMITS, Content, Limits, inflate

PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
_SHORT_NAMES = {vr: vr.decode() for vr in SHORT_VRS}
_LONG_NAMES = {vr: vr.decode() for vr in LONG_VRS - {b"SQ", b"UN"}}
_AREA_BYTES = 1 << 16
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_MACROS = frozenset(
    {
        0x00189112,  # MR Timing and Related Parameters
        0x00189114,  # MR Echo
        0x00189117,  # MR Diffusion
        0x00189118,  # Cardiac Synchronization
        0x00189226,  # MR Image Frame Type
        0x00189314,  # CT Reconstruction
        0x00189325,  # CT X-Ray Details
        0x00189329,  # CT Image Frame Type
        0x00209071,  # Frame Anatomy
        0x00209111,  # Frame Content
        0x00209113,  # Plane Position
        0x00209116,  # Plane Orientation
        0x00209310,  # Temporal Position
        0x00289110,  # Pixel Measures
        0x00289145,  # Pixel Value Transformation
    }
)
"""Functional groups whose elements are kept (PS3.3 C.7.6.16.2); the others are walked through and not remembered."""
_IN_MACROS = frozenset({0x00082218, 0x00189076})
"""Sequences inside those: Anatomic Region, MR Diffusion Gradient Direction."""
_GROUPS = {"root": frozenset({_SHARED, _PER_FRAME}), "frame": _MACROS, "macro": _IN_MACROS}
"""By role: sequences that are looked into also where nothing says that they are some."""
_DEFLATED, _IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


class Element(NamedTuple):
    """Where one data element's value lies.

    Attributes:
        vr: two letters; "" in implicit VR, where it is not written, but for binary numbers that are looked at.
        start, end: of the value, in bytes of `Elements.data`.
        encapsulated: whether the value is a list of items of undefined total length (compressed pixel data).
    """

    vr: str
    start: int
    end: int
    encapsulated: bool = False


@dataclass(repr=False)
class Elements:
    """The top-level elements of one file. Filled as the walk goes, so that a damaged file still tells its series.

    It has no repr: that would carry the whole file into a log.

    Attributes:
        data: the file; for a deflated one its inflated data set.
        syntax, sop_class, sop_uid: TransferSyntaxUID and the media storage UIDs of the file meta information.
        preamble: what the file's preamble begins, see `dicom_preamble.preamble_of`.
        order: "<" or ">", the byte order of numbers.
        table: tag to place.
        shared: places of what all frames of a multi-frame image share, taken out of their functional groups.
        frames: the same of each frame, in order; empty for a single-frame image.
    """

    data: Content = b""
    syntax: str = ""
    sop_class: str = ""
    sop_uid: str = ""
    preamble: str = ""
    order: str = "<"
    table: Mapping[int, Element] = field(default_factory=dict)
    shared: dict[int, Element] = field(default_factory=dict)
    frames: list[dict[int, Element]] = field(default_factory=list)

    def raw(self, tag: int) -> bytes:
        """The value's bytes, b"" when absent."""
        place = self.table.get(tag)
        return self.data[place.start : place.end] if place else b""

    def below(self, tag: int) -> bytes:
        """The bytes from a sequence's first item to the next element, at most 64 KiB; b"" when it is absent."""
        place = self.table.get(tag)
        if place is None:
            return b""
        later = min((other.start for other in self.table.values() if other.start > place.start), default=len(self.data))
        return self.data[place.start : min(max(place.end, later), place.start + _AREA_BYTES)]


@dataclass(slots=True)
class _Open:
    """A data set, item or sequence that the walk is inside of; `end` None means that a delimiter closes it.

    `limit` is the end of the innermost thing of known length around it, itself included.

    `role` says whether elements in it are remembered in `table`: those of the data set itself ("root") and of functional groups
    ("macro"); a "frame" holds functional groups, "shared" and "frames" hold frames.
    """

    end: int | None
    is_sequence: bool
    implicit: bool
    is_item: bool = False
    role: str = ""
    table: dict[int, Element] | None = None
    limit: int = 0


def walk(
    data: Content,
    into: Elements,
    *,
    limits: Limits = LIMITS,
    inflated: Content | None = None,
    sequences: frozenset[int] = frozenset(),
) -> None:
    """Find every top-level element of a Part 10 file.

    Args:
        data: the file.
        into: filled; holds what was found so far when the walk refuses.
        limits: the gate's.
        inflated: the data set of a deflated file; None: it is inflated here.
        sequences: tags that are stepped into also where no VR says that they are sequences (implicit VR and UN); others of known
            length are stepped over there, and what they hold is not looked at.

    Raises:
        InputRejected: DCM_NOT_DICOM, DCM_TRUNCATED, DCM_STRUCTURE, DCM_DEPTH, DCM_ELEMENTS or DCM_INFLATE_LIMIT.
    """
    head = data[: dicom_preamble.BYTES]
    if head != dicom_preamble.PLAIN:
        into.preamble = dicom_preamble.preamble_of(head)
    into.data = data
    start = _walk_meta(data, into)
    into.syntax, into.sop_class, into.sop_uid = (
        into.raw(tag).strip(b"\0 ").decode("ascii", "replace") for tag in (0x00020010, 0x00020002, 0x00020003)
    )
    if not into.syntax:
        raise InputRejected("The file does not name its transfer syntax; it is cut or damaged.", code="DCM_TRUNCATED")
    into.table = {}
    if into.syntax == _DEFLATED:
        if inflated is None:
            inflated = inflate(memoryview(data)[start:], window_bits=-15, code="DCM", limits=limits)
        into.data, start = inflated, 0
    into.order = ">" if into.syntax == _BIG_ENDIAN else "<"
    _Walk(into, limits, sequences).run(start, implicit=into.syntax == _IMPLICIT)


def data_set_start(data: Content, into: Elements | None = None) -> int:
    """Where the file meta information, kept in `into`, ends and the data set (or its deflated bytes) starts; raises as `walk`."""
    return _walk_meta(data, into or Elements())


def _walk_meta(data: Content, into: Elements) -> int:
    """Read group 0002, always Explicit VR Little Endian (PS3.10 7.1); return where the data set starts."""
    at = dicom_preamble.BYTES
    table: dict[int, Element] = {}
    into.table = table
    while data[at : at + 2] == b"\x02\x00":
        tag, vr, start, length = _explicit(data, at, "<")
        if length == UNDEFINED or start + length > len(data):
            raise _truncated()
        if tag in table:
            raise InputRejected("One element of the file meta information occurs twice; it is damaged.", code="DCM_STRUCTURE")
        table[tag] = Element(vr, start, start + length)
        at = start + length
    if at == len(data):
        raise _truncated()
    return at


def _explicit(data: Content, at: int, order: str) -> tuple[int, str, int, int]:
    """Tag, VR, start of the value and its length at `at`, in explicit VR."""
    if at + 8 > len(data):
        raise _truncated()
    group, number = struct.unpack_from(order + "HH", data, at)
    vr = data[at + 4 : at + 6]
    if vr in SHORT_VRS:
        return group << 16 | number, vr.decode(), at + 8, struct.unpack_from(order + "H", data, at + 6)[0]
    if vr not in LONG_VRS:
        raise InputRejected("The file breaks off into bytes that are no DICOM element; it is damaged.", code="DCM_STRUCTURE")
    if at + 12 > len(data):
        raise _truncated()
    return group << 16 | number, vr.decode(), at + 12, struct.unpack_from(order + "I", data, at + 8)[0]


def _truncated() -> InputRejected:
    return InputRejected("The file ends inside a DICOM element; fetch it again.", code="DCM_TRUNCATED")


class _Walk:
    """One pass with an explicit stack; every step goes forward at least 8 bytes."""

    def __init__(self, into: Elements, limits: Limits, sequences: frozenset[int]) -> None:
        self._into, self._data, self._order, self._limits = into, into.data, into.order, limits
        self._explicit, self._implicit = struct.Struct(f"{into.order}HH2sH"), struct.Struct(f"{into.order}HHI")
        self._length = struct.Struct(f"{into.order}I")
        self._stack: list[_Open] = []
        self._at = 0
        self._depth = 0
        self._sequences = sequences
        self._groups = {role: tags | sequences for role, tags in _GROUPS.items()} if sequences else _GROUPS
        self._count = self._items = 0

    def run(self, start: int, *, implicit: bool) -> None:
        """Walk from `start` to the end of the data."""
        self._at = start
        root: dict[int, Element] = {}
        self._into.table = root
        size = len(self._data)
        stack = self._stack = [_Open(size, is_sequence=False, implicit=implicit, role="root", table=root, limit=size)]
        while stack:
            top = stack[-1]
            end = top.end
            if end is not None and self._at >= end:
                self._close(top)
            elif top.is_sequence:
                self._step_in_sequence(top)
            else:
                if top.implicit:
                    self._run_implicit(top)
                else:
                    self._run_explicit(top)
                if end is None or self._at < end:
                    self._step_in_items(top)

    def _run_explicit(self, top: _Open) -> None:
        """Pass over plain values of known length quickly; whatever is anything else, or wrong, is left to `_step_in_items`."""
        data, at, end, table = self._data, self._at, top.limit, top.table
        root, keeps = top.role == "root", table is not None and top.role in {"root", "macro"}
        unpack, length_at, count = self._explicit.unpack_from, self._length.unpack_from, self._limits.max_elements - self._count
        while count > 0 and at + 12 <= end:
            group, number, code, length = unpack(data, at)
            vr, start = _SHORT_NAMES.get(code), at + 8
            if vr is None:
                vr, start = _LONG_NAMES.get(code), at + 12
                length = length_at(data, at + 8)[0]
            tag = group << 16 | number
            if vr is None or group == 0xFFFE or start + length > end or (root and table is not None and tag in table):
                break
            if keeps and table is not None:
                table.setdefault(tag, Element(vr, start, start + length))
            at = start + length
            count -= 1
        self._at, self._count = at, self._limits.max_elements - count

    def _run_implicit(self, top: _Open) -> None:
        """`_run_explicit` for implicit VR, where a value of known length may be a group to look into."""
        data, at, end, table = self._data, self._at, top.limit, top.table
        root, keeps = top.role == "root", table is not None and top.role in {"root", "macro"}
        unpack, count, groups = (
            self._implicit.unpack_from,
            self._limits.max_elements - self._count,
            self._groups.get(top.role, self._sequences),
        )
        while count > 0 and at + 8 <= end:
            group, number, length = unpack(data, at)
            tag, start = group << 16 | number, at + 8
            if group == 0xFFFE or tag in groups or start + length > end or (root and table is not None and tag in table):
                break
            if keeps and table is not None:
                table.setdefault(tag, Element(UNWRITTEN.get(tag, ""), start, start + length))
            at = start + length
            count -= 1
        self._at, self._count = at, self._limits.max_elements - count

    def _close(self, top: _Open) -> None:
        if top.end is not None and self._at > top.end:
            raise _truncated()
        self._depth -= top.is_sequence
        self._stack.pop()

    def _header(self, limit: int, *, implicit: bool) -> tuple[int, str, int, int]:
        """The next element or delimiter: tag, VR, start, length."""
        self._count += 1
        if self._count > self._limits.max_elements:
            raise InputRejected(f"The file holds more than {self._limits.max_elements} data elements.", code="DCM_ELEMENTS")
        at = self._at
        if at + 8 > limit:
            raise _truncated()
        group, number, length = self._implicit.unpack_from(self._data, at)
        if implicit or group == 0xFFFE:
            return group << 16 | number, "", at + 8, length
        if at + 12 <= limit and self._data[at + 4 : at + 6] == b"SQ":
            return group << 16 | number, "SQ", at + 12, self._length.unpack_from(self._data, at + 8)[0]
        return _explicit(self._data, at, self._order)

    def _step_in_sequence(self, top: _Open) -> None:
        """An item, or the delimiter that closes a sequence of undefined length."""
        tag, _, start, length = self._header(top.limit, implicit=True)
        if tag == _SEQUENCE_END and top.end is None and length == 0:
            self._at = start
            self._depth -= 1
            self._stack.pop()
        elif tag == _ITEM:
            self._items += 1
            if self._items > self._limits.max_items:
                raise InputRejected(f"The file holds more than {self._limits.max_items} items.", code="DCM_ELEMENTS")
            role, table = self._item_role(top)
            self._push(start, length, _Open(None, is_sequence=False, implicit=top.implicit, is_item=True, role=role, table=table))
        else:
            raise InputRejected("A DICOM sequence holds something that is no item; the file is damaged.", code="DCM_STRUCTURE")

    def _step_in_items(self, top: _Open) -> None:
        """One data element, or the delimiter that closes an item of undefined length."""
        tag, vr, start, length = self._header(top.limit, implicit=top.implicit)
        if tag == _ITEM_END and top.is_item and top.end is None and length == 0:
            self._at = start
            self._stack.pop()
            return
        if tag >> 16 == 0xFFFE:
            raise InputRejected("A DICOM delimiter stands where none belongs; the file is damaged.", code="DCM_STRUCTURE")
        root, table = top.role == "root", top.table
        if root and table is not None and tag in table:
            raise InputRejected("One data element occurs twice; the file is damaged.", code="DCM_STRUCTURE")
        place = None
        if length == UNDEFINED and tag == PIXEL_DATA:
            place = Element(vr, start, self._fragments(start, top.limit), encapsulated=True)
        elif length == UNDEFINED or vr == "SQ" or self._is_group(top, tag, vr):
            if length == UNDEFINED and vr not in {"SQ", "UN", ""}:
                raise InputRejected("A value of undefined length is no sequence; the file is damaged.", code="DCM_STRUCTURE")
            role = self._sequence_role(top, tag)
            implicit = top.implicit or vr == "UN"
            self._push(start, length, _Open(None, is_sequence=True, implicit=implicit, role=role, table=table))
            place = Element(vr or "SQ", start, start) if root else None
        else:
            if start + length > top.limit:
                raise _truncated()
            if vr == "" or (vr == "UN" and self._order == "<"):  # UN holds what implicit VR would (PS3.5 6.2.2)
                vr = UNWRITTEN.get(tag, "")
            place = Element(vr, start, start + length)
            self._at = start + length
        if place is not None and table is not None and (root or top.role == "macro"):
            table.setdefault(tag, place)

    def _is_group(self, top: _Open, tag: int, vr: str) -> bool:
        """Whether an element of known length and unwritten VR is a sequence to look into."""
        return vr in ("", "UN") and tag in self._groups.get(top.role, self._sequences)

    @staticmethod
    def _sequence_role(top: _Open, tag: int) -> str:
        """What a sequence is in a multi-frame image: functional groups lie one below the frames, nested ones below them."""
        if top.role == "root":
            return {_SHARED: "shared", _PER_FRAME: "frames"}.get(tag, "")
        return "macro" if top.role == "macro" or (top.role == "frame" and tag in _MACROS) else ""

    def _item_role(self, top: _Open) -> tuple[str, dict[int, Element] | None]:
        """What an item of such a sequence is, and where its elements are remembered."""
        if top.role == "frames":
            self._into.frames.append({})
            return "frame", self._into.frames[-1]
        return ("frame", self._into.shared) if top.role == "shared" else (top.role, top.table)

    def _push(self, start: int, length: int, inside: _Open) -> None:
        if inside.is_sequence and self._depth == self._limits.max_depth:
            raise InputRejected(f"Sequences are nested deeper than {self._limits.max_depth}.", code="DCM_DEPTH")
        around = self._stack[-1].limit
        inside.end = None if length == UNDEFINED else start + length
        if inside.end is not None and inside.end > around:
            raise _truncated()
        inside.limit = around if inside.end is None else inside.end
        self._depth += inside.is_sequence
        self._at = start
        self._stack.append(inside)

    def _fragments(self, start: int, limit: int) -> int:
        """Skip over the items of compressed pixel data (PS3.5 A.4), which must end with a delimiter; return where that starts."""
        self._at = start
        while True:
            tag, _, first, length = self._header(limit, implicit=True)
            if tag == _SEQUENCE_END and length == 0:
                break
            if tag != _ITEM or length == UNDEFINED:
                raise InputRejected("Compressed pixel data holds something that is no item.", code="DCM_STRUCTURE")
            self._at = first + length
        self._at = first
        return first - 8
