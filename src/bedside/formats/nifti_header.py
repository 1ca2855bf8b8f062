"""What a NIfTI header says, read with `struct` and judged before anything is allocated."""

import struct
from dataclasses import dataclass

import numpy as np

from bedside.core.errors import InputRejected
from bedside.formats.gate import Limits

BYTES_OF = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
"""NIfTI datatype code to bytes per voxel: real integers and floats only (nifti1.h, DT_*)."""
HEADER_BYTES = 540
"""Of a NIfTI-2 header, the longer one."""
MOST_VOLUMES = 4096
"""In time, in one file."""
_UNITS_NOT_MM = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class Header:
    """What the gate needs of a NIfTI header, all of it read with `struct`.

    Attributes:
        raw: the header's own bytes (348 or 540), for nibabel.
        dim: the eight dim fields.
        datatype, bitpix: of one voxel.
        pixdim: the eight pixdim fields.
        vox_offset: where the voxels start, in bytes.
        slope, intercept: scl_slope and scl_inter.
        qform_code, sform_code: 0 means "not given".
        units: the spatial part of xyzt_units.
    """

    raw: bytes
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    slope: float
    intercept: float
    qform_code: int
    sform_code: int
    units: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three voxel axes."""
        return self.dim[1], self.dim[2], self.dim[3]

    @property
    def volumes(self) -> int:
        """How many volumes follow one another: the fourth axis, time (nifti1.h, dim[4])."""
        return self.dim[4] if self.dim[0] > 3 else 1

    @property
    def volume_bytes(self) -> int:
        """Length of one volume."""
        return self.shape[0] * self.shape[1] * self.shape[2] * BYTES_OF[self.datatype]

    @property
    def expected_bytes(self) -> int:
        """Length of the whole (inflated) file that this header describes."""
        return int(self.vox_offset) + self.volumes * self.volume_bytes

    @property
    def scaled(self) -> bool:
        """Whether stored numbers are turned into values; slope 0 means that they are not (nifti1.h, scl_slope)."""
        return self.slope != 0 and (self.slope, self.intercept) != (1.0, 0.0)


def parse(start: bytes) -> Header:
    """Read the fields of a NIfTI-1 or NIfTI-2 header in either byte order."""
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(order + "i", start)[0] == 348:
            return _parse_1(start[:348], order)
        if len(start) >= 540 and struct.unpack_from(order + "i", start)[0] == 540:
            return _parse_2(start[:540], order)
    if len(start) < 348 and start[:4] in {struct.pack(order + "i", size) for order in "<>" for size in (348, 540)}:
        raise InputRejected("The file ends inside its NIfTI header; fetch it again.", code="NII_TRUNCATED")
    raise InputRejected("The file does not start with a NIfTI header.", code="NII_NOT_NIFTI")


def _parse_1(raw: bytes, order: str) -> Header:
    """nifti1.h; a header and image in two files (magic ni1) is refused."""
    if raw[344:348] != b"n+1\0":
        raise InputRejected(
            "The header is not that of a single-file NIfTI image (magic n+1); convert the file.", code="NII_NOT_NIFTI"
        )
    datatype, bitpix = struct.unpack_from(order + "2h", raw, 70)
    offset, slope, intercept = struct.unpack_from(order + "3f", raw, 108)
    qform_code, sform_code = struct.unpack_from(order + "2h", raw, 252)
    return Header(
        raw=raw,
        dim=struct.unpack_from(order + "8h", raw, 40),
        datatype=datatype,
        bitpix=bitpix,
        pixdim=struct.unpack_from(order + "8f", raw, 76),
        vox_offset=offset,
        slope=slope,
        intercept=intercept,
        qform_code=qform_code,
        sform_code=sform_code,
        units=raw[123] & 7,
    )


def _parse_2(raw: bytes, order: str) -> Header:
    """nifti2.h."""
    if raw[4:12] != b"n+2\0\r\n\x1a\n":
        raise InputRejected("The header is not that of a single-file NIfTI-2 image; convert the file.", code="NII_NOT_NIFTI")
    datatype, bitpix = struct.unpack_from(order + "2h", raw, 12)
    offset, slope, intercept = struct.unpack_from(order + "q2d", raw, 168)
    qform_code, sform_code = struct.unpack_from(order + "2i", raw, 344)
    return Header(
        raw=raw,
        dim=struct.unpack_from(order + "8q", raw, 16),
        datatype=datatype,
        bitpix=bitpix,
        pixdim=struct.unpack_from(order + "8d", raw, 104),
        vox_offset=float(offset),
        slope=slope,
        intercept=intercept,
        qform_code=qform_code,
        sform_code=sform_code,
        units=struct.unpack_from(order + "i", raw, 500)[0] & 7,
    )


def check(header: Header, limits: Limits) -> None:
    """Refuse from the header alone, before anything is allocated."""
    rank, sizes = header.dim[0], header.dim[1:]
    if not 3 <= rank <= 7 or any(size < 1 for size in sizes[:rank]):
        raise InputRejected("The header's dimensions are not positive numbers for 3 axes; the file is damaged.", code="NII_DIM")
    if any(size != 1 for size in sizes[4:rank]) or (rank > 3 and sizes[3] > MOST_VOLUMES):
        raise InputRejected(
            f"The file has more than three axes and time, or more than {MOST_VOLUMES} volumes; split it.",
            code="NII_DIM",
        )
    voxels = sizes[0] * sizes[1] * sizes[2]
    if voxels > limits.max_voxels:
        raise InputRejected(f"The header asks for {voxels} voxels; at most {limits.max_voxels} are allowed.", code="NII_DIM")
    if header.datatype not in BYTES_OF or header.bitpix != 8 * BYTES_OF[header.datatype]:
        raise InputRejected(
            f"Voxels of NIfTI datatype {header.datatype} with {header.bitpix} bits are not taken; real integers and floats are.",
            code="NII_DATATYPE",
        )
    first = len(header.raw) + 4
    if not (
        np.isfinite(header.vox_offset) and header.vox_offset == int(header.vox_offset) and first <= header.vox_offset < 1 << 40
    ):
        raise InputRejected("The header's voxel offset is not a byte position after the header.", code="NII_TRUNCATED")
    if not (np.isfinite(header.slope) and (header.slope == 0 or np.isfinite(header.intercept))):
        raise InputRejected("The header's scale is NaN or infinite; write 1 and 0 when values are not scaled.", code="NII_SCALE")
    if header.units in _UNITS_NOT_MM:
        raise InputRejected(
            f"The header gives positions in {_UNITS_NOT_MM[header.units]}; convert them to millimetres.", code="NII_UNITS"
        )


def check_length(header: Header, length: int) -> None:
    """Refuse an (inflated) file that is shorter or longer than its header says: NII_TRUNCATED or NII_LENGTH."""
    if length < header.expected_bytes:
        raise InputRejected(
            f"The file has {length} bytes, its header asks for {header.expected_bytes}; fetch it again.", code="NII_TRUNCATED"
        )
    if length > header.expected_bytes:
        raise InputRejected(
            f"The file has {length} bytes, its header accounts for {header.expected_bytes}; the two do not belong together.",
            code="NII_LENGTH",
        )
