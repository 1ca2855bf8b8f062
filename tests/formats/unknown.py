"""Files whose elements are of VR UN although the standard defines them, as archives write what they once did not know."""

import struct
from io import BytesIO

from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

CHARACTER_SET, PIXEL_DATA = 0x00080005, 0x7FE00010
_META = 144
"""Bytes before the first element after the group length of the file meta information (PS3.10 7.1)."""


def as_unknown(data: bytes, *, keeps: frozenset[int] = frozenset({CHARACTER_SET, PIXEL_DATA})) -> bytes:
    """The same file in explicit VR little endian with every element of VR UN, its value as implicit VR has it (PS3.5 6.2.2)."""
    received = dcmread(BytesIO(data))
    start = _META + struct.unpack_from("<I", data, _META - 4)[0]
    sets = convert_encodings(received.get("SpecificCharacterSet") or "ISO_IR 6")
    parts = [_encoded(one, sets, implicit=False) if int(one.tag) in keeps else unknown(one, sets) for one in received]
    return data[:start] + b"".join(parts)


def unknown(element: DataElement, sets: list[str]) -> bytes:
    """One element of VR UN; `sets` are Python's codecs of its texts."""
    return named_unknown(int(element.tag), _encoded(element, sets, implicit=True)[8:])


def named_unknown(tag: int, value: bytes) -> bytes:
    """An element of VR UN with these bytes."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN", 0, len(value)) + value


def _encoded(element: DataElement, sets: list[str], *, implicit: bool) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, implicit
    write_data_element(stream, element, sets)
    return bytes(stream.getvalue())
