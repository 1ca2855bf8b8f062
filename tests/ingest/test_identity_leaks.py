"""Identity that came in is in no byte that goes out: files, names, indexes, ledgers, messages of commands and of errors (H1, P1).

What waits in quarantine is kept as it was received, by design; those bytes, and only those, are not searched.
"""

import base64
import json
import resource
import sys
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from bedside import cli
from bedside.core.config import Config, Study
from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_bytes
from bedside.core.errors import BedsideError
from bedside.core.identity import KEY_VARIABLE
from bedside.core.site import Site
from bedside.core.workspace import Workspace
from bedside.data.identities import UID_ROOT, Search, Seeds
from bedside.formats.identity_phantom import part10, slice_of
from bedside.formats.identity_received import write_export
from bedside.ingest.deidentify import deidentify
from bedside.ingest.pipeline import ingest

from .seeded_study import seeded_study

KEY = "a secret of this test, 32 letters"
STUDY = seeded_study("test")
SITE = "versioning: off\ntracking: off\nexecutor: inline\n"
AT_LEAST = 684
"""As many as the seeds of the comparison of tools that this proof follows."""


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A received folder in which everything carries seeds."""
    root = tmp_path_factory.mktemp("received")
    return root, write_export(root)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A study folder, its file, and the key."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "site.yaml").write_text(SITE)
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    return tmp_path


@pytest.fixture
def command(home, monkeypatch):
    """Run a command in this process; its exit code."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bedside", *map(str, words)])
        return cli.run()

    return run


def kept_as_received(folder):
    """Names of quarantined files: the SHA-256 of bytes that are kept as they came."""
    quarantine = folder / "quarantine"
    return frozenset(path.name for path in quarantine.iterdir() if path.name == digest_bytes(path.read_bytes()))


def test_the_search_finds_every_kind_of_seed_in_every_encoding():
    seeds = Seeds()
    for vr in ("LO", "PN", "UI", "DA", "DT", "DS", "AS", "OB", "UR", "UN"):
        value = seeds.value(vr)
        raw = value if isinstance(value, bytes) else value.encode()
        search = Search()
        search.bytes(b"x " + raw + b" y", vr)
        assert search.hits, vr
    token = seeds.text()[:6]
    for form in (
        token.lower().encode(),
        token.encode("utf-16-le"),
        token.encode("utf-16-be"),
        token[::-1].encode(),
        token.encode().hex().encode(),
        *(base64.b64encode(b"#" * lead + token.encode() + b" tail of it") for lead in range(3)),
    ):
        search = Search()
        search.bytes(form, "")
        assert search.hits, form
    picture = b"data:image/png;base64,"
    for inside in (token.encode(), b"ABC" + token.encode()[::-1]):
        search = Search()
        search.bytes(b'<img src="' + picture + base64.b64encode(b"\x89PNG" + inside) + b'">', "")
        assert search.hits, inside
    search = Search()
    search.bytes(picture + b"AAAA" + token[:6].encode() + b"AA", "")
    assert search.hits == [], "letters that stand for other bytes are no token"
    clean = Search()
    clean.bytes(bytes(range(256)) * 64, "")
    clean.text("quartz 1234 ZQ12 2.25.918731201 1.2.840.10008.1.2", "")
    assert clean.hits == []


def test_the_received_folder_is_full_of_seeds(export):
    root, written = export
    assert written.seeds >= AT_LEAST
    search = Search()
    search.folder(root)
    assert {"token", "UID", "date", "number", "age"} <= {hit.what for hit in search.hits}


def test_no_seed_is_in_any_byte_that_the_commands_write_or_say(export, home, command, capfd, caplog):
    root, _ = export
    assert command("ingest", home / "study.json", "--from", root, "--what-if") == 0
    assert command("ingest", home / "study.json", "--from", root) == 0
    assert command("ingest", home / "study.json", "--from", root, "--json") == 0
    assert command("deidentify", home / "study.json", "--from", root, "--to", home / "out") in {0, 3}
    folder = next((root / "images").rglob("*.dcm")).parent
    assert command("deidentify", home / "study.json", "--from", folder, "--what-if", "--json") == 0
    assert command("ingest", home / "study.json", "--from", root, "--set", "split.seed=1") == 0
    first, second = (path.name for path in (home / "test" / "store").iterdir() if (path / "manifest.json").is_file())
    assert command("datasets", home / "study.json") == 0
    assert command("datasets", home / "study.json", "--diff", first, second) == 0
    assert command("quality", home / "study.json") == 0
    assert command("init", root, "--out", home / "proposed" / "study.yaml") == 0
    assert command("verify", home / "study.json") == 0
    assert len(list((home / "out").rglob("*.dcm"))) >= 12
    search = Search()
    search.folder(home / "test", besides=kept_as_received(home / "test"))
    search.folder(home / "out")
    search.folder(home / "proposed")
    said = capfd.readouterr()
    search.text(said.out + said.err + caplog.text, "what was said")
    assert search.hits == []
    assert search.searched > 100


