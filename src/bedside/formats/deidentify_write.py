"""Writing a data set whose elements are mostly as they were received (PS3.5 7.1): those are copied, not encoded anew.

pydicom's own writer spends half of the time on headers of items that nobody has changed; it still writes what was changed.
"""

import struct
import zlib
from collections.abc import Iterable
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import BaseTag

from bedside.formats.dicom_syntax import BIG_ENDIAN, DEFLATED, IMPLICIT
from bedside.formats.dicom_vrs import LONG_VR_NAMES

_UTF_8 = "ISO_IR 192"
_ITEM, _ITEM_END, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_FORBIDDEN_GROUPS = (0x0000, 0x0002)


def part10(dataset: Dataset, meta: FileMetaDataset) -> bytes:
    """A Part 10 file with a preamble of zeros; texts that were changed are written in UTF-8.

    Args:
        dataset: read from a file of the same transfer syntax.
        meta: file meta information, complete.

    Raises:
        ValueError: an element of the file meta information or of a command stands in the data set, or cannot be encoded.
    """
    if any(int(tag) >> 16 in _FORBIDDEN_GROUPS for tag, _ in dataset.items()):
        raise ValueError
    syntax = str(meta.TransferSyntaxUID)
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    body = _Encoder(implicit=syntax == IMPLICIT, big=syntax == BIG_ENDIAN).items(dataset)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
        body += b"\0" * (len(body) % 2)
    stream = BytesIO()
    for part in (bytes(128), b"DICM", head.getvalue(), body):
        stream.write(part)
    return stream.getvalue()


class _Encoder:
    """Elements to bytes in one encoding."""

    def __init__(self, *, implicit: bool, big: bool) -> None:
        self.implicit, self.big = implicit, big
        order = ">" if big else "<"
        self._pair, self._short, self._long = struct.Struct(order + "HH"), struct.Struct(order + "H"), struct.Struct(order + "I")

    def items(self, dataset: Dataset) -> bytes:
        """All elements of a data set or an item, in order; group lengths are left out (retired, PS3.5 7.2)."""
        found = sorted(dataset.items())
        return b"".join([self._element(dataset, tag) for tag, _ in found if tag & 0xFFFF])

    def _element(self, dataset: Dataset, tag: BaseTag) -> bytes:
        element = dataset.get_item(tag)
        value = element.value
        if isinstance(element, RawDataElement) and isinstance(value, bytes) and len(value) % 2 == 0:
            undefined = element.length == _UNDEFINED
            ending = self._delimiter(_END) if undefined else b""
            return self._head(tag, str(element.VR or ""), _UNDEFINED if undefined else len(value)) + value + ending
        element = dataset[tag]
        if element.VR == "SQ":
            return self._sequence(tag, element.value or (), undefined=element.is_undefined_length)
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = not self.big, self.implicit
        write_data_element(stream, element, _UTF_8)
        return bytes(stream.getvalue())

    def _sequence(self, tag: BaseTag, items: Iterable[Dataset], *, undefined: bool) -> bytes:
        parts = []
        for item in items:
            content = self.items(item)
            open_ended = getattr(item, "is_undefined_length_sequence_item", False)
            length = _UNDEFINED if open_ended else len(content)
            parts += [self._pair.pack(*_ITEM), self._long.pack(length), content]
            parts += [self._delimiter(_ITEM_END)] if open_ended else []
        content = b"".join(parts)
        ending = self._delimiter(_END) if undefined else b""
        return self._head(tag, "SQ", _UNDEFINED if undefined else len(content)) + content + ending

    def _head(self, tag: BaseTag, vr: str, length: int) -> bytes:
        number = self._pair.pack(tag >> 16, tag & 0xFFFF)
        if self.implicit:
            return number + self._long.pack(length)
        if vr in LONG_VR_NAMES:
            return number + vr.encode("ascii") + b"\0\0" + self._long.pack(length)
        if len(vr) != 2:
            raise ValueError
        return number + vr.encode("ascii") + self._short.pack(length)

    def _delimiter(self, tag: tuple[int, int]) -> bytes:
        return self._pair.pack(*tag) + self._long.pack(0)
