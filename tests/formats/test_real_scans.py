"""Against dcm2niix's and dicom2nifti's answers on scans of five manufacturers (see the data's PROVENANCE)."""

import numpy as np
import pytest

from bedside.core.volume import farthest_corner_mm
from bedside.formats.dicom import read_folder
from bedside.formats.nifti import read_nifti

pytestmark = pytest.mark.real

READ = [
    "generic/anatomical/001",
    "generic/anatomical/002_non_isotropic",
    "generic/compressed/001",
    "generic/compressed_j2k/001",
    "generic/compressed_rle/001",
    "ge/anatomical/001",
    "philips/anatomical/001",
    "siemens/anatomical/001",
    "hitachi/anatomical/001",
]
REFUSED = {
    "generic/compressed_jpeg/001": "DCM_SYNTAX",  # no decoder for JPEG lossless is shipped
    "generic/compressed_jpegls/001": "DCM_SYNTAX",  # no decoder for JPEG-LS is shipped
    "generic/rgb/001": "DCM_MODALITY",  # colour secondary capture
    "ge/anatomical/001_single_slice": "SERIES_ONE_SLICE",
    "ge/fmri/001": "SERIES_DUPLICATE_POSITION",  # two time points in one series: no single volume
    "ge/dti/001": "SERIES_DUPLICATE_POSITION",  # several diffusion directions in one series
    "philips/fmri/001": "SERIES_DUPLICATE_POSITION",
    "philips/dti/001": "SERIES_DUPLICATE_POSITION",
    "philips_enhanced/anatomical/001": "DCM_MULTIFRAME",
    "siemens_multiframe/anatomical/001": "DCM_MULTIFRAME",
    "hyperfine/anatomical/001": "DCM_MULTIFRAME",
    "failing/gantrytilting/001": "SERIES_TILT",
    "failing/notavolume/001": "SERIES_DUPLICATE_POSITION",
    "failing/slicecount/001": "SERIES_TWO_SLICES",
    "failing/sliceincrement/001": "SERIES_MISSING_SLICE",
    "failing/sliceincrement/002": "SERIES_TILT",  # its increment is irregular too; the tilt is seen first
    "failing/sliceorientation/001": "SERIES_MIXED_ORIENTATION",
}


def test_every_series_of_the_collection_is_in_one_of_the_two_lists(data_root):
    root = data_root / "dicom_conversion_dev"
    assert {str(path.parent.relative_to(root)) for path in root.rglob("*.dcm")} == {*READ, *REFUSED}


@pytest.mark.parametrize("name", READ)
def test_a_series_equals_its_ground_truth_voxel_by_voxel(data_root, name):
    folder = data_root / "dicom_conversion_dev" / name
    (found,) = read_folder(folder).found
    truth = read_nifti(folder.with_name(folder.name + "_ground_truth.nii.gz")).volume.canonical()
    volume = found.volume.canonical()
    assert volume.shape == truth.shape
    assert np.abs(volume.affine - truth.affine).max() < 1e-3
    assert np.array_equal(volume.array, truth.array.astype(np.float32))


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_what_is_no_single_volume_is_refused_by_name(data_root, name, code):
    folder = data_root / "dicom_conversion_dev" / name
    reading = read_folder(folder)
    assert reading.found == ()
    assert {refused.code for refused in reading.refused} == {code}
    assert sum(len(refused.files) for refused in reading.refused) == len(list(folder.iterdir()))


def test_a_ct_series_with_wiped_uids_lies_where_its_segmentation_lies(data_root):
    folder = data_root / "ct_bone_totalseg"
    (found,) = read_folder(folder / "example_ct_dicom").found
    mask = read_nifti(folder / "example_seg_dicom.nii.gz").volume
    assert found.volume.canonical().shape == mask.canonical().shape
    assert farthest_corner_mm(found.volume.canonical(), mask.canonical()) < 1e-3
    assert found.volume.array.dtype == np.int16
    assert (found.volume.array.min(), found.volume.array.max()) == (-1024, 1839)


def test_every_case_of_the_hippocampus_study_is_read(data_root):
    files = sorted((data_root / "hippocampus_dev").glob("*/*.nii.gz"))
    assert len(files) == 398
    assert {read_nifti(path).volume.shape[0] for path in files} == {1}


def test_every_file_of_the_whole_collection_is_accounted_for(data_root):
    files = [path for path in (data_root / "deid_dev").rglob("*") if path.is_file()]
    reading = read_folder(files)
    named = [*reading.duplicates, *(p for f in reading.found for p in f.files), *(p for r in reading.refused for p in r.files)]
    assert sorted(named) == sorted(files)
