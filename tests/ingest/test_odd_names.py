"""Names of received files and folders are bytes that somebody chose: they go through every step, and none of them is repeated."""

import os
import sys

import numpy as np
import pytest

from bedside import cli
from bedside.core.identity import KEY_VARIABLE
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.deidentify import deidentify
from bedside.ingest.pipeline import ingest, plan
from bedside.ingest.quality import measure_quality
from bedside.ingest.quality_report import write_quality

ODD = {
    "no UTF-8": b"quill\xff\xfe\x80",
    "255 bytes": b"quill" + b"x" * 243,
    "newline": b"quill\n\r[31m\nINFO quill",
    "escape": b"quill\x1b[2J\x1b]0;t\x07",
    "bidi": "quill\u202egnp\u200b".encode(),
    "formula": b"=quill()+'\"<b>&",
}


def odd(folder, name, suffix=b""):
    """A path below a folder whose last part is these bytes."""
    return folder / os.fsdecode(name + suffix)


@pytest.fixture
def export(received):
    """Every odd name as that of an image and its mask, of a damaged image, and of a folder with a series in it."""
    for number, name in enumerate(ODD.values()):
        received.add("plain", number)
        for folder in ("images", "labels"):
            received.path(folder, "plain").rename(odd(received.root / folder, name, b".nii.gz"))
        odd(received.root / "images", name).mkdir()
        odd(odd(received.root / "images", name), name, b".dcm").write_bytes(b"\0" * 128 + b"DICM and no more" + bytes([number]))
    return received


def everything_below(folder):
    for path in folder.rglob("*"):
        yield os.fsencode(path.relative_to(folder))
        if path.is_file():
            yield path.read_bytes()


@pytest.mark.parametrize("identity", ["pseudonym", "keep"])
def test_odd_names_are_ingested_quarantined_and_reported_on(export, configure, monkeypatch, capfd, identity):
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test, 32 letters")
    config = configure(source={"images": "images", "labels": "labels", "identity": identity})
    planned = plan(config, export.root)
    dataset = ingest(config, export.root)
    manifest = dataset.manifest
    assert (manifest.received, manifest.accepted) == (3 * len(ODD), 2 * len(ODD)), manifest.rejected
    assert (planned.received, planned.accepted) == (manifest.received, manifest.accepted)
    assert sum(manifest.rejected.values()) == len(ODD)
    assert ingest(config, export.root).digest == dataset.digest
    for case in manifest.cases:
        assert set(case.id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"), case.id
        assert len(case.id) <= 255
    write_quality(measure_quality(dataset), dataset)
    said = capfd.readouterr()
    assert "quill" not in said.out + said.err
    if identity == "pseudonym":
        assert not [one for one in everything_below(config.workspace.folder) if b"quill" in one]


def test_odd_names_are_de_identified(tmp_path, configure, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test, 32 letters")
    for number, name in enumerate(ODD.values()):
        values = np.random.default_rng(number).integers(-1000, 1000, (5, 4, 3)).astype(np.int16)
        series = Volume.of(values, np.diag([1.0, 1.0, 2.0, 1.0]))
        paths = write_series(tmp_path / "made", series, identity=SeriesIdentity.of(f"P{number}", str(number)))
        folder = odd(tmp_path / "in", name)
        folder.mkdir(parents=True)
        for index, path in enumerate(paths):
            path.rename(odd(folder, name[:-2] + b"%d" % index))
        odd(folder, b"bad", name[:250]).write_bytes(b"damaged %d" % number)
    config = configure(source={"images": "images", "identity": "pseudonym"})
    _, certificate = deidentify(config, tmp_path / "in", tmp_path / "out")
    assert (certificate.received, certificate.written) == (4 * len(ODD), 3 * len(ODD)), certificate.rejected
    for folder in (tmp_path / "out", config.workspace.folder):
        assert not [one for one in everything_below(folder) if b"quill" in one]


@pytest.mark.parametrize("name", ["no UTF-8", "newline"])
def test_a_folder_of_an_odd_name_is_taken_and_a_missing_one_is_told_without_it(
    batch, tmp_path, study_file, monkeypatch, capfd, name
):
    place = odd(tmp_path, ODD[name])
    batch.root.rename(place)
    site = [word for key in ("executor=inline", "versioning=off", "tracking=off") for word in ("--set", f"site.{key}")]
    words = ["bedside", "ingest", str(study_file), "--folder", str(tmp_path / "study"), *site, "--from"]
    monkeypatch.setattr(sys, "argv", [*words, str(place)])
    assert cli.run() == 0
    monkeypatch.setattr(sys, "argv", [*words, str(place / "missing")])
    assert cli.run() == 2
    said = capfd.readouterr()
    assert "quill" not in said.out + said.err
