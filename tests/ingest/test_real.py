import time

import numpy as np
import pytest

from bedside.ingest.pipeline import ingest, plan, summary

CONTRACT = {"modality": "MR", "spacing_mm": [0.5, 2.0], "labels": {"background": 0, "anterior": 1, "posterior": 2}}


@pytest.mark.real
def test_the_hippocampus_study_is_ingested_whole_and_in_seconds(data_root, configure):
    config = configure(contract=CONTRACT, split={"test": 0.2, "folds": 5, "seed": 0})
    source = data_root / "hippocampus_dev"
    start = time.process_time()
    dataset = ingest(config, source)
    seconds = time.process_time() - start
    assert seconds < 20
    found = summary(dataset)
    assert (found.cases, found.patients, found.received, found.accepted) == (199, 199, 398, 398)
    assert found.rejected == {}
    assert found.duplicates == 0
    sizes = [len(dataset.splits.test), *(len(fold) for fold in dataset.splits.folds)]
    assert sizes == [40, 32, 32, 32, 32, 31]
    assert dataset.contract.structures == ("background", "anterior", "posterior")
    case = dataset.cases("development")[0]
    assert set(np.unique(case.volumes["label"].array)) == {0, 1, 2}
    start = time.process_time()
    assert ingest(config, source) == dataset
    assert time.process_time() - start < seconds
    assert plan(config, source) == found


@pytest.mark.real
def test_a_mask_that_a_converter_flipped_fits_its_dicom_series(data_root, configure, tmp_path):
    """The mask is stored in another axis order than the series; both lie in the same place in space."""
    ct = data_root / "ct_bone_totalseg"
    (tmp_path / "ct" / "images" / "one").mkdir(parents=True)
    (tmp_path / "ct" / "labels").mkdir()
    for path in (ct / "example_ct_dicom").iterdir():
        (tmp_path / "ct" / "images" / "one" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "ct" / "labels" / "one.nii.gz").write_bytes((ct / "example_seg_dicom.nii.gz").read_bytes())
    labels = {f"structure{code}": code for code in range(118)}
    contract = {"modality": "CT", "spacing_mm": [0.5, 10.0], "value_range": [-2048, 4096], "labels": labels}
    found = plan(configure(contract=contract), tmp_path / "ct")
    assert found.rejected == {}
    assert found.cases == 1
