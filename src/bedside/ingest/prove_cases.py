"""The cases of the geometry proof: one phantom, written in all the ways in which hospitals send it, right and wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bedside.core.volume import Affine, Volume
from bedside.formats.dicom_write import Plane, SeriesIdentity, planes_of, write_planes
from bedside.formats.dicom_write_frames import write_frames
from bedside.formats.dicom_write_htj2k import SHAPE
from bedside.formats.dicom_write_syntax import NEAR_LOSSLESS_ERROR

EXACT = "exact"
HALF_A_VOXEL = "half a voxel"
SPACING_MM = (0.7, 1.1, 2.5)
_NATIVE = "1.2.840.10008.1.2.1"
_JPEG = "1.2.840.10008.1.2.4."
_SYNTAXES = {
    "implicit little endian": "1.2.840.10008.1.2",
    "explicit little endian": _NATIVE,
    "explicit big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": f"{_JPEG}57",
    "JPEG lossless, first order": f"{_JPEG}70",
    "JPEG-LS": f"{_JPEG}80",
    "JPEG 2000": f"{_JPEG}90",
    "HTJ2K": f"{_JPEG}201",
}
_LOSSY: tuple[tuple[str, str, Literal[8, 12, 16], int], ...] = (
    ("JPEG baseline, 8 bit", f"{_JPEG}50", 8, 3),
    ("JPEG extended, 12 bit", f"{_JPEG}51", 12, 2),
    ("JPEG-LS near-lossless, 12 bit", f"{_JPEG}81", 12, NEAR_LOSSLESS_ERROR),
    ("JPEG 2000 with loss, 16 bit", f"{_JPEG}91", 16, 8),
)
"""Name, syntax, bits, and how far a number may be from the one that was written."""

Planes = tuple[Plane, ...]
Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ProofCase:
    """One way to send the phantom, and what a reader has to make of it.

    Attributes:
        group, name: what the case is about.
        planes: what is written. Their pixels are the voxels' running numbers, so each value tells where it was put.
        expected: "exact": every voxel where it was put; "half a voxel": values are interpolated or compressed with loss, so
            places are read from ramps along x, y and z; else the code with which the series must be refused.
        volumes: how many it holds.
        enhanced: one multi-frame file instead of one file per plane.
        syntax: TransferSyntaxUID.
        modality: of the series.
        tilt_degrees: GantryDetectorTilt as the header says it, 0 when it does not.
        sent_twice: the second file arrives twice, byte for byte.
        bits: that ramps are stored in.
        within: how far compression with loss may take a number from what was written; None where values are interpolated.
    """

    group: str
    name: str
    planes: Planes = field(repr=False)
    expected: str = EXACT
    volumes: int = 1
    enhanced: bool = False
    syntax: str = _NATIVE
    modality: Literal["CT", "MR"] = "CT"
    tilt_degrees: float = 0.0
    sent_twice: bool = False
    bits: Literal[8, 12, 16] = 16
    within: int | None = None

    def write(self, folder: Path, planes: Sequence[Plane]) -> None:
        """Write planes, the case's own or the same with other pixels, as the case says."""
        write = write_frames if self.enhanced else write_planes
        identity = SeriesIdentity.of("PROOF", f"{self.group} {self.name}", modality=self.modality)
        paths = write(folder, planes, identity=identity, syntax=self.syntax, tilt_degrees=self.tilt_degrees)
        if self.sent_twice:
            (folder / "again.dcm").write_bytes(paths[1].read_bytes())


def proof_cases() -> tuple[ProofCase, ...]:
    """Every case of the proof, in the order of its table."""
    makers: tuple[Callable[[], Iterator[ProofCase]], ...] = (
        _orientations,
        _obliques,
        _tilts,
        _grids,
        _piles,
        _numberings,
        _several,
        _enhanced,
        _syntaxes,
    )
    return tuple(case for make in makers for case in make())


def numbered(affine: Affine, *, first: int = 0) -> Planes:
    """The phantom's planes on a grid: int16 running numbers from `first`, in C order of (I, J, K) = `SHAPE`."""
    numbers = np.arange(first, first + int(np.prod(SHAPE)), dtype=np.int16).reshape(SHAPE)
    return planes_of(Volume.of(numbers, affine))


