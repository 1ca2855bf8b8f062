import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedside.core.errors import UsageError
from bedside.core.identity import KEY_VARIABLE, Identity
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest

KEEP = Identity("keep")
HIDE = Identity("pseudonym", b"a secret of this test")
NASTY = [
    "../../etc/x",
    "/etc/passwd",
    "a\0b",
    "CON",
    "x" * 300,
    "\u202egnp",
    "a\nb",
    "%2e%2e",
    "\uff0f..",
    "..",
    "",
    "-rf",
    "\ud800",
]
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


@settings(max_examples=500)
@given(st.text(alphabet=st.characters()) | st.sampled_from(NASTY))
@example("a\n")
def test_no_string_from_outside_becomes_a_path_that_escapes(received):
    root = Path("/srv/study")
    for identity in (KEEP, HIDE):
        for name in (identity.patient(received), identity.case(received)):
            assert SAFE.match(name)
            assert Path(os.path.normpath(root / name)).parent == root
        assert re.fullmatch("[0-9a-f]{64}", identity.hidden(received))


@given(st.text(), st.text())
def test_different_patients_stay_different_and_equal_ones_equal(first, second):
    for identity in (KEEP, HIDE):
        assert (identity.patient(first) == identity.patient(second)) == (first == second)


def test_harmless_names_are_kept_only_where_that_is_asked_for():
    assert KEEP.patient("hippocampus_001") == KEEP.case("hippocampus_001") == "hippocampus_001"
    assert re.fullmatch(r"P[0-9a-f]{16}", HIDE.patient("hippocampus_001"))
    assert re.fullmatch(r"C[0-9a-f]{16}", HIDE.case("hippocampus_001"))
    assert HIDE.case("x")[1:] != HIDE.patient("x")[1:]


def test_a_pseudonym_is_the_keyed_hash_that_is_documented():
    import hashlib
    import hmac

    expected = hmac.new(b"a secret of this test", b"Doe^Jane 1970", hashlib.sha256).hexdigest()[:16]
    assert HIDE.patient("Doe^Jane 1970") == "P" + expected


def test_another_key_gives_other_pseudonyms():
    assert Identity.of("pseudonym", {KEY_VARIABLE: "one" * 10}).patient("x") != Identity.of(
        "pseudonym", {KEY_VARIABLE: "two" * 10}
    ).patient("x")


@pytest.mark.parametrize("environment", [{}, {KEY_VARIABLE: ""}, {KEY_VARIABLE: "  "}])
def test_without_a_key_the_error_names_the_way_out(environment):
    with pytest.raises(UsageError, match=r"BEDSIDE_KEY.*source\.identity: keep") as caught:
        Identity.of("pseudonym", environment)
    assert caught.value.code == "NO_KEY"
    Identity.of("keep", environment)


def test_with_pseudonyms_no_name_from_outside_is_in_any_byte_below_the_study(received, configure, monkeypatch, capfd):
    """Seeds in file names and DICOM headers, through accepted, refused and repeated files."""
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test")
    grid = np.diag([-1.0, -1.5, 2.0, 1.0])
    for number in range(4):
        volume = Volume.of(received.image(number), grid)
        identity = SeriesIdentity.of(f"ZQPATIENT{number // 2}", str(number))
        write_series(received.root / "images" / f"ZQFOLDER{number}", volume, identity=identity)
        received.write("labels", f"ZQFOLDER{number}", received.mask(), grid)
    received.add("ZQFILE one", 5)
    received.add("ZQFILE two", 5)
    received.add("ZQFILE nan", 6, image=np.full(received.shape, np.nan, np.float32))
    received.write("labels", "ZQORPHAN", received.mask())
    config = configure(source={"images": "images", "labels": "labels", "identity": "pseudonym"}, split={"test": 0.3, "folds": 2})
    manifest = ingest(config, received.root).manifest
    assert (len(manifest.cases), manifest.duplicates, sum(manifest.rejected.values())) == (5, 2, 3)
    assert len({case.patient for case in manifest.cases}) == 3
    for path in config.workspace.folder.rglob("*"):
        assert "ZQ" not in str(path.relative_to(config.workspace.folder))
        if path.is_file() and path.parent != config.workspace.quarantine:
            assert b"ZQ" not in path.read_bytes(), path.name
    assert b"ZQ" not in (config.workspace.quarantine / "index.jsonl").read_bytes()
    assert capfd.readouterr() == ("", "")


def test_odd_file_names_are_ingested_under_derived_names(received, config):
    odd = [
        "..hidden",
        "a;rm -rf",
        "new\nline",
        "%2e%2e",
        "\u202egnp",
        "-rf",
        "x" * 200,
        "deep/er/still",
        os.fsdecode(b"\xff\xfe"),
    ]
    for number, name in enumerate(odd):
        received.add(name, number)
    manifest = ingest(config, received.root).manifest
    assert manifest.accepted == 2 * len(odd)
    written = json.dumps(manifest.model_dump(mode="json")) + config.workspace.ledger.path.read_text()
    assert not any(name in written for name in odd if name != "-rf")
    for path in config.workspace.folder.rglob("*"):
        assert SAFE.match(path.stem)


def test_two_cases_are_never_given_one_name(batch, config, refusals):
    batch.add("e e", 5)
    derived = KEEP.case("e e")
    batch.add(derived, 6)
    manifest = ingest(config, batch.root).manifest
    assert manifest.rejected == {"CASE_ID": 2}
    assert len({case.id for case in manifest.cases}) == len(manifest.cases) == 5


def test_the_key_is_in_no_text_that_shows_an_identity():
    """Such texts end in logs: of a Dask scheduler, or of a test that fails."""
    assert "secret" not in repr(HIDE)
    assert "secret" not in str([HIDE])
