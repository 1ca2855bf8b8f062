"""Releases and mask rules of the study count at ingest, are noted on the case, and make another dataset."""

import numpy as np
import pydicom
import pytest

from bedside.core.digest import digest_file
from bedside.core.errors import InputRejected
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest, plan

SHAPE = (8, 6, 5)
RULE = {"modality": "CT", "rows": 6, "columns": 8, "boxes": [[0, 0, 7, 1]]}


def source(**decided):
    return {"images": "images", "labels": None, "identity": "keep", "deidentify": decided}


@pytest.fixture
def export(tmp_path):
    """Four CT series that say that names are burned into them."""
    folder = tmp_path / "export"
    for number in range(4):
        values = np.random.default_rng(number).integers(-1000, 1000, SHAPE).astype(np.int16)
        series = Volume.of(values, np.diag([1.0, 1.5, 2.0, 1.0]))
        for path in write_series(folder / "images" / str(number), series, identity=SeriesIdentity.of(f"P{number}", str(number))):
            dataset = pydicom.dcmread(path)
            dataset.BurnedInAnnotation = "YES"
            dataset.save_as(path)
    return folder


def test_nothing_decided_refuses_all(export, configure):
    with pytest.raises(InputRejected, match="20 PHI_PIXELS"):
        ingest(configure(source=source()), export)


def test_what_was_decided_counts_and_makes_another_dataset(export, configure):
    released = [digest_file(path) for path in export.rglob("*.dcm")]
    one = ingest(configure("one", source=source(released=released)), export)
    two = ingest(configure("two", source=source(masks=[RULE])), export)
    three = ingest(configure("three", source=source(masks=[{**RULE, "boxes": [[0, 0, 7, 0]]}])), export)
    assert len({one.digest, two.digest, three.digest}) == 3
    assert {case.notes for case in one.manifest.cases} == {("PIXELS_RELEASED",)}
    assert {case.notes for case in two.manifest.cases} == {("PIXELS_MASKED",)}
    for dataset in (one, two):
        assert (dataset.manifest.received, dataset.manifest.accepted, dataset.manifest.rejected) == (20, 20, {})
    for whole, masked in zip(one.cases("development"), two.cases("development"), strict=True):
        before, after = whole.volumes["image"].array[0], masked.volumes["image"].array[0]
        changed = np.argwhere(before != after)
        assert len(changed) > 0.9 * 8 * 2 * SHAPE[2]
        assert len(changed) <= 8 * 2 * SHAPE[2]


def test_a_decision_that_changes_is_not_taken_for_the_one_before(export, configure):
    released = [digest_file(path) for path in export.rglob("*.dcm")]
    first = ingest(configure(source=source(released=released)), export)
    again = configure(source=source(released=released, masks=[RULE]))
    assert plan(again, export).dataset == ""
    assert ingest(again, export).digest != first.digest
    added = plan(configure(source=source(masks=[RULE])), export, add=True)
    assert added.duplicates == 20, "the same boxes"
    added = plan(configure(source=source(masks=[{**RULE, "boxes": [[0, 0, 3, 3]]}])), export, add=True)
    assert (added.accepted, added.rejected, added.duplicates) == (0, {"CASE_ID": 20}, 0)
