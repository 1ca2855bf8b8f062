"""Phantoms whose voxel values say where they are: value = running number of the voxel, known to lie at a known place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series

SHAPE = (4, 3, 5)


def _numbered(affine: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Volume:
    return Volume.of(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine)


def _place_error_mm(written: Volume, read: Volume) -> float:
    """Largest distance between where a voxel was and where it is said to be, over every voxel."""
    ids = read.array[0].astype(np.int64)
    assert sorted(ids.ravel()) == list(range(int(np.prod(written.shape[1:]))))
    was = np.stack([*np.unravel_index(ids.ravel(), written.shape[1:]), np.ones(ids.size)])
    now = np.stack([*np.indices(ids.shape).reshape(3, -1), np.ones(ids.size)])
    return float(np.linalg.norm((written.affine @ was - read.affine @ now)[:3], axis=0).max())


def _plain_affine(spacing: tuple[float, float, float] = (0.7, 1.1, 2.5)) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-31.25, 12.5, 100.125)
    return affine


@pytest.fixture(scope="session")
def numbered() -> Callable[..., Volume]:
    """Make a volume whose values are its voxels' running numbers."""
    return _numbered


@pytest.fixture(scope="session")
def place_error_mm() -> Callable[[Volume, Volume], float]:
    """Largest distance between where a numbered voxel was and where it is said to be, over every voxel."""
    return _place_error_mm


@pytest.fixture(scope="session")
def plain_affine() -> Callable[..., np.ndarray]:
    """An affine along the axes with three different spacings."""
    return _plain_affine


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., Path]:
    """Write a numbered phantom as a series; `edit(dataset, index)` may change each slice before it is written again."""

    def write(name: str = "series", *, volume: Volume | None = None, edit: Callable | None = None, **identity) -> Path:
        folder = tmp_path / name
        who = SeriesIdentity.of(identity.pop("patient_id", "P1"), name, **identity)
        for index, path in enumerate(write_series(folder, volume or _numbered(_plain_affine()), identity=who)):
            if edit is not None:
                dataset = pydicom.dcmread(path)
                edit(dataset, index)
                dataset.save_as(path)
        return folder

    return write
