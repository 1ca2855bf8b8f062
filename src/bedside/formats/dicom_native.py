"""Uncompressed 16-bit pixels made values of where they lie: no library, no copy, and no wider numbers on the way.

What is done here gives the values that `dicom_decode` and the rescale give; whatever it cannot do it leaves as it was read.
"""

import numpy as np
from numpy.typing import NDArray

from bedside.formats.dicom_header import Header
from bedside.formats.dicom_syntax import BIG_ENDIAN, DEFLATED, NATIVE

AIR_HU = -1024.0
"""What padding of a CT becomes (see `dicom_pixels.padding_is_air`)."""
_INT16 = np.iinfo(np.int16)
_IN_PLACE = NATIVE - {BIG_ENDIAN, DEFLATED}


def is_plain(header: Header) -> bool:
    """Whether a frame's bytes are little-endian 16-bit numbers that a whole-numbered rescale makes values of."""
    facts = header.facts
    return (
        facts.syntax in _IN_PLACE
        and facts.bits_allocated == 16
        and not facts.decision.boxes
        and header.slope.is_integer()
        and header.intercept.is_integer()
        and max(abs(header.slope), abs(header.intercept)) <= _INT16.max
    )


def made_values(plane: NDArray[np.int16], header: Header, *, air: bool | None) -> bool:
    """Make values of a plain frame's stored numbers, in place.

    Args:
        plane: (J, I), the frame's bytes.
        header: of the frame, for which `is_plain` holds.
        air: whether padding becomes `AIR_HU`; otherwise it stays what it is.

    Returns:
        Whether it was done; if not the bytes are as they were: there are bits beside the stored ones, or values beyond 16 bits.
    """
    facts, slope, intercept = header.facts, int(header.slope), int(header.intercept)
    if facts.signed and facts.bits_stored == 16 and facts.padding is None and (slope, intercept) == (1, 0):
        return True
    stored: NDArray[np.int16] | NDArray[np.uint16] = plane if facts.signed else plane.view(np.uint16)
    low, high = int(stored.min()), int(stored.max())
    top = 1 << (facts.bits_stored - facts.signed)
    if high >= top or low < (-top if facts.signed else 0):
        return False
    ends = low * slope + intercept, high * slope + intercept
    if min(ends) < _INT16.min or max(ends) > _INT16.max:
        return False
    padding = None
    if air and facts.padding is not None and low <= facts.padding[1] and high >= facts.padding[0]:
        padding = (stored >= facts.padding[0]) & (stored <= facts.padding[1])
    # Numbers that run over on the way come back: additions and products are right in the 16 bits that the result fits into.
    if slope != 1:
        np.multiply(plane, np.int16(slope), out=plane)
    if intercept:
        np.add(plane, np.int16(intercept), out=plane)
    if padding is not None:
        plane[padding] = AIR_HU
    return True
