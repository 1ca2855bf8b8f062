import pytest

from bedside.core.errors import InputRejected, UsageError
from bedside.formats.nifti import write_nifti
from bedside.formats.read import read


def test_a_series_folder_is_a_case_named_by_its_bytes(series, numbered, plain_affine, place_error_mm):
    folder = series(patient_id="SMITH", manufacturer="ACME")
    case = read(folder)
    assert place_error_mm(numbered(plain_affine()), case.image) < 1e-9
    assert case.id == case.patient
    assert len(case.id) == 16
    assert "SMITH" not in repr(case)
    assert case.scanner == "ACME"


def test_a_nifti_file_is_a_case(tmp_path, numbered, plain_affine):
    write_nifti(tmp_path / "a.nii.gz", numbered(plain_affine()).array[0], plain_affine())
    assert read(str(tmp_path / "a.nii.gz")).image.shape == (1, 4, 3, 5)


def test_a_refused_series_is_named_by_its_rule(series):
    folder = series()
    (folder / "slice-0003.dcm").unlink()
    (folder / "readme.txt").write_text("hello")
    with pytest.raises(InputRejected) as caught:
        read(folder)
    assert caught.value.code == "SERIES_MISSING_SLICE"


def test_a_folder_without_any_image_is_rejected(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(InputRejected):
        read(tmp_path)


def test_nothing_an_empty_folder_and_two_series_are_wrong_use(tmp_path, series):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(UsageError):
            read(path)
    series("in/a"), series("in/b")
    with pytest.raises(UsageError, match="2 series"):
        read(tmp_path / "in")
