"""NIfTI-1 and NIfTI-2 single files. Our own code reads the header and refuses; nibabel then makes the affine and the numbers."""

import gzip
import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside.core.contract import CORNER_TOLERANCE_MM
from bedside.core.errors import InputRejected
from bedside.core.files import write_atomic
from bedside.core.volume import Affine, Array, Volume, farthest_corner_mm
from bedside.formats.found import Found
from bedside.formats.gate import LIMITS, Limits, changed, guarded, inflate_pieces, received_pieces

_BYTES_OF = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
"""NIfTI datatype code to bytes per voxel: real integers and floats only (nifti1.h, DT_*)."""
_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540
"""Of a NIfTI-2 header, the longer one."""
_SUFFIXES = (".nii.gz", ".nii")
_UNITS_NOT_MM = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class _Header:
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
    def expected_bytes(self) -> int:
        """Length of the whole (inflated) file that this header describes."""
        return int(self.vox_offset) + self.shape[0] * self.shape[1] * self.shape[2] * _BYTES_OF[self.datatype]

    @property
    def scaled(self) -> bool:
        """Whether stored numbers are turned into values; slope 0 means that they are not (nifti1.h, scl_slope)."""
        return self.slope != 0 and (self.slope, self.intercept) != (1.0, 0.0)


def read_nifti(path: Path, *, limits: Limits = LIMITS) -> Found:
    """Read a 3-D NIfTI file; its voxels are read, and its digest checked again, when first looked at.

    The affine is the sform, else the qform; a file that codes neither is refused, where nibabel and most viewers invent one.

    Args:
        path: a .nii or .nii.gz file; what it is is decided by its bytes, not by its name.
        limits: the gate's.

    Raises:
        InputRejected: NII_NOT_NIFTI, NII_DIM, NII_DATATYPE, NII_TRUNCATED, NII_LENGTH, NII_INFLATE_LIMIT, NII_AFFINE, NII_SCALE,
            NII_UNITS, or what `gate.receive` raises.
    """
    import nibabel

    content = _Content(path, limits)
    header = _checked(content, limits)
    affine, geometry = _affine(header)
    source = content.digest
    return Found(
        volume=Volume(affine, (1, *header.shape), partial(_load, path, source, header, limits)),
        source=source,
        geometry=geometry,
        modality="",
        patient_id="",
        scanner="",
        files=(path,),
        decoder=f"nibabel {nibabel.__version__}",
        voxel_bytes=4 if header.scaled else _BYTES_OF[header.datatype],
    )


