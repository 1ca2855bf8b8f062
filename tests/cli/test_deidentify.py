"""The verb, as a user types it."""

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bedside.cli.app import application
from bedside.core.errors import UsageError
from bedside.core.identity import KEY_VARIABLE
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series

from .conftest import bedside

STUDY = "studies/hippocampus.yaml"
WAIVED = [
    "--set",
    "source.deidentify.faces=waive",
    "--set",
    "source.deidentify.faces_reason=phantom",
    "--set",
    "site.executor=inline",
]


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """One series of three slices, and the key."""
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test")
    values = np.random.default_rng(0).integers(0, 1000, (8, 8, 3)).astype(np.int16)
    folder = tmp_path / "scans"
    write_series(folder, Volume.of(values, np.eye(4)), identity=SeriesIdentity.of("ZQ4711", modality="MR"))
    return folder


def asked(*words: str) -> Result:
    """What the command says in this process."""
    return CliRunner().invoke(application(), ["deidentify", STUDY, *words, *WAIVED])


def test_a_folder_is_released_by_one_command(scans, tmp_path, repository):
    here = ["--folder", str(tmp_path / "study"), "--from", str(scans), "--to", str(tmp_path / "out")]
    done = bedside("deidentify", STUDY, *here, "--json", *WAIVED, cwd=repository)
    assert (done.code, done.json["written"], done.json["rejected"]) == (0, 3, {})
    assert "ZQ4711" not in done.out + done.err
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 3


def test_what_if_lists_every_action_without_values_and_writes_nothing(scans, tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    planned = asked("--folder", str(tmp_path / "study"), "--from", str(scans), "--what-if")
    assert planned.exit_code == 0
    assert "PatientID" in planned.stdout
    assert "pseudonym" in planned.stdout
    assert "ZQ4711" not in planned.stdout
    assert not (tmp_path / "study").exists()


def test_wrong_use_is_named(scans, tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    here = ["--folder", str(tmp_path / "study"), "--from", str(scans)]
    assert isinstance(asked(*here).exception, UsageError)
    monkeypatch.delenv(KEY_VARIABLE)
    refused = asked(*here, "--to", str(tmp_path / "out")).exception
    assert isinstance(refused, UsageError)
    assert refused.code == "NO_KEY"
