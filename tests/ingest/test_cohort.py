import numpy as np
import pytest

from bedside.core.errors import UsageError
from bedside.core.volume import Volume
from bedside.data.phantom import STRUCTURES, analytic, cohort
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.cohort import write_phantom_cohort
from bedside.ingest.pipeline import ingest

CONTRACT = {"modality": "CT", "spacing_mm": [1, 5], "value_range": [-1024, 3071], "unit": "HU", "labels": STRUCTURES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_phantom_cohort(tmp_path_factory.mktemp("cohort"), patients=5, seed=3)


def test_a_cohort_survives_dicom_and_ingest_voxel_by_voxel(folder, configure):
    dataset = ingest(configure(contract=CONTRACT), folder)
    manifest = dataset.manifest
    assert manifest.received == manifest.accepted == 5 * 41
    phantoms = {phantom.name: phantom for phantom in cohort(5, seed=3)}
    for split in ("test", "development"):
        for case in dataset.cases(split):
            phantom = phantoms.pop(case.id)
            assert case.patient == phantom.name
            assert case.scanner == phantom.scanner.name
            assert np.array_equal(case.image.array, phantom.image.array)
            assert np.array_equal(case.volumes["label"].array, phantom.label.array)
            assert np.allclose(case.image.affine, phantom.image.affine, atol=1e-9)
    assert phantoms == {}
    assert dataset.contract.structures == tuple(STRUCTURES)


def test_the_same_call_writes_the_same_bytes(folder, tmp_path):
    again = write_phantom_cohort(tmp_path / "new" / "place", patients=2, seed=3)
    files = [path.relative_to(again) for path in again.rglob("*") if path.is_file()]
    assert len(files) == 2 * 41
    assert all((again / path).read_bytes() == (folder / path).read_bytes() for path in files)


def test_a_cohort_of_nobody_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one patient"):
        write_phantom_cohort(tmp_path, patients=0, seed=1)


def test_voxels_are_where_they_were_after_dicom_and_ingest(received, configure):
    """Values encode their own position: 0.000 mm along every axis, through files with shuffled names."""
    turn = np.diag([-2.0, -2.0, 3.0, 1.0])
    turn[:3, 3] = 40, 30, -20
    for axis, weights in enumerate(np.eye(3)):
        position = analytic(turn, (7, 6, 5), per_mm=tuple(weights))
        folder = received.root / "images" / f"axis{axis}"
        volume = Volume.of(position.array[0].astype(np.int16), turn)
        paths = write_series(folder, volume, identity=SeriesIdentity.of(f"p{axis}"))
        for number, path in enumerate(paths):
            path.rename(folder / f"{(number * 3) % 5}-shuffled.dcm")
        received.write("labels", f"axis{axis}", (position.array[0] > 0).astype(np.uint8) * 7, turn)
    dataset = ingest(configure(), received.root)
    for split in ("test", "development"):
        for case in dataset.cases(split):
            weights = np.eye(3)[int(case.id[-1])]
            there = analytic(case.image.affine, case.image.shape[1:], per_mm=tuple(weights)).array
            assert np.abs(there - case.image.array).max() < 1e-9
            assert np.array_equal(case.volumes["label"].array > 0, there > 0)
