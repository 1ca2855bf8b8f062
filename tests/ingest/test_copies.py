"""A folder that holds DICOM series and NIfTI copies of them says so, and keeps both."""

import numpy as np

from bedside.cli import show
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.copies import GRID_OF_A_SERIES
from bedside.ingest.pipeline import ingest, summary


def series(folder, number, array, affine):
    write_series(folder, Volume.of(array, affine), identity=SeriesIdentity.of(f"patient{number}", str(number)))


def test_a_copy_is_a_case_with_a_note_and_the_command_says_how_to_leave_one_out(received, configure, capsys):
    affine = np.diag([-1.0, -1.5, 2.0, 1.0])
    for number in range(4):
        series(received.root / "images" / f"scan{number}", number, received.image(number), affine)
    received.write("images", "copy", received.image(0)[::-1, ::-1], _turned(affine, received.shape))
    received.write("images", "moved", received.image(8), affine + np.array([[0, 0, 0, 0.5], *[[0] * 4] * 3]))
    dataset = ingest(configure(source={"images": "images", "labels": None, "identity": "keep"}), received.root)
    noted = {case.id: GRID_OF_A_SERIES in case.notes for case in dataset.manifest.cases}
    assert sum(noted.values()) == 1
    assert noted["copy"]
    assert summary(dataset).rejected == {}
    show.dataset(dataset)
    told = " ".join(capsys.readouterr().out.split())
    assert "1 of the cases: NIfTI files lie exactly where DICOM series" in told
    assert "datasets --drop" in told


def test_where_there_are_no_series_nothing_is_said(batch, config, capsys):
    show.dataset(ingest(config, batch.root))
    assert "NIfTI" not in capsys.readouterr().out


def _turned(affine, shape):
    """The affine of the array with its first two axes reversed."""
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = shape[0] - 1, shape[1] - 1
    return affine @ turn
