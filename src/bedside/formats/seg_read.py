"""What a DICOM Segmentation holds, plane by plane (PS3.3 C.8.20). Only native pixel data, which is what `formats.seg` writes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bedside.core.errors import InputRejected

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_STORAGE = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})


@dataclass(frozen=True, eq=False)
class SegPlane:
    """One frame of a segmentation.

    Attributes:
        corners_mm: (3, 3), LPS: centres of the first pixel, of the first row's last one and of the last row's first one.
        segment: the one segment it shows, or 0 when `numbers` holds segment numbers (a label map).
        numbers: (rows, columns).
    """

    corners_mm: NDArray[np.float64]
    segment: int
    numbers: NDArray[np.unsignedinteger]


def planes_of(data: Dataset) -> Iterator[SegPlane]:
    """Yield the frames of a segmentation.

    Raises:
        InputRejected: SEG_STRUCTURE, when it is none, its pixels are compressed or fractional, or its length is wrong. What
            pydicom raises of a missing element is for the caller to map.
    """
    frames, rows, columns = int(data.NumberOfFrames), int(data.Rows), int(data.Columns)
    bits, kind = int(data.BitsAllocated), str(data.SegmentationType)
    if data.SOPClassUID not in _STORAGE or (kind, bits) not in {("BINARY", 1), ("LABELMAP", 8), ("LABELMAP", 16)}:
        raise refused("it is no binary segmentation and no label map")
    if data.file_meta.TransferSyntaxUID not in _NATIVE:
        raise refused("its pixels are compressed")
    pixels = np.frombuffer(data.PixelData, dtype=np.uint8)
    shared = data.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    groups = data.PerFrameFunctionalGroupsSequence
    if len(groups) != frames or not 0 <= len(pixels) - -(-frames * rows * columns * bits // 8) <= 1:
        raise refused("its length does not fit its number of frames")
    for number, group in enumerate(groups):
        said = _Said(group, shared)
        segment = int(said.of("SegmentIdentificationSequence").ReferencedSegmentNumber) if bits == 1 else 0
        if bits == 1 and segment < 1:
            raise refused("a frame shows no segment")
        yield SegPlane(
            _corners(said, rows, columns), segment, _frame(pixels, number, rows * columns, bits).reshape(rows, columns)
        )


@dataclass(frozen=True, eq=False)
class _Said:
    """What is said of one frame.

    A macro stands in the frame's own functional groups or, where all frames have it in common, in the shared ones (PS3.3
    C.7.6.16): with one structure, that may be the segment's number; with one frame, the place.
    """

    own: Dataset
    shared: Dataset

    def of(self, macro: str) -> Dataset:
        """The item of a macro, by the keyword of its sequence."""
        return (self.own if macro in self.own else self.shared)[macro].value[0]


def _corners(said: _Said, rows: int, columns: int) -> NDArray[np.float64]:
    """Where a frame lies (PS3.3 C.7.6.16.2.1, 2.3, 2.4)."""
    measures, plane = said.of("PixelMeasuresSequence"), said.of("PlaneOrientationSequence")
    first = np.asarray(said.of("PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    between_rows, between_columns = (float(size) for size in measures.PixelSpacing)
    along_row, along_column = np.asarray(plane.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    return np.stack(
        [
            first,
            first + along_row * between_columns * (columns - 1),
            first + along_column * between_rows * (rows - 1),
        ]
    )


def refused(what: str) -> InputRejected:
    """The refusal of a segmentation."""
    return InputRejected(f"The segmentation cannot be read: {what}; write it again.", code="SEG_STRUCTURE")


def _frame(pixels: NDArray[np.uint8], number: int, size: int, bits: int) -> NDArray[np.unsignedinteger]:
    """The numbers of one frame; single bits are packed without gaps between frames, lowest bit first (PS3.5 8.1.1)."""
    if bits > 1:
        start = number * size * bits // 8
        return np.frombuffer(pixels[start : start + size * bits // 8], dtype=np.dtype(f"<u{bits // 8}"))
    first = number * size
    whole = np.unpackbits(pixels[first // 8 : -(-(first + size) // 8)], bitorder="little")
    return whole[first % 8 : first % 8 + size]
