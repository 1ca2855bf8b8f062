"""Three planes through a case with both masks: what a report shows of it, small enough to keep for every case."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bedside.core.volume import Reorientation, Volume

MARGIN_MM = 15.0
_AXES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}

Bytes = NDArray[np.uint8]
Ids = NDArray[np.generic]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice as it is shown: patient's right on the viewer's left, front and head up (the convention of radiology).

    Attributes:
        name: "axial", "coronal" or "sagittal"; of the closest axes where the grid is oblique.
        image: (rows, columns) grey values 0..255.
        reference, prediction: (rows, columns) training ids.
        pixel_mm: height and width of one pixel.
        letters: patient direction at the left, right, top and bottom edge.
    """

    name: str
    image: Bytes
    reference: Bytes
    prediction: Bytes
    pixel_mm: tuple[float, float]
    letters: str


@dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of a case.

    Attributes:
        case, patient: as in the dataset.
        focus: the structure through which the planes go.
        planes: axial, coronal, sagittal.
    """

    case: str
    patient: str
    focus: str
    planes: tuple[Plane, ...]


def three_planes(image: Volume, reference: Ids, prediction: Ids, *, focus: int) -> tuple[Plane, ...]:
    """Cut the axial, coronal and sagittal plane through the centre of a structure.

    The planes meet in a voxel of the structure (of the reference; of the prediction where the reference has none of it), the one
    near its centroid, so that a hollow or divided structure is hit too. They are cropped to everything outlined plus 15 mm.

    Args:
        image: (C, I, J, K); the first channel is shown, from its 1st to its 99th percentile.
        reference: training ids on the image's grid, (I, J, K).
        prediction: training ids on the image's grid, (I, J, K).
        focus: training id of the structure.
    """
    turn = Reorientation.of(image)
    grey = turn.apply(image.array)[0]
    truth, answer = (turn.apply(mask[np.newaxis])[0].astype(np.uint8, copy=False) for mask in (reference, prediction))
    i_mm, j_mm, k_mm = (image.spacing_mm[axis] for axis in turn.order)
    spacing_mm = (i_mm, j_mm, k_mm)
    centre = _centre(truth, answer, focus)
    box = _box((truth > 0) | (answer > 0), spacing_mm)
    cuts = {name: _index(name, centre, box) for name in _AXES}
    shown = _window([np.asarray(grey[cut], dtype=np.float64) for cut in cuts.values()])
    return tuple(
        Plane(
            name,
            _as_seen(seen),
            _as_seen(truth[cut]),
            _as_seen(answer[cut]),
            (spacing_mm[_AXES[name][1]], spacing_mm[_AXES[name][0]]),
            _LETTERS[name],
        )
        for (name, cut), seen in zip(cuts.items(), shown, strict=True)
    )


def save(path: Path, picture: Picture) -> None:
    """Write a picture to one `.npz` file."""
    arrays = {
        f"{kind}_{plane.name}": np.asarray(getattr(plane, kind))
        for plane in picture.planes
        for kind in ("image", "reference", "prediction", "pixel_mm")
    }
    words = {name: np.asarray(getattr(picture, name)) for name in ("case", "patient", "focus")}
    np.savez_compressed(path, allow_pickle=False, **arrays, **words)


def load(path: Path) -> Picture | None:
    """Read what `save` wrote; None if the file is gone or damaged, since a picture is a cache and never evidence."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            planes = tuple(
                Plane(
                    name,
                    stored[f"image_{name}"],
                    stored[f"reference_{name}"],
                    stored[f"prediction_{name}"],
                    (float(stored[f"pixel_mm_{name}"][0]), float(stored[f"pixel_mm_{name}"][1])),
                    _LETTERS[name],
                )
                for name in _AXES
            )
            return Picture(str(stored["case"]), str(stored["patient"]), str(stored["focus"]), planes)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):
        return None


def _centre(truth: Bytes, answer: Bytes, focus: int) -> tuple[int, int, int]:
    """A voxel of the structure near its centroid; the middle of the grid where neither mask has it."""
    for mask in (truth == focus, answer == focus, truth > 0, answer > 0):
        if mask.any():
            break
    else:
        i, j, k = (length // 2 for length in truth.shape)
        return i, j, k
    along_k = mask.sum(axis=(0, 1))
    k = _nearest(np.flatnonzero(along_k), _mean(along_k))
    voxels = np.argwhere(mask[:, :, k])
    middle = np.asarray([_mean(mask.sum(axis=(1, 2))), _mean(mask.sum(axis=(0, 2)))])
    i, j = voxels[np.square(voxels - middle).sum(axis=1).argmin()]
    return int(i), int(j), k


def _mean(counts: NDArray[np.int64]) -> float:
    return float((counts * np.arange(len(counts))).sum() / counts.sum())


def _nearest(candidates: NDArray[np.int64], wanted: float) -> int:
    return int(candidates[np.abs(candidates - wanted).argmin()])


def _box(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Box:
    """Slices around all that is in the mask, with a margin; the whole grid for an empty mask."""
    if not mask.any():
        return slice(None), slice(None), slice(None)
    sides: list[slice] = []
    for axis, spacing in enumerate(spacing_mm):
        found = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(MARGIN_MM / spacing))
        sides.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin))
    return sides[0], sides[1], sides[2]


def _index(name: str, centre: tuple[int, int, int], box: Box) -> tuple[slice | int, ...]:
    return tuple(box[axis] if axis in _AXES[name] else centre[axis] for axis in range(3))


def _window(planes: list[NDArray[np.float64]]) -> list[Bytes]:
    """Grey values for the screen, one window for all planes; voxels that are no number are black."""
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
    width = max(high - low, 1e-12)
    scaled = [np.where(np.isfinite(plane), (plane - low) / width, 0.0) for plane in planes]
    return [(np.clip(plane, 0.0, 1.0) * 255).round().astype(np.uint8) for plane in scaled]


def _as_seen(plane: Bytes) -> Bytes:
    """From (column axis, row axis) in RAS+ to rows and columns on a screen: both run against the patient's axes."""
    return np.ascontiguousarray(plane[::-1, ::-1].T)
