"""NIfTI-1 and NIfTI-2 single files. Our own code reads the header and refuses; nibabel then makes the affine and the numbers."""

import gzip
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bedside.core.contract import CORNER_TOLERANCE_MM
from bedside.core.digest import digest_json
from bedside.core.errors import InputRejected, UsageError
from bedside.core.files import write_atomic
from bedside.core.volume import Affine, Array, Volume, farthest_corner_mm
from bedside.formats.found import Found
from bedside.formats.gate import LIMITS, Limits, changed, guarded, inflate_pieces, received_pieces
from bedside.formats.nifti_header import BYTES_OF, HEADER_BYTES, Header, check, check_length, parse

_GZIP = b"\x1f\x8b"
_SUFFIXES = (".nii.gz", ".nii")
_MOST_LETTERS = 79
"""Of `descrip`, which ends in a zero byte (nifti1.h)."""


def read_nifti(path: Path, *, limits: Limits = LIMITS) -> Found:
    """Read a 3-D NIfTI file; its voxels are read, and its digest checked again, when first looked at.

    The affine is the sform, else the qform; a file that codes neither is refused, where nibabel and most viewers invent one.
    Voxel sizes (pixdim) that no voxel can have are refused whatever is coded; where others contradict the sform by more than
    `CORNER_TOLERANCE_MM` at the far end of an axis, the sform counts and the volume is noted PIXDIM_CONTRADICTED.

    Args:
        path: a .nii or .nii.gz file; what it is is decided by its bytes, not by its name.
        limits: the gate's.

    Raises:
        InputRejected: NII_NOT_NIFTI, NII_DIM, NII_DATATYPE, NII_TRUNCATED, NII_LENGTH, NII_INFLATE_LIMIT, NII_AFFINE, NII_SCALE,
            NII_UNITS, or what `gate.receive` raises.
    """
    volumes, _ = read_nifti_volumes(path, limits=limits)
    if len(volumes) > 1:
        raise InputRejected("The file holds more than one 3-D volume; split it and give one.", code="NII_DIM")
    return volumes[0]


def read_nifti_volumes(path: Path, *, limits: Limits = LIMITS) -> tuple[tuple[Found, ...], str]:
    """Read a NIfTI file of one volume, or of several that follow one another in time, as `read_nifti` does.

    Each of several volumes has its own `source`, of the file and its number, and the note SPLIT_BY_TIME.

    Returns:
        The volumes in time, and SHA-256 of the file.

    Raises:
        InputRejected: as `read_nifti`; NII_DIM also for further axes, or more than 4096 volumes.
    """
    import nibabel

    content = _Content(path, limits)
    header = _checked(content, limits)
    affine, geometry = _affine(header)
    file = content.digest
    several = header.volumes > 1
    notes = {"SPLIT_BY_TIME": several, "PIXDIM_CONTRADICTED": _contradicted(header, affine)}
    volumes = tuple(
        Found(
            volume=Volume(affine, (1, *header.shape), partial(_load, path, file, (header, number), limits)),
            source=digest_json({"file": file, "volume": number}) if several else file,
            geometry=geometry,
            modality="",
            patient_id="",
            scanner="",
            files=(path,),
            decoder=f"nibabel {nibabel.__version__}",
            voxel_bytes=4 if header.scaled else BYTES_OF[header.datatype],
            notes=tuple(note for note, there in notes.items() if there),
        )
        for number in range(header.volumes)
    )
    return volumes, file


def write_nifti(path: Path, array_ijk: Array, affine: Affine, *, description: str = "") -> None:
    """Write (I, J, K) with its affine to RAS+ mm as sform and qform; the same input gives the same bytes.

    The description stands in `descrip`, which every reader knows, and not in a header extension: many programs drop those, and
    one would move the voxels away from byte 352, where the simplest readers look for them.

    Args:
        path: ends in .nii or .nii.gz.
        array_ijk: stored in its own dtype, unscaled.
        affine: (4, 4). The qform is left out where it cannot hold the affine (shear).
        description: at most 79 letters of ASCII; nothing of a patient.

    Raises:
        UsageError: NII_DESCRIPTION: the description is longer, or has other letters.
        ResourceError: the disk is full; an older file of that name is intact.
    """
    import nibabel

    if not description.isascii() or len(description) > _MOST_LETTERS:
        raise UsageError(
            f"The description has {len(description)} letters; give at most {_MOST_LETTERS}, all of them ASCII.",
            code="NII_DESCRIPTION",
        )
    image = nibabel.Nifti1Image(array_ijk, affine, dtype=array_ijk.dtype)
    image.header["descrip"] = description.encode()
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    if not np.allclose(image.get_qform(), affine, atol=1e-4):
        image.set_qform(None, code=0)
    data = image.to_bytes()
    write_atomic(path, gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data, doing="writing a NIfTI file")


