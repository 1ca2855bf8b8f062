"""A received file that begins like a file of another kind: its case and the ledger say so, unless the study expects TIFF."""

import numpy as np
import pytest

from bedside.core.identity import KEY_VARIABLE
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.deidentify import deidentify
from bedside.ingest.pipeline import ingest

STARTS = {"P0": b"", "P1": b"II*\0\x08\0\0\0", "P2": b"MZ\x90\0", "P3": b"\xca\xfe"}
SOURCE = {"images": "images", "labels": None, "identity": "keep"}
NOTES = {"P0": (), "P1": ("PREAMBLE_TIFF",), "P2": ("PREAMBLE_PE",), "P3": ("PREAMBLE_UNKNOWN",)}


@pytest.fixture
def export(tmp_path):
    """Four CT series; the first file of each begins as `STARTS` says."""
    for number, (patient, start) in enumerate(STARTS.items()):
        values = np.random.default_rng(number).integers(-1000, 1000, (8, 6, 5)).astype(np.int16)
        volume = Volume.of(values, np.diag([1.0, 1.5, 2.0, 1.0]))
        folder = tmp_path / "export" / "images" / str(number)
        path = write_series(folder, volume, identity=SeriesIdentity.of(patient, str(number)))[0]
        path.write_bytes(start.ljust(128, b"\0") + path.read_bytes()[128:])
    return tmp_path / "export"


def test_what_a_file_begins_with_stands_in_its_case_and_in_the_ledger(export, configure, events):
    config = configure(source=SOURCE)
    dataset = ingest(config, export)
    assert dataset.manifest.rejected == {}
    assert {case.patient: case.notes for case in dataset.manifest.cases} == NOTES
    names = {case.id: case.patient for case in dataset.manifest.cases}
    said = {names[event.facts["case"]]: event.facts.get("notes", []) for event in events(config, "case_accepted")}
    assert said == {patient: [*notes] for patient, notes in NOTES.items()}


def test_a_study_that_expects_tiff_files_has_a_note_of_the_others_only(export, configure):
    dataset = ingest(configure(source={**SOURCE, "tiff_preambles": True}), export)
    assert {case.patient: case.notes for case in dataset.manifest.cases} == {**NOTES, "P1": ()}


def test_de_identification_writes_zeros_and_the_ledger_says_what_was_there(export, configure, events, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test, 32 letters")
    config = configure(source={**SOURCE, "identity": "pseudonym"})
    deidentify(config, export, tmp_path / "out")
    written = [path.read_bytes()[:128] for path in (tmp_path / "out").rglob("*.dcm")]
    assert (len(written), {*written}) == (20, {bytes(128)})
    (event,) = events(config, "deidentified")
    assert event.facts["preambles"] == {"PE": 1, "TIFF": 1, "UNKNOWN": 1}
