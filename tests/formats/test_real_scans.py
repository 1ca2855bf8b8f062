"""Against dcm2niix's and dicom2nifti's answers on scans of five manufacturers (see the data's PROVENANCE)."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.core.volume import farthest_corner_mm
from bedside.formats.dicom import read_folder
from bedside.formats.nifti import read_nifti

pytestmark = pytest.mark.real

SAID = {
    "failing/gantrytilting/001": "1 volume TILT_CORRECTED",
    "failing/notavolume/001": "SERIES_DUPLICATE_POSITION",
    "failing/slicecount/001": "SERIES_TWO_SLICES",
    "failing/sliceincrement/001": "SERIES_MISSING_SLICE",
    "failing/sliceincrement/002": "SERIES_MISSING_SLICE",
    "failing/sliceorientation/001": "SERIES_MIXED_ORIENTATION",
    "ge/anatomical/001": "1 volume",
    "ge/anatomical/001_single_slice": "SERIES_ONE_SLICE",
    "ge/dti/001": "2 volumes SPLIT_BY_DIFFUSION",
    "ge/fmri/001": "2 volumes SPLIT_BY_NUMBER",
    "generic/anatomical/001": "1 volume",
    "generic/anatomical/002_non_isotropic": "1 volume",
    "generic/compressed/001": "1 volume",
    "generic/compressed_j2k/001": "1 volume",
    "generic/compressed_jpeg/001": "1 volume",
    "generic/compressed_jpegls/001": "1 volume",
    "generic/compressed_rle/001": "1 volume",
    "generic/rgb/001": "DCM_SECONDARY_CAPTURE",
    "hitachi/anatomical/001": "1 volume",
    "hyperfine/anatomical/001": "1 volume",
    "philips/anatomical/001": "1 volume",
    "philips/dti/001": "SERIES_TWO_SLICES",
    "philips/fmri/001": "SERIES_TWO_SLICES",
    "philips_enhanced/anatomical/001": "1 volume",
    "siemens/anatomical/001": "1 volume",
    "siemens_multiframe/anatomical/001": "1 volume",
}


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/real_scanners.py, which prints the table that is asked about here."""
    name = "real_scanners"
    place = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def rows(benchmark, data_root):
    """The whole table, by series."""
    return {row.name: row for row in benchmark.table(data_root / "dicom_conversion_dev")}


def test_every_series_of_the_collection_is_in_the_table(rows):
    assert set(rows) == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_series_is_read_or_refused_by_name(rows, name):
    assert " ".join([rows[name].ours, *rows[name].notes]) == SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_a_series_equals_its_reference_and_dcm2niix_or_the_difference_has_a_reason(rows, name):
    row = rows[name]
    assert row.reference is None or row.reference.equal or row.reasons[0]
    assert row.peer.equal or row.reasons[1]


def test_a_reason_is_given_only_where_something_differs(benchmark, rows):
    for name, (reference, peer) in benchmark.REASONS.items():
        assert bool(reference) == bool(rows[name].reference is not None and not rows[name].reference.equal), name
        assert bool(peer) == (not rows[name].peer.equal), name


def test_what_is_refused_is_refused_with_every_file(data_root):
    for name, said in SAID.items():
        folder = data_root / "dicom_conversion_dev" / name
        reading = read_folder(folder)
        taken = {path for found in reading.found for path in found.files}
        left = [path for refused in reading.refused for path in refused.files]
        assert sorted([*taken, *left, *reading.duplicates]) == sorted(folder.iterdir()), said


def test_a_real_tilted_series_stands_where_dcm2niix_puts_it_and_knows_the_scanners_grid(rows, data_root):
    assert rows["failing/gantrytilting/001"].peer.affine_mm < 1e-3
    (found,) = read_folder(data_root / "dicom_conversion_dev" / "failing/gantrytilting/001").found
    assert (found.volume.shape, found.frame.shape) == ((1, 512, 521, 4), (512, 512, 4))
    axes = found.volume.affine[:3, :3] / np.linalg.norm(found.volume.affine[:3, :3], axis=0)
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-6


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
