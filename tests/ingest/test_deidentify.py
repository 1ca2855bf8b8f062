"""The step on folders: counts add up, names are hashes, a second run changes nothing, and the certificate says what was done."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.core.custody import verify
from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected, UsageError
from bedside.core.identity import KEY_VARIABLE, Identity
from bedside.core.ports import Lost
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.certificate import load
from bedside.ingest.deidentify import deidentify, plan
from bedside.ingest.pipeline import ingest
from bedside.ingest.quarantine import Quarantine

SECRET = "a secret of this test"
HASHED = re.compile(r"P[0-9a-f]{16}/[0-9a-f]{32}/[0-9a-f]{32}/[0-9a-f]{32}\.dcm\Z")


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, SECRET)


@pytest.fixture
def scans(tmp_path):
    """Two patients of three slices, one slice twice, one damaged file, and one that is no DICOM."""
    root = tmp_path / "zqward"
    for number, patient in enumerate(("ZQFIRST", "ZQSECOND")):
        values = np.random.default_rng(number).integers(-1000, 1000, (1, 8, 8, 3)).astype(np.int16)
        volume = Volume.of(values[0], np.diag([-1.0, -1.0, 2.0, 1.0]))
        write_series(root / patient, volume, identity=SeriesIdentity.of(patient, "1", manufacturer="ACME"))
    first = root / "ZQFIRST" / "slice-0001.dcm"
    (root / "ZQcopy.dcm").write_bytes(first.read_bytes())
    (root / "ZQcut.dcm").write_bytes(first.read_bytes()[:700])
    (root / "ZQreadme.txt").write_text("ZQ")
    return root


@pytest.fixture
def hospital(configure):
    """A study that shows pseudonyms."""
    return configure(source={"images": "images", "labels": None, "identity": "pseudonym"})


def listed(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_received_file_is_written_refused_or_a_duplicate(scans, hospital, tmp_path):
    digest, certificate = deidentify(hospital, scans, tmp_path / "out")
    assert (certificate.received, certificate.written, certificate.duplicates) == (9, 6, 1)
    assert certificate.rejected == {"DCM_NOT_DICOM": 1, "DCM_TRUNCATED": 1}
    assert certificate.received == certificate.written + sum(certificate.rejected.values()) + certificate.duplicates
    assert (certificate.patients, certificate.studies, certificate.series) == (2, 2, 2)
    assert len([p for p in hospital.workspace.quarantine.iterdir() if p.name != "index.jsonl"]) == 2
    assert load(hospital.workspace, digest) == certificate


def test_names_are_hashes_and_nothing_received_is_in_any_name_or_byte(scans, hospital, tmp_path, capfd):
    deidentify(hospital, scans, tmp_path / "out")
    written = listed(tmp_path / "out")
    assert len(written) == 6
    assert all(HASHED.match(name) for name in written)
    for name, data in {**written, **listed(hospital.workspace.folder)}.items():
        assert "zq" not in name.lower()
        assert b"ZQ" not in data or name.startswith("quarantine/")
    assert capfd.readouterr() == ("", "")


def test_a_second_run_leaves_the_same_bytes_and_gives_the_same_certificate(scans, hospital, tmp_path):
    first, _ = deidentify(hospital, scans, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    next(iter(before)).unlink()
    second, _ = deidentify(hospital, scans, tmp_path / "out")
    assert second == first
    assert sum(event.action == "deidentified" for event in hospital.workspace.ledger.events()) == 1
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.dcm")}
    assert after.keys() == before.keys()
    assert sum(after[path] != before[path] for path in before) == 1


def test_what_was_written_can_be_deidentified_again_without_change(scans, hospital, tmp_path):
    deidentify(hospital, scans, tmp_path / "out")
    deidentify(hospital, tmp_path / "out", tmp_path / "again")
    assert listed(tmp_path / "again") == listed(tmp_path / "out")


def test_the_certificate_is_in_the_chain_of_custody(scans, hospital, tmp_path):
    digest, certificate = deidentify(hospital, scans, tmp_path / "out")
    event = hospital.workspace.ledger.last("deidentified")
    assert event.outputs == {"certificate": digest}
    assert event.facts["written"] == 6
    assert certificate.key_id == Identity.of("pseudonym").key_id
    assert SECRET not in json.dumps(certificate.model_dump(mode="json"))
    assert certificate.codes == ("113100", "113107", "113108")
    assert {one.keyword for one in certificate.actions} >= {"PatientID", "StudyInstanceUID"}
    assert verify(hospital.workspace, digest).checked == 1


def test_what_if_counts_the_same_and_writes_nothing(scans, hospital):
    planned = plan(hospital, scans)
    assert (planned.received, planned.would_write, planned.duplicates) == (9, 6, 1)
    assert planned.would_reject == {"DCM_NOT_DICOM": 1, "DCM_TRUNCATED": 1}
    assert "ZQ" not in str(planned)
    assert not hospital.workspace.quarantine.exists()
    assert not hospital.workspace.exists()


def test_a_lost_worker_costs_its_own_file_only(scans, hospital, tmp_path):
    class Losing:
        def map(self, function, items):
            for item in items:
                yield Lost("died") if item.name == "slice-0002.dcm" else function(item)

    _, certificate = deidentify(hospital, scans, tmp_path / "out", executor=Losing())
    assert certificate.rejected["LOST_DIED"] == 2
    assert certificate.written == 4


def test_two_files_of_one_instance_uid_are_not_written_over_each_other(scans, hospital, tmp_path):
    path = scans / "ZQFIRST" / "slice-0001.dcm"
    other = bytearray(path.read_bytes())
    other[-1] ^= 1
    (scans / "ZQtwin.dcm").write_bytes(other)
    planned = plan(hospital, scans)
    _, certificate = deidentify(hospital, scans, tmp_path / "out")
    assert certificate.rejected["SERIES_UID_CONFLICT"] == 1
    assert (planned.would_reject, planned.would_write) == (certificate.rejected, certificate.written)


@pytest.mark.parametrize("where", ["zqward", "zqward/out", "."])
def test_source_and_target_do_not_lie_in_each_other(scans, hospital, tmp_path, where):
    with pytest.raises(UsageError) as caught:
        deidentify(hospital, scans, tmp_path / where)
    assert caught.value.code == "NO_TARGET"


def test_a_missing_source_or_key_is_wrong_use(hospital, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such folder"):
        plan(hospital, tmp_path / "nowhere")
    monkeypatch.setenv(KEY_VARIABLE, "too short")
    with pytest.raises(UsageError) as caught:
        plan(hospital, tmp_path)
    assert caught.value.code == "KEY_SHORT"


def test_a_face_is_refused_unless_it_is_waived_with_a_reason(scans, configure, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["bedside.ingest.deidentify"], "recognizable", lambda _elements: True)
    source = {"images": "images", "labels": None, "identity": "pseudonym"}
    config = configure(source=source)
    with pytest.raises(InputRejected, match="7 RECOGNIZABLE_FACE") as caught:
        deidentify(config, scans, tmp_path / "out")
    assert caught.value.code == "NOTHING_WRITTEN"
    assert [one.code for one in Quarantine(config.workspace.quarantine).refusals()].count("RECOGNIZABLE_FACE") == 6
    assert config.workspace.ledger.last("deidentified") is None
    waiver = Deidentification(faces="waive", faces_reason="ethics vote 12").model_dump(mode="json")
    _, waived = deidentify(configure(source={**source, "deidentify": waiver}), scans, tmp_path / "out")
    assert (waived.written, waived.faces_waived) == (6, 6)
    assert waived.options.faces_reason == "ethics vote 12"


def test_an_empty_folder_gives_no_certificate(hospital, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputRejected) as caught:
        deidentify(hospital, tmp_path / "empty", tmp_path / "out")
    assert caught.value.code == "NO_FILES"


@pytest.mark.real
def test_real_files_with_invented_identities_lose_them(data_root, hospital, tmp_path):
    _, certificate = deidentify(hospital, data_root / "deid_dev", tmp_path / "out")
    assert certificate.received == certificate.written + sum(certificate.rejected.values()) + certificate.duplicates
    assert certificate.written >= 100
    assert set(certificate.rejected) <= {
        "DCM_NOT_DICOM", "DCM_TRUNCATED", "PHI_PIXELS", "RECOGNIZABLE_FACE", "SERIES_UID_CONFLICT", "PHI_PATIENT"
    }  # fmt: skip
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")).lower()
    for name in (b"simpson", b"springfield", "山田".encode(), "洪".encode(), "Люксембург".lower().encode()):
        assert name not in everything


def test_a_de_identified_export_is_ingested_under_the_pseudonyms_it_bears(tmp_path, configure, monkeypatch):
    for number in range(6):
        values = np.random.default_rng(number).integers(-1000, 1000, (8, 8, 5)).astype(np.int16)
        volume = Volume.of(values, np.diag([-1.0, -1.0, 2.0, 1.0]))
        write_series(tmp_path / "raw" / str(number), volume, identity=SeriesIdentity.of(f"ZQ{number}", manufacturer="ACME"))
    config = configure(source={"images": ".", "labels": None, "identity": "pseudonym"})
    raw = ingest(config, tmp_path / "raw").manifest
    deidentify(config, tmp_path / "raw", tmp_path / "clean")
    released = ingest(config, tmp_path / "clean").manifest
    assert {case.patient for case in released.cases} == {case.patient for case in raw.cases}
    assert len(released.cases) == len(raw.cases) == 6
    monkeypatch.setenv(KEY_VARIABLE, "another secret of a test")
    elsewhere = ingest(config, tmp_path / "clean").manifest
    assert not {case.patient for case in elsewhere.cases} & {case.patient for case in raw.cases}
