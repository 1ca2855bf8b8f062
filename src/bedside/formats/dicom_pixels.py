"""Pixels of an accepted series to one array, when they are first looked at. pydicom decodes; its errors end at the gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import get_decoder

from bedside.core.volume import Array
from bedside.formats.dicom_header import ENCAPSULATED, Header, dataset_bytes
from bedside.formats.gate import LIMITS, Limits, guarded, receive_again

_RLE = "1.2.840.10008.1.2.5"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False, repr=False)
class Slice:
    """One received file that is part of a volume.

    Attributes:
        path: where its bytes lie.
        digest: SHA-256 of the file when it was accepted.
        header: what it says of itself.
    """

    path: Path
    digest: str
    header: Header


def decoder_of(syntax: str) -> str:
    """Which library turns the bytes of a transfer syntax into numbers, with its version."""
    plain = f"pydicom {pydicom.__version__}"
    if syntax in ENCAPSULATED and syntax != _RLE:
        return f"{plain} with pylibjpeg-openjpeg {version('pylibjpeg-openjpeg')}"
    return plain


def load_stack(slices: Sequence[Slice], *, limits: Limits = LIMITS) -> Array:
    """Decode a stack, one slice at a time.

    Args:
        slices: in order along the normal, all of one size.
        limits: the gate's.

    Returns:
        (1, I, J, K): I is DICOM's column, J its row, K the slice. The rescaled values: int16 where every one of them is an
        integer that fits, else the stored 16-bit numbers where nothing is rescaled, else float32.

    Raises:
        InputRejected: a frame cannot be decoded (DCM_DECODE).
        IntegrityError: a file changed since it was accepted.
    """
    planes = [_decode(one, limits) for one in slices]
    headers = [one.header for one in slices]
    dtype = _dtype(planes, headers)
    volume = np.empty((1, headers[0].columns, headers[0].rows, len(planes)), dtype)
    for index, (plane, header) in enumerate(zip(planes, headers, strict=True)):
        volume[0, :, :, index] = _rescaled(plane, header, dtype).T
    return volume


def _decode(one: Slice, limits: Limits) -> NDArray[np.generic]:
    """One frame's stored numbers, (rows, columns)."""
    header = one.header
    data = receive_again(one.path, one.digest, limits=limits)
    content = dataset_bytes(data, limits=limits) if header.syntax == _DEFLATED else data
    first, last = header.pixels
    with guarded("DCM_DECODE", "A frame cannot be decoded; fetch the series again."):
        plane, _ = get_decoder(header.syntax).as_array(
            content[first:last],
            raw=True,
            rows=header.rows,
            columns=header.columns,
            samples_per_pixel=1,
            number_of_frames=1,
            bits_allocated=header.bits_allocated,
            bits_stored=header.bits_stored,
            pixel_representation=int(header.signed),
            photometric_interpretation=header.photometric,
            pixel_keyword="PixelData",
            pixel_vr=header.pixel_vr,
        )
        if plane.shape != (header.rows, header.columns):
            raise ValueError
    return np.asarray(plane)


def _dtype(planes: Sequence[NDArray[np.generic]], headers: Sequence[Header]) -> np.dtype[np.generic]:
    """The smallest kind of number that holds every rescaled value exactly, as far as one does."""
    whole = all(header.slope.is_integer() and header.intercept.is_integer() for header in headers)
    ends = [
        float(end) * header.slope + header.intercept
        for plane, header in zip(planes, headers, strict=True)
        for end in (plane.min(), plane.max())
    ]
    if whole and min(ends) >= _INT16.min and max(ends) <= _INT16.max:
        return np.dtype(np.int16)
    if all((header.slope, header.intercept) == (1.0, 0.0) for header in headers):
        return np.result_type(*planes)
    return np.dtype(np.float32)


def _rescaled(plane: NDArray[np.generic], header: Header, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Stored numbers to values (PS3.3 C.11.1.1.2), in 64 bits before they are stored."""
    if (header.slope, header.intercept) == (1.0, 0.0):
        return plane.astype(dtype, copy=False)
    return (plane.astype(np.float64) * header.slope + header.intercept).astype(dtype)
