"""Series and masks of any direction, spacing and tilt, for segmentations of them."""

from pathlib import Path
from typing import get_args

import numpy as np
from pydicom import dcmread

from bedside.core.labels import Term
from bedside.core.volume import Frame, Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.found import Found
from bedside.formats.seg import Kind, SegMaker

SPACING_MM = (0.7, 1.1, 2.5)  # not square on purpose
SHAPE = (12, 9, 5)
NAMES = {1: "femur", 2: "pelvis", 3: "sacrum"}
KINDS = get_args(Kind)
TERMS = {"femur": Term(value="71341001", meaning="Bone structure of femur")}
MAKER = SegMaker("ab" * 32, "ct-bone", "0.1.0", "cd" * 32)


def rotation(degrees: float, axis: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_of(directions: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag(SPACING_MM)
    affine[:3, 3] = [-31.5, 40.25, 7.75]
    return affine


def series(folder: Path, affine: np.ndarray, *, patient: str = "P1") -> Found:
    values = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    write_series(folder, Volume.of(values, affine), identity=SeriesIdentity.of(patient))
    (found,) = read_folder(folder).found
    return found


def a_mask(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)


def tilted(folder: Path, degrees: float, *, along: int = 1) -> Found:
    """A series whose planes slide along one of their axes, as a reader gives it: sheared back, with the scanner's own frame."""
    straight = affine_of(np.diag([-1.0, -1.0, 1.0]))
    lean = straight.copy()
    step = np.tan(np.radians(degrees)) * SPACING_MM[2]
    lean[:3, 2] += step * straight[:3, along] / SPACING_MM[along]
    values = np.zeros(SHAPE, dtype=np.int16)
    files = write_series(folder, Volume.of(values, straight), identity=SeriesIdentity.of("P1"))
    for k, path in enumerate(files):
        data = dcmread(path)
        data.ImagePositionPatient = [f"{x:.8f}" for x in (lean @ [0, 0, k, 1])[:3] * [-1, -1, 1]]
        data.save_as(path)
    room = int(np.ceil(abs(step) / SPACING_MM[along] * (SHAPE[2] - 1))) + 1
    grown = list(SHAPE)
    grown[along] += 2 * room
    moved = straight.copy()
    moved[:3, 3] -= room * straight[:3, along]
    volume = Volume.of(np.zeros(grown, dtype=np.int16), moved)
    return Found(volume, "0" * 64, "dicom", "CT", "P1", "", files, "test", frame=Frame(lean, SHAPE))
