"""A NIfTI file with a time axis becomes one case for each step, named and noted as the volumes of a DICOM series are."""

import nibabel
import numpy as np

from bedside.core.identity import Identity
from bedside.ingest.pipeline import ingest, summary


def in_time(path, affine, arrays):
    image = nibabel.Nifti1Image(np.stack(arrays, axis=-1), affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def test_each_step_is_a_case_of_one_patient_with_its_own_mask(batch, config):
    steps = [batch.image(50), batch.image(51), batch.image(52)]
    in_time(batch.root / "images" / "perfusion.nii.gz", batch.affine, steps)
    for number in (1, 2, 3):
        batch.write("labels", f"perfusion#{number}", batch.mask())
    dataset = ingest(config, batch.root)
    found = {case.id: case for case in dataset.manifest.cases if case.patient.startswith("perfusion")}
    assert len(found) == 3
    assert len({case.patient for case in found.values()}) == 1, "they stay on one side of the split"
    loaded = {case.id: case for split in ("test", "development") for case in dataset.cases(split)}
    names = [Identity.of("keep").case(f"perfusion#{number}") for number in (1, 2, 3)]
    for step, name in zip(steps, names, strict=True):
        assert found[name].notes == ("SPLIT_BY_TIME",)
        assert np.array_equal(loaded[name].image.array[0], step)
    told = summary(dataset)
    assert (told.received, told.accepted, told.rejected) == (12, 12, {})
    assert ingest(config, batch.root) == dataset


def test_a_mask_with_a_time_axis_is_refused_by_name(batch, config):
    in_time(batch.root / "images" / "perfusion.nii.gz", batch.affine, [batch.image(50), batch.image(51)])
    in_time(batch.root / "labels" / "perfusion.nii.gz", batch.affine, [batch.mask(), batch.mask()])
    batch.write("images", "plain", batch.image(60))
    in_time(batch.root / "labels" / "plain.nii.gz", batch.affine, [batch.mask(), batch.mask()])
    told = summary(ingest(config, batch.root))
    assert told.rejected == {"LABEL_4D": 1, "LABEL_AMBIGUOUS": 2, "LABEL_MISSING": 1}
    assert told.received == told.accepted + sum(told.rejected.values()) + told.duplicates


def test_a_step_that_breaks_the_contract_leaves_the_others(batch, configure):
    without = {"images": "images", "identity": "keep"}
    steps = [batch.image(50).astype(np.float32), np.full(batch.shape, np.nan, np.float32)]
    in_time(batch.root / "images" / "perfusion.nii.gz", batch.affine, steps)
    config = configure(source={**without, "labels": None})
    dataset = ingest(config, batch.root)
    assert sum(case.patient == "perfusion" for case in dataset.manifest.cases) == 1
    told = summary(dataset)
    assert told.received == told.accepted + sum(told.rejected.values()) + told.duplicates