def grid(directions: Vectors | None = None, spacing_mm: tuple[float, float, float] = SPACING_MM) -> Affine:
    """An affine with odd numbers in it; `directions` are the columns' unit vectors, RAS, by default those of an axial CT."""
    columns = np.diag([-1.0, -1.0, 1.0]) if directions is None else directions
    affine = np.eye(4)
    affine[:3, :3] = columns * np.array(spacing_mm)
    affine[:3, 3] = (-31.25, 12.5, 100.125)
    return affine


def turned(*degrees: float) -> Vectors:
    """The axes of an axial CT after turns around x, then y, then z."""
    axes = np.diag([-1.0, -1.0, 1.0])
    for axis, angle in enumerate(np.radians(degrees)):
        one, other = [index for index in range(3) if index != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        axes = turn @ axes
    return axes


def leaning(degrees: float, axes: Vectors | None = None) -> Affine:
    """The grid of a tilted gantry: planes turned around the rows, while the table moves along the patient's axis."""
    upright = grid(axes)
    angle = np.radians(degrees)
    affine = upright.copy()
    table = upright[:3, 2] / SPACING_MM[2]
    column = upright[:3, 1] / SPACING_MM[1]
    affine[:3, 1] = SPACING_MM[1] * (np.cos(angle) * column + np.sin(angle) * table)
    return affine


def shifted(planes: Planes, offsets_mm: Sequence[float]) -> Planes:
    """Planes moved along their normal, each by its own distance."""
    return tuple(
        replace(plane, position_mm=plane.position_mm + offset * plane.normal)
        for plane, offset in zip(planes, offsets_mm, strict=True)
    )


def _orientations() -> Iterator[ProofCase]:
    """Every way to lay three axes along the patient's, left-handed ones (slices against their normal) included."""
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            axes = np.zeros((3, 3))
            axes[list(order), range(3)] = signs
            letters = "".join(("RL", "AP", "SI")[axis][sign < 0] for axis, sign in zip(order, signs, strict=True))
            yield ProofCase("orientation", letters, numbered(grid(axes)))


_TURNS = {"once": (17.0,), "twice": (25.0, -20.0), "three times, near the diagonal": (44.0, 38.0, 41.0)}


def _obliques() -> Iterator[ProofCase]:
    for name, angles in _TURNS.items():
        yield ProofCase("oblique", name, numbered(grid(turned(*angles))))


def _tilts() -> Iterator[ProofCase]:
    for degrees in (10.0, 20.0, -15.0):
        yield ProofCase("gantry tilt", f"{degrees:g} degrees", numbered(leaning(degrees)), HALF_A_VOXEL, tilt_degrees=degrees)
    yield ProofCase("gantry tilt", "20 degrees, not said in the header", numbered(leaning(20.0)), HALF_A_VOXEL)
    oblique = numbered(leaning(10.0, turned(25.0, -20.0)))
    yield ProofCase("gantry tilt", "10 degrees, oblique", oblique, HALF_A_VOXEL, tilt_degrees=10.0)


def _grids() -> Iterator[ProofCase]:
    yield ProofCase("pixels", "not square", numbered(grid(spacing_mm=(0.45, 1.7, 2.0))))
    yield ProofCase("pixels", "square", numbered(grid(spacing_mm=(0.8, 0.8, 0.8))))


def _piles() -> Iterator[ProofCase]:
    """Stacks with something wrong, each of which has its own name."""
    planes = numbered(grid())
    step = SPACING_MM[2]
    yield ProofCase("slices", "one missing", planes[:3] + planes[4:], "SERIES_MISSING_SLICE")
    yield ProofCase("slices", "two missing, apart", planes[:2] + planes[3:5] + planes[6:], "SERIES_MISSING_SLICE")
    yield ProofCase("slices", "one file sent twice", planes, sent_twice=True)
    again = replace(planes[4], number=len(planes) + 1)
    yield ProofCase("slices", "one slice twice, as two instances", (*planes, again), "SERIES_DUPLICATE_POSITION")
    jitter = [0.0, 0.05, -0.05, 0.05, -0.04, 0.05, -0.05, 0.0]
    yield ProofCase("slices", "5 % jitter", shifted(planes, [step * share for share in jitter]), "SERIES_JITTER")
    growing = [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5]
    yield ProofCase("slices", "two increments", shifted(planes, [step * share for share in growing]), "SERIES_TWO_INCREMENTS")
    uneven = [0.0, 0.3, -0.2, 0.1, 0.4, 0.0, 0.3, 0.0]
    yield ProofCase("slices", "uneven", shifted(planes, [step * share for share in uneven]), "SERIES_IRREGULAR")
    beside = replace(planes[3], position_mm=planes[3].position_mm + 3.0 * planes[3].directions[0])
    yield ProofCase("slices", "one beside the others", (*planes[:3], beside, *planes[4:]), "SERIES_IRREGULAR")
    yield ProofCase("slices", "one only", planes[:1], "SERIES_ONE_SLICE")
    yield ProofCase("slices", "two only", planes[:2], "SERIES_TWO_SLICES")


_SHUFFLE = (5, 2, 7, 0, 3, 6, 1, 4)


def _numberings() -> Iterator[ProofCase]:
    """InstanceNumber says nothing about places."""
    planes = numbered(grid(turned(17.0)))
    mixed = tuple(replace(planes[place], number=number + 1) for number, place in enumerate(_SHUFFLE))
    yield ProofCase("numbers", "shuffled", mixed)
    yield ProofCase("numbers", "against the slices", tuple(replace(p, number=len(planes) - p.number) for p in planes))
    yield ProofCase("numbers", "all equal", tuple(replace(planes[place], number=1) for place in _SHUFFLE))


def _several() -> Iterator[ProofCase]:
    """Series that hold several volumes."""
    for name, keyword in (
        ("by temporal position", "TemporalPositionIdentifier"),
        ("by acquisition", "AcquisitionNumber"),
        ("by echo", "EchoNumbers"),
    ):
        yield ProofCase("4-D", name, _times(3, keyword), volumes=3, modality="MR")
    unmarked = tuple(replace(plane, marks={}) for plane in _times(3, "AcquisitionNumber"))
    yield ProofCase("4-D", "by number only", unmarked, volumes=3, modality="MR")
    still = tuple(replace(plane, number=1) for plane in unmarked)
    yield ProofCase("4-D", "nothing to tell them apart", still, "SERIES_DUPLICATE_POSITION", modality="MR")
    yield ProofCase("4-D", "two directions in one series", _directions(), volumes=2)


def _times(count: int, keyword: str) -> Planes:
    """Several volumes of one grid, place by place, as scanners number them."""
    size = int(np.prod(SHAPE))
    volumes = [numbered(grid(turned(17.0)), first=time * size) for time in range(count)]
    marked = [replace(volumes[t][k], marks={keyword: t + 1}) for k in range(SHAPE[2]) for t in range(count)]
    return tuple(replace(plane, number=number) for number, plane in enumerate(marked, 1))


def _directions() -> Planes:
    sagittal = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    return (*numbered(grid()), *numbered(grid(sagittal), first=int(np.prod(SHAPE))))


def _enhanced() -> Iterator[ProofCase]:
    """The same in one multi-frame file."""
    planes = numbered(grid())
    oblique = numbered(grid(turned(25.0, -20.0)))
    in_one_file = [
        ProofCase("enhanced", "CT", planes),
        ProofCase("enhanced", "MR", planes, modality="MR"),
        ProofCase("enhanced", "CT, oblique", oblique),
        ProofCase("enhanced", "MR, oblique, frames shuffled", tuple(oblique[place] for place in _SHUFFLE), modality="MR"),
        ProofCase("enhanced", "MR, 4-D", _times(3, "TemporalPositionIdentifier"), volumes=3, modality="MR"),
        ProofCase("enhanced", "CT, two directions", _directions(), volumes=2),
        ProofCase("enhanced", "CT, one frame missing", planes[:3] + planes[4:], "SERIES_MISSING_SLICE"),
        ProofCase("enhanced", "CT, tilt 10 degrees", numbered(leaning(10.0)), HALF_A_VOXEL, tilt_degrees=10.0),
    ]
    yield from (replace(case, enhanced=True) for case in in_one_file)
    for name in ("explicit big endian", "RLE", "JPEG-LS", "JPEG 2000", "JPEG lossless, first order"):
        yield ProofCase("enhanced", f"CT, {name}", oblique, enhanced=True, syntax=_SYNTAXES[name])


def _syntaxes() -> Iterator[ProofCase]:
    oblique = numbered(grid(turned(25.0, -20.0)))
    for name, syntax in _SYNTAXES.items():
        yield ProofCase("transfer syntax", name, oblique, syntax=syntax)
    for name, syntax, bits, within in _LOSSY:
        yield ProofCase("transfer syntax", name, oblique, HALF_A_VOXEL, syntax=syntax, bits=bits, within=within)