def test_nothing_is_told_by_an_error_at_any_stage(export, home, command, capfd, caplog):
    root, _ = export
    study = home / "study.json"
    image = next(path for path in (root / "images").rglob("*.dcm"))
    assert command("ingest", study, "--from", root, "--set", "contract.modality=MR") == 3
    assert command("ingest", study, "--from", root, "--set", "source.images=labels") == 2
    assert command("ingest", study, "--from", root, "--set", "source.clinical=nothing.csv") == 2
    assert command("ingest", study, "--from", image) == 2
    assert command("ingest", study, "--from", image.parent) == 2
    assert command("deidentify", study, "--from", image, "--to", home / "out") == 2
    assert command("deidentify", study, "--from", root, "--to", root / "images" / "inside") == 2
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        full = command("ingest", study, "--from", root), command("deidentify", study, "--from", root, "--to", home / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full == (6, 6)
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    search = Search()
    search.text(said.out + caplog.text, "what was said")
    search.text(said.err, "errors")
    for folder in (home / "test", home / "out"):
        if folder.exists():
            search.folder(folder, besides=kept_as_received(folder) if (folder / "quarantine").exists() else frozenset())
    assert search.hits == []


def test_every_seed_is_gone_whatever_the_options(export, tmp_path, monkeypatch, configure):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    kept = {"device": True, "institution": True, "safe_private": True, "descriptors": True}
    for number, (besides, options) in enumerate(
        [
            ("", Deidentification(dates="remove", patient_characteristics=False)),
            ("pqdi", Deidentification(**kept, faces="waive", faces_reason="test")),
        ]
    ):
        root, target = tmp_path / f"in{number}", tmp_path / f"out{number}"
        write_export(root, patients=1, besides=besides)
        config = configure(f"study{number}", source={**STUDY["source"], "deidentify": options.model_dump()})
        _, certificate = deidentify(config, root / "images", target)
        assert certificate.received == certificate.written + sum(certificate.rejected.values()) + certificate.duplicates
        assert certificate.written >= 3
        search = Search()
        search.folder(target)
        search.folder(config.workspace.folder, besides=kept_as_received(config.workspace.folder))
        assert search.hits == []


def test_a_text_of_an_error_never_quotes_what_came_in(export, configure, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    root, _ = export
    config = configure(**{**STUDY, "contract": {**STUDY["contract"], "modality": "MR"}})
    with pytest.raises(BedsideError) as caught:
        ingest(config, root)
    search = Search()
    error: BaseException | None = caught.value
    while error is not None:
        search.text(f"{error} {error!r}", "an error")
        error = error.__cause__
    assert search.hits == []


NASTY = [
    "../../etc/x",
    "/etc/passwd",
    "CON",
    "x" * 300,
    "\u202egnp",
    "a\nb",
    "%2e%2e",
    "\uff0f..",
    "..",
    "-rf",
    "=1+1",
    "a\\..\\b",
]


@pytest.fixture(scope="module")
def one_slice():
    seeds = Seeds()
    data = Dataset()
    data.PatientID, data.SOPInstanceUID = seeds.text(), str(seeds.value("UI"))
    slice_of(np.zeros((8, 8), np.int16), 0)(data)
    return part10(data, seeds)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    patient=st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), min_size=1, max_size=40) | st.sampled_from(NASTY),
    uid=st.from_regex(r"[0-9a-zA-Z./ ]{1,40}", fullmatch=True) | st.sampled_from(["../../evil", "/etc/passwd"]),
    words=st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), max_size=40) | st.sampled_from(NASTY),
)
@example(patient="../../evil", uid="../../evil", words="../../evil")
def test_no_string_of_a_header_becomes_a_path(one_slice, tmp_path_factory, patient, uid, words):
    """P1: whatever PatientID, UIDs and descriptions say, what is written lies below the target, under hashes."""
    root = tmp_path_factory.mktemp("nasty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(BytesIO(one_slice))
        data.PatientID, data.SeriesDescription, data.StudyDescription, data.StationName = patient, words, words, words
        data.StudyInstanceUID = data.SeriesInstanceUID = data.SOPInstanceUID = uid
        data.file_meta.MediaStorageSOPInstanceUID = uid
        (root / "in").mkdir()
        data.save_as(root / "in" / "one.dcm")
    before = set(root.rglob("*"))
    study = Study.model_validate({**STUDY, "source": {**STUDY["source"], "clinical": None}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, KEY)
        _, certificate = deidentify(Config(study, Site(), Workspace(root / "study")), root / "in", root / "out")
    assert certificate.received == 1
    for path in set(root.rglob("*")) - before:
        relative = path.relative_to(root)
        assert relative.parts[0] in {"study", "out"}
        if relative.parts[0] == "out":
            assert all(set(part) <= set("P0123456789abcdef.dcm") for part in relative.parts[1:])
    for path in (root / "out").rglob("*.dcm"):
        assert UID_ROOT.encode() not in path.read_bytes()
        assert Path(path).resolve().is_relative_to(root)
