"""DICOM files put together byte by byte, so that every length, tag and order in them can lie."""

import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99"))
RLE = "1.2.840.10008.1.2.5"
PIXELS = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
SIZE = 8
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
ROOT = "1.2.826.0.1.3680043.10.1"


def text(value):
    """A text value, padded to an even length."""
    data = value.encode() if isinstance(value, str) else value
    return data + b" " * (len(data) % 2)


def uid(value):
    data = value.encode()
    return data + b"\0" * (len(data) % 2)


def element(tag, vr, value, *, length=None, order="<", implicit=False):
    """One data element; `length` lies about the value."""
    length = len(value) if length is None else length
    start = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return start + struct.pack(f"{order}I", length) + value
    code = vr.encode("latin-1")
    if vr in LONG:
        return start + code + b"\0\0" + struct.pack(f"{order}I", length & 0xFFFFFFFF) + value
    return start + code + struct.pack(f"{order}H", length & 0xFFFF) + value


def item(value, *, length=None, tag=0xFFFEE000):
    """An item of a sequence or a fragment."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def fragments(*streams, table=b""):
    """Encapsulated pixel data with its offset table."""
    padded = [stream + b"\0" * (len(stream) % 2) for stream in streams]
    return item(table) + b"".join(map(item, padded)) + item(b"", tag=0xFFFEE0DD)


@dataclass(frozen=True)
class Dicom:
    """A file: elements of the data set by tag, file meta information, preamble, and what follows at the end."""

    elements: tuple = ()
    syntax: str = EXPLICIT
    preamble: bytes = bytes(128)
    prefix: bytes = b"DICM"
    meta: bytes | None = None
    tail: bytes = b""

    def put(self, tag, vr, value, *, length=None):
        """The same file with one element added or replaced, in order of tags."""
        others = [one for one in self.elements if one[0] != tag]
        return replace(self, elements=tuple(sorted([*others, (tag, vr, value, length)], key=lambda one: one[0])))

    def without(self, *tags):
        return replace(self, elements=tuple(one for one in self.elements if one[0] not in tags))

    def value(self, tag):
        return next(one[2] for one in self.elements if one[0] == tag)

    def meta_bytes(self):
        if self.meta is not None:
            return self.meta
        body = element(0x00020001, "OB", b"\0\1")
        body += element(0x00020002, "UI", uid("1.2.840.10008.5.1.4.1.1.2"))
        body += element(0x00020003, "UI", self.value(0x00080018))
        body += element(0x00020010, "UI", uid(self.syntax))
        return element(0x00020000, "UL", struct.pack("<I", len(body))) + body

    def body(self):
        order, implicit = (">" if self.syntax == BIG else "<"), self.syntax == IMPLICIT
        parts = []
        for tag, vr, value, length in self.elements:
            swapped = value
            if order == ">" and vr in {"US", "OW"}:
                swapped = np.frombuffer(value, "<u2").astype(">u2").tobytes()
            parts.append(element(tag, vr, swapped, length=length, order=order, implicit=implicit))
        return b"".join(parts) + self.tail

    def head(self):
        return self.preamble + self.prefix + self.meta_bytes()

    def bytes(self):
        body = self.body()
        if self.syntax == DEFLATED:
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            body = packer.compress(body) + packer.flush()
            body += b"\0" * (len(body) % 2)
        return self.head() + body

    def ends(self):
        """Where each element of the data set ends, counted from the start of the file (uncompressed syntaxes)."""
        at, order, implicit = len(self.head()), (">" if self.syntax == BIG else "<"), self.syntax == IMPLICIT
        found = []
        for tag, vr, value, length in self.elements:
            at += len(element(tag, vr, value, length=length, order=order, implicit=implicit))
            found.append((tag, at))
        return found


def ct_slice(number, *, series="1", size=SIZE, syntax=EXPLICIT):
    """A sound slice: (size, size) pixels of 16 bits, 2 mm from the one before."""
    pixels = (np.arange(size * size, dtype="<u2") * 7 + number).tobytes()
    values = [
        (0x00080005, "CS", text("ISO_IR 100")),
        (0x00080008, "CS", text("ORIGINAL\\PRIMARY\\AXIAL")),
        (0x00080016, "UI", uid("1.2.840.10008.5.1.4.1.1.2")),
        (0x00080018, "UI", uid(f"{ROOT}.{series}.{number}")),
        (0x00080020, "DA", text("20200102")),
        (0x00080060, "CS", text("CT")),
        (0x00080070, "LO", text("ACME")),
        (0x00081090, "LO", text("Ray")),
        (0x00100010, "PN", text("ZQ^ZQ")),
        (0x00100020, "LO", text("ZQ01")),
        (0x00180050, "DS", text("2")),
        (0x00180060, "DS", text("120")),
        (0x00185100, "CS", text("HFS")),
        (0x0020000D, "UI", uid(f"{ROOT}.0")),
        (0x0020000E, "UI", uid(f"{ROOT}.{series}")),
        (0x00200011, "IS", text("1")),
        (0x00200012, "IS", text("1")),
        (0x00200013, "IS", text(str(number))),
        (0x00200032, "DS", text(f"-10.5\\20.25\\{2 * number}")),
        (0x00200037, "DS", text("1\\0\\0\\0\\1\\0")),
        (0x00200052, "UI", uid(f"{ROOT}.9")),
        (0x00280002, "US", struct.pack("<H", 1)),
        (0x00280004, "CS", text("MONOCHROME2")),
        (0x00280010, "US", struct.pack("<H", size)),
        (0x00280011, "US", struct.pack("<H", size)),
        (0x00280030, "DS", text("0.5\\0.75")),
        (0x00280100, "US", struct.pack("<H", 16)),
        (0x00280101, "US", struct.pack("<H", 12)),
        (0x00280102, "US", struct.pack("<H", 11)),
        (0x00280103, "US", struct.pack("<H", 0)),
        (0x00281052, "DS", text("-1024")),
        (0x00281053, "DS", text("1")),
        (PIXELS, "OW", pixels),
    ]
    return Dicom(tuple((*one, None) for one in values), syntax)
