import numpy as np
import pydicom
import pytest

from bedside.core.errors import InputRejected, UsageError
from bedside.core.ports import InlineExecutor
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.nifti import write_nifti
from bedside.predict.read import read

from .conftest import crop

HERE = InlineExecutor()


@pytest.fixture
def series(tmp_path):
    """A series folder of a patient."""

    def written(name="series", patient="SMITH"):
        write_series(tmp_path / name, crop(0), identity=SeriesIdentity.of(patient))
        return tmp_path / name

    return written


def test_a_series_folder_is_a_case_named_by_its_bytes_and_decoded_in_a_child(series):
    case = read(series())
    np.testing.assert_array_equal(case.image.array, crop(0).array)
    np.testing.assert_allclose(case.image.affine, crop(0).affine, atol=1e-4)
    assert case.id == case.patient
    assert len(case.id) == 16
    assert "SMITH" not in repr(case)


def test_a_nifti_file_is_a_case_and_nothing_is_read_later(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", crop(0).array[0], crop(0).affine)
    case = read(str(tmp_path / "a.nii.gz"), executor=HERE)
    assert case.image.shape == crop(0).shape
    (tmp_path / "a.nii.gz").unlink()
    np.testing.assert_array_equal(case.image.array, crop(0).array)


def test_a_refused_series_is_named_by_its_rule(series):
    folder = series()
    sorted(folder.iterdir())[3].unlink()
    (folder / "readme.txt").write_text("hello")
    with pytest.raises(InputRejected) as caught:
        read(folder, executor=HERE)
    assert caught.value.code == "SERIES_MISSING_SLICE"


def test_a_folder_without_any_image_is_rejected(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(InputRejected):
        read(tmp_path, executor=HERE)


def test_nothing_an_empty_folder_and_two_series_are_wrong_use(tmp_path, series):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(UsageError):
            read(path, executor=HERE)
    series("in/a"), series("in/b", "JONES")
    with pytest.raises(UsageError, match="2 series"):
        read(tmp_path / "in", executor=HERE)


def test_a_nifti_file_among_others_is_not_guessed_at(tmp_path):
    write_nifti(tmp_path / "in.nii", crop(0).array[0], crop(0).affine)
    (tmp_path / "in").mkdir()
    (tmp_path / "in.nii").rename(tmp_path / "in" / "a.nii")
    with pytest.raises(InputRejected) as caught:
        read(tmp_path / "in", executor=HERE)
    assert caught.value.code == "NII_IN_FOLDER"


def test_a_series_of_reformats_is_read_when_that_is_asked_for(series):
    folder = series()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.ImageType = ["DERIVED", "SECONDARY", "MPR"]
        dataset.save_as(path)
    with pytest.raises(InputRejected) as caught:
        read(folder, executor=HERE)
    assert caught.value.code == "DCM_REFORMAT"
    np.testing.assert_array_equal(read(folder, keep_reformats=True, executor=HERE).image.array, crop(0).array)