def write_nifti(path: Path, array_ijk: Array, affine: Affine) -> None:
    """Write (I, J, K) with its affine to RAS+ mm as sform and qform; the same input gives the same bytes.

    Args:
        path: ends in .nii or .nii.gz.
        array_ijk: stored in its own dtype, unscaled.
        affine: (4, 4). The qform is left out where it cannot hold the affine (shear).

    Raises:
        ResourceError: the disk is full; an older file of that name is intact.
    """
    import nibabel

    image = nibabel.Nifti1Image(array_ijk, affine, dtype=array_ijk.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    if not np.allclose(image.get_qform(), affine, atol=1e-4):
        image.set_qform(None, code=0)
    data = image.to_bytes()
    write_atomic(path, gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data, doing="writing a NIfTI file")


def _parse(start: bytes) -> _Header:
    """Read the fields of a NIfTI-1 or NIfTI-2 header in either byte order."""
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(order + "i", start)[0] == 348:
            return _parse_1(start[:348], order)
        if len(start) >= 540 and struct.unpack_from(order + "i", start)[0] == 540:
            return _parse_2(start[:540], order)
    if len(start) < 348 and start[:4] in {struct.pack(order + "i", size) for order in "<>" for size in (348, 540)}:
        raise InputRejected("The file ends inside its NIfTI header; fetch it again.", code="NII_TRUNCATED")
    raise InputRejected("The file does not start with a NIfTI header.", code="NII_NOT_NIFTI")


def _parse_1(raw: bytes, order: str) -> _Header:
    """nifti1.h; a header and image in two files (magic ni1) is refused."""
    if raw[344:348] != b"n+1\0":
        raise InputRejected(
            "The header is not that of a single-file NIfTI image (magic n+1); convert the file.", code="NII_NOT_NIFTI"
        )
    datatype, bitpix = struct.unpack_from(order + "2h", raw, 70)
    offset, slope, intercept = struct.unpack_from(order + "3f", raw, 108)
    qform_code, sform_code = struct.unpack_from(order + "2h", raw, 252)
    return _Header(
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


def _parse_2(raw: bytes, order: str) -> _Header:
    """nifti2.h."""
    if raw[4:12] != b"n+2\0\r\n\x1a\n":
        raise InputRejected("The header is not that of a single-file NIfTI-2 image; convert the file.", code="NII_NOT_NIFTI")
    datatype, bitpix = struct.unpack_from(order + "2h", raw, 12)
    offset, slope, intercept = struct.unpack_from(order + "q2d", raw, 168)
    qform_code, sform_code = struct.unpack_from(order + "2i", raw, 344)
    return _Header(
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


def _check(header: _Header, limits: Limits) -> None:
    """Refuse from the header alone, before anything is allocated."""
    rank, sizes = header.dim[0], header.dim[1:]
    if not 3 <= rank <= 7 or any(size < 1 for size in sizes[:rank]):
        raise InputRejected("The header's dimensions are not positive numbers for 3 axes; the file is damaged.", code="NII_DIM")
    if any(size != 1 for size in sizes[3:rank]):
        raise InputRejected("The file holds more than one 3-D volume; split it and give one.", code="NII_DIM")
    voxels = sizes[0] * sizes[1] * sizes[2]
    if voxels > limits.max_voxels:
        raise InputRejected(f"The header asks for {voxels} voxels; at most {limits.max_voxels} are allowed.", code="NII_DIM")
    if header.datatype not in _BYTES_OF or header.bitpix != 8 * _BYTES_OF[header.datatype]:
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


def _check_length(header: _Header, length: int) -> None:
    if length < header.expected_bytes:
        raise InputRejected(
            f"The file has {length} bytes, its header asks for {header.expected_bytes}; fetch it again.", code="NII_TRUNCATED"
        )
    if length > header.expected_bytes:
        raise InputRejected(
            f"The file has {length} bytes, its header accounts for {header.expected_bytes}; the two do not belong together.",
            code="NII_LENGTH",
        )


def _affine(header: _Header) -> tuple[Affine, str]:
    """The affine and its name.

    Raises:
        InputRejected: NII_AFFINE: neither is coded, one is not finite or singular, or the two disagree.
    """
    if header.qform_code < 0 or header.sform_code < 0 or not (header.qform_code or header.sform_code):
        raise InputRejected("The header codes neither an sform nor a qform, so the file has no geometry.", code="NII_AFFINE")
    import nibabel

    parsed = nibabel.Nifti2Header if len(header.raw) == 540 else nibabel.Nifti1Header
    fault = "The header's geometry is not finite or singular; write a valid sform or qform."
    named: dict[str, Affine] = {}
    with guarded("NII_AFFINE", fault):
        library = parsed(header.raw, check=False)
        if header.sform_code:
            named["sform"] = library.get_sform()
        if header.qform_code:
            _check_spacing(header)
            named["qform"] = library.get_qform()
    volumes = [_geometry_of(affine, header.shape, fault) for affine in named.values()]
    for first, second in pairwise(volumes):
        apart_mm = farthest_corner_mm(first, second)
        if apart_mm > CORNER_TOLERANCE_MM:
            raise InputRejected(
                f"Sform and qform are {apart_mm:.2f} mm apart at a corner; at most {CORNER_TOLERANCE_MM} mm is allowed.",
                code="NII_AFFINE",
            )
    name = next(iter(named))
    return named[name], name


def _check_spacing(header: _Header) -> None:
    """The qform uses pixdim, whose sign nibabel would silently drop."""
    if not all(np.isfinite(size) and size > 0 for size in header.pixdim[1:4]) or header.pixdim[0] not in (-1, 0, 1):
        raise InputRejected("The qform's voxel sizes are not positive numbers; write a valid pixdim.", code="NII_AFFINE")


def _geometry_of(affine: Affine, shape: tuple[int, int, int], fault: str) -> Volume:
    """A volume without voxels, to compare places with."""
    try:
        return Volume(affine, (1, *shape), _no_voxels)
    except InputRejected:
        raise InputRejected(fault, code="NII_AFFINE") from None


def _no_voxels() -> Array:
    raise InputRejected("This volume stands for a place only.", code="NII_AFFINE")


def _load(path: Path, source: str, header: _Header, limits: Limits) -> Array:
    """Read the voxels, (1, I, J, K): stored numbers in native byte order, or float32 where the header scales them.

    The file is read and inflated piece by piece, straight into the array: beside it, a few MiB are held.
    """
    content = _Content(path, limits)
    try:
        values = _filled(content, header)
    except InputRejected:
        content.check(source)  # what was changed since is said first
        raise
    content.check(source)
    return values[np.newaxis]


def _filled(content: "_Content", header: _Header) -> Array:
    """The voxels, (I, J, K), of a file whose header is known."""
    import nibabel

    parsed: Callable[..., nibabel.Nifti1Header] = nibabel.Nifti2Header if len(header.raw) == 540 else nibabel.Nifti1Header
    with guarded("NII_DECODE", "The voxels cannot be read; fetch the file again."):
        dtype = parsed(header.raw, check=False).get_data_dtype()
    values: NDArray[np.generic] = np.empty(header.shape, np.float32 if header.scaled else dtype, order="F")
    flat = values.reshape(-1, order="F")
    at, skip, rest = 0, int(header.vox_offset), b""
    for piece in content.pieces():
        data = rest + piece[skip:]
        skip = max(0, skip - len(piece))
        count = len(data) // dtype.itemsize
        rest = data[count * dtype.itemsize :]
        if at + count > flat.size:
            break
        flat[at : at + count] = _voxels(data[: len(data) - len(rest)], dtype, header)
        at += count
    if at != flat.size or rest:
        raise InputRejected("The file does not hold the voxels that its header asks for.", code="NII_TRUNCATED")
    if values.dtype.isnative:
        return values
    return values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))


def _voxels(data: bytes, dtype: "np.dtype[np.generic]", header: _Header) -> NDArray[np.generic]:
    """Some voxels in a row, scaled as nibabel does it where the header says so."""
    if not header.scaled:
        return np.frombuffer(data, dtype)
    from nibabel.arrayproxy import ArrayProxy

    with guarded("NII_DECODE", "The voxels cannot be read; fetch the file again."):
        shape = (len(data) // dtype.itemsize,)
        return np.asarray(ArrayProxy(BytesIO(data), (shape, dtype, 0, header.slope, header.intercept))).astype(np.float32)


def _checked(content: "_Content", limits: Limits) -> _Header:
    """The header, once the file was read to its end and has the length that it asks for; in constant memory."""
    start, pieces = b"", content.pieces()
    for piece in pieces:
        start += piece
        if len(start) >= _HEADER_BYTES:
            break
    header = _parse(start[:_HEADER_BYTES])
    _check(header, limits)
    _check_length(header, len(start) + sum(len(piece) for piece in pieces))
    return header


class _Content:
    """A received file, read piece by piece, inflated where it is packed, and hashed on the way."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._received = received_pieces(path, limits=limits)
        self._limits = limits
        self._total = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """Yield the file's bytes, inflated, at most 1 MiB at once.

        Raises:
            InputRejected: NII_INFLATE_LIMIT, NII_TRUNCATED, or what `gate.received_pieces` raises.
        """
        hashed = self._hashed()
        first = next(hashed, b"")
        whole = chain([first], hashed)
        yield from inflate_pieces(whole, code="NII", limits=self._limits) if first[:2] == _GZIP else whole

    def _hashed(self) -> Iterator[bytes]:
        for piece in self._received:
            self._total.update(piece)
            yield piece

    @property
    def digest(self) -> str:
        """SHA-256 of the file's own bytes; all of them are read."""
        for _ in self._hashed():
            pass
        return self._total.hexdigest()

    def check(self, source: str) -> None:
        """Refuse a file that is no longer the one that was accepted.

        Raises:
            IntegrityError: FILE_CHANGED.
        """
        if self.digest != source:
            raise changed()


def nifti_stem(name: str) -> str | None:
    """The name without its NIfTI suffix, or None where it has none."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name.rpartition("/")[2]) > len(suffix):
            return name[: -len(suffix)]
    return None
