"""Claims about series of reformats and projections: quarantined under a name of their own unless the study wants them."""

import numpy as np
import pydicom
import pytest

from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.cohort import write_phantom_cohort
from bedside.ingest.pipeline import ingest, summary
from bedside.ingest.propose import look_around
from bedside.ingest.propose_text import study_text

GRID = np.diag([-1.0, -1.5, 2.0, 1.0])


@pytest.fixture
def export(tmp_path):
    """Three series of 5 slices: originals, MPRs, and derived axial ones."""
    for number, kind in enumerate(("ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\SECONDARY\\MPR", "DERIVED\\PRIMARY\\AXIAL")):
        volume = Volume.of(np.random.default_rng(number).integers(-900, 900, (6, 5, 5)).astype(np.int16), GRID)
        for path in write_series(
            tmp_path / "export" / f"s{number}", volume, identity=SeriesIdentity.of(f"P{number}", f"{number}")
        ):
            dataset = pydicom.dcmread(path)
            dataset.ImageType = kind.split("\\")
            dataset.save_as(path)
    return tmp_path / "export"


@pytest.mark.parametrize(
    ("keep", "cases", "rejected", "notes"),
    [(None, 2, {"DCM_REFORMAT": 5}, [(), ("DERIVED",)]), (True, 3, {}, [(), ("DERIVED",), ("DERIVED",)])],
)
def test_reformats_are_quarantined_with_their_reason_unless_the_study_keeps_them(
    export, configure, refusals, keep, cases, rejected, notes
):
    source = {"images": ".", "labels": None, "identity": "keep", **({} if keep is None else {"keep_reformats": keep})}
    config = configure(source=source, split={"test": 0, "folds": 2})
    dataset = ingest(config, export)
    found = summary(dataset)
    assert (found.cases, found.rejected, found.received) == (cases, rejected, 15)
    assert sorted(case.notes for case in dataset.manifest.cases) == notes
    assert [one["code"] for one in refusals(config)] == list(rejected)


def test_a_proposed_study_says_how_many_files_are_reformats_and_how_to_keep_them(export):
    sight = look_around(export)
    assert (sight.volumes, sight.refused) == (2, {"DCM_REFORMAT": 5})
    assert "# keep_reformats: true   # 5 files are reformats" in study_text(sight)


def test_a_proposed_study_is_silent_about_reformats_where_there_are_none(tmp_path):
    assert "keep_reformats" not in study_text(look_around(write_phantom_cohort(tmp_path / "received", patients=2, seed=1)))
