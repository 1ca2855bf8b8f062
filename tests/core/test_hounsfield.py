"""Numbers that cannot be Hounsfield units are refused; lung, padding and images without air are left alone."""

from pathlib import Path

import numpy as np
import pytest

from bedside.core.errors import InputRejected
from bedside.core.hounsfield import check_hounsfield
from bedside.data.phantom import cohort
from bedside.formats.nifti import read_nifti


@pytest.fixture(scope="module")
def patients() -> list[np.ndarray]:
    return [phantom.image.array for phantom in cohort(4, seed=3)]


def refused(array: np.ndarray) -> bool:
    try:
        check_hounsfield(array)
    except InputRejected as error:
        return error.code == "HU_CALIBRATION" and "\n" not in error.sentence
    return False


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("stored numbers", lambda hu: np.clip(hu.astype(np.int32) + 1024, 0, 4095).astype(np.uint16)),
        ("intercept twice", lambda hu: hu.astype(np.int32) - 1024),
        ("slope of another series", lambda hu: hu * 0.8),
        ("another zero", lambda hu: hu.astype(np.int32) + 200),
        ("only air", lambda hu: np.where(hu > -900, -1000 + hu % 7, hu)),
    ],
)
def test_miscalibrated_numbers_are_refused(patients: list[np.ndarray], what: str, spoil) -> None:
    assert all(refused(spoil(hu)) for hu in patients), what


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("as it is", lambda hu: hu),
        ("air clipped", lambda hu: np.clip(hu, -1000, None)),
        ("padded", lambda hu: np.pad(hu, ((0, 0), (9, 9), (9, 9), (0, 0)), constant_values=-2000)),
        ("padded far below", lambda hu: np.pad(hu, ((0, 0), (9, 9), (9, 9), (0, 0)), constant_values=-3024)),
        ("no air", lambda hu: hu[:, 28:36, 28:36]),
        ("metal", lambda hu: np.where(hu > 800, 30000, hu.astype(np.int32))),
        ("20 HU off", lambda hu: hu + 20.0),
    ],
)
def test_plausible_numbers_pass(patients: list[np.ndarray], what: str, change) -> None:
    assert not any(refused(change(hu)) for hu in patients), what


def test_lung_alone_is_no_miscalibrated_air() -> None:
    chance = np.random.default_rng(0)
    for middle, spread in ((-860, 70), (-780, 90), (-700, 120)):
        lung = chance.normal(middle, spread, (1, 40, 40, 40))
        lung[:, 10:20] = chance.normal(40, 15, lung[:, 10:20].shape)
        assert not refused(lung)


@pytest.mark.real
def test_real_ct_passes_and_raw_numbers_of_a_real_head_do_not(data_root: Path) -> None:
    names = ["example_ct.nii.gz", "example_ct_sm.nii.gz"]
    images = [read_nifti(data_root / "ct_bone_totalseg" / name).volume.array for name in names]
    assert not any(refused(image) for image in images)
    assert all(refused(np.clip(image, -1024, 3071) + 1024) for image in images)
    slices = [np.fromfile(path, "<u2")[-4096:] for path in (data_root / "ct_head_headsq" / "headsq").glob("quarter.*")]
    assert refused(np.stack(slices).reshape(1, -1, 64, 64))