def _affine(header: Header) -> tuple[Affine, str]:
    """The affine and its name.

    Raises:
        InputRejected: NII_AFFINE: neither is coded, one is not finite or singular, the two disagree, or a voxel size is none.
    """
    _check_sizes(header)
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


def _check_sizes(header: Header) -> None:
    """Voxel sizes are positive, though only the qform uses them and nibabel would silently drop their sign."""
    if not all(np.isfinite(size) and size > 0 for size in header.pixdim[1:4]):
        raise InputRejected("The voxel sizes are not positive numbers; write a valid pixdim.", code="NII_AFFINE")
    if header.qform_code and header.pixdim[0] not in (-1, 0, 1):
        raise InputRejected("The qform's handedness is none; write 1 or -1 into pixdim[0].", code="NII_AFFINE")


def _contradicted(header: Header, affine: Affine) -> bool:
    """Whether the voxel sizes put the far end of an axis elsewhere than the affine does."""
    sizes = np.asarray(header.pixdim[1:4], dtype=np.float64)
    steps = np.maximum(np.asarray(header.shape) - 1, 1)
    apart_mm = np.abs(np.linalg.norm(affine[:3, :3], axis=0) - sizes) * steps
    return bool(apart_mm.max() > CORNER_TOLERANCE_MM)


def _geometry_of(affine: Affine, shape: tuple[int, int, int], fault: str) -> Volume:
    """A volume without voxels, to compare places with."""
    try:
        return Volume(affine, (1, *shape), _no_voxels)
    except InputRejected:
        raise InputRejected(fault, code="NII_AFFINE") from None


def _no_voxels() -> Array:
    raise InputRejected("This volume stands for a place only.", code="NII_AFFINE")


def _load(path: Path, source: str, one: tuple[Header, int], limits: Limits) -> Array:
    """Read the voxels of one volume, given by the header and its number, (1, I, J, K).

    They are stored numbers in native byte order, or float32 where the header scales them.

    The file is read and inflated piece by piece, straight into the array: beside it, a few MiB are held.
    """
    content = _Content(path, limits)
    try:
        values = _filled(content, *one)
    except InputRejected:
        content.check(source)  # what was changed since is said first
        raise
    content.check(source)
    return values[np.newaxis]


def _filled(content: "_Content", header: Header, number: int) -> Array:
    """The voxels, (I, J, K), of a file whose header is known."""
    import nibabel

    parsed: Callable[..., nibabel.Nifti1Header] = nibabel.Nifti2Header if len(header.raw) == 540 else nibabel.Nifti1Header
    with guarded("NII_DECODE", "The voxels cannot be read; fetch the file again."):
        dtype = parsed(header.raw, check=False).get_data_dtype()
    values: NDArray[np.generic] = np.empty(header.shape, np.float32 if header.scaled else dtype, order="F")
    flat = values.reshape(-1, order="F")
    at, skip, rest = 0, int(header.vox_offset) + number * header.volume_bytes, b""
    for piece in content.pieces():
        data = rest + piece[skip:]
        skip = max(0, skip - len(piece))
        count = min(len(data) // dtype.itemsize, flat.size - at)
        rest = data[count * dtype.itemsize :]
        flat[at : at + count] = _voxels(data[: count * dtype.itemsize], dtype, header)
        at += count
        if at == flat.size:
            break
    if at != flat.size:
        raise InputRejected("The file does not hold the voxels that its header asks for.", code="NII_TRUNCATED")
    if values.dtype.isnative:
        return values
    return values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))


def _voxels(data: bytes, dtype: "np.dtype[np.generic]", header: Header) -> NDArray[np.generic]:
    """Some voxels in a row, scaled as nibabel does it where the header says so."""
    if not header.scaled:
        return np.frombuffer(data, dtype)
    from nibabel.arrayproxy import ArrayProxy

    with guarded("NII_DECODE", "The voxels cannot be read; fetch the file again."):
        shape = (len(data) // dtype.itemsize,)
        return np.asarray(ArrayProxy(BytesIO(data), (shape, dtype, 0, header.slope, header.intercept))).astype(np.float32)


def _checked(content: "_Content", limits: Limits) -> Header:
    """The header, once the file was read to its end and has the length that it asks for; in constant memory."""
    start, pieces = b"", content.pieces()
    for piece in pieces:
        start += piece
        if len(start) >= HEADER_BYTES:
            break
    header = parse(start[:HEADER_BYTES])
    check(header, limits)
    check_length(header, len(start) + sum(len(piece) for piece in pieces))
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
