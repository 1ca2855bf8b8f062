"""Malformed files at the de-identifier: each is written clean or refused by name, and nothing is written elsewhere."""

import json
import random

import pytest
from tests.ingest.conftest import SECTIONS

from bedside.core.config import Config, Study
from bedside.core.digest import digest_bytes
from bedside.core.errors import InputRejected
from bedside.core.identity import KEY_VARIABLE, Identity
from bedside.core.site import Site
from bedside.core.workspace import Workspace
from bedside.formats.deidentify import Deidentifier
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_values import text
from bedside.ingest.deidentify import deidentify

from .corpus import corpus
from .corpus_structure import nested, with_nesting
from .dicom_bytes import ct_slice, element
from .test_corpus import COSTLY

SECRET = "a secret of this test, 32 letters"
PATIENT_NAME, PATIENT_ID, REMOVED = 0x00100010, 0x00100020, 0x00120062
RECEIVED = (b"ZQ^ZQ", b"ZQ01")


def sample(count):
    """The same specimens every time, no costly one and none too large to lie about often."""
    cheap = [one for one in corpus() if one.family not in COSTLY and sum(len(data) for _, data in one.files) < 1 << 18]
    return random.Random(0).sample(cheap, count)


def fault(engine, data):
    """What is not as it must be of one file, or "" where it was refused by name or written clean; any other error is raised."""
    try:
        done = engine.file(data)
    except InputRejected as refused:
        return "" if refused.code.isupper() and refused.sentence else "refused without a name"
    elements = Elements()
    walk(done.data, elements)
    told = {text(elements, PATIENT_NAME), text(elements, PATIENT_ID)}
    if told != {done.patient} or text(elements, REMOVED) != "YES":
        return "bears no pseudonym"
    return "identity is left" if any(one in done.data for one in RECEIVED) or any(done.data[:128]) else ""


def faults(specimens):
    engine = Deidentifier(Identity("pseudonym", SECRET.encode()))
    return [f"{one.label}: {said}" for one in specimens if (said := fault(engine, dict(one.files)[one.mutant]))]


def test_a_malformed_file_is_written_clean_or_refused_by_name():
    assert faults(sample(200)) == []


@pytest.mark.slow
def test_every_malformed_file_is_written_clean_or_refused_by_name():
    assert faults(corpus()) == []


@pytest.mark.parametrize("depth", [50, 64, 65, 66, 200, 1000, 20_000])
def test_what_the_walk_steps_over_is_entered_sixty_four_deep_and_no_deeper(depth):
    """Of implicit VR: the library knows by its tag that these bytes are a sequence."""
    engine = Deidentifier(Identity("pseudonym", SECRET.encode()))
    data = with_nesting(depth, "implicit")
    if depth <= 64:
        assert fault(engine, data) == ""
        return
    with pytest.raises(InputRejected) as refused:
        engine.file(data)
    assert refused.value.code == "DCM_DEPTH"


@pytest.mark.parametrize("depth", [1, 64, 65, 20_000])
def test_a_sequence_that_is_called_unknown_is_entered_as_deep_as_one_without_a_vr(depth):
    sound = ct_slice(1)
    at = next(end for tag, end in sound.ends() if tag == 0x00081090)
    unknown = element(0x00081140, "UN", nested(depth, "implicit")[8:])
    engine = Deidentifier(Identity("pseudonym", SECRET.encode()))
    data = sound.bytes()[:at] + unknown + sound.bytes()[at:]
    if depth <= 64:
        assert fault(engine, data) == ""
        assert b"\x08\0\x40\x11SQ" in engine.file(data).data
        return
    with pytest.raises(InputRejected) as refused:
        engine.file(data)
    assert refused.value.code == "DCM_DEPTH"


@pytest.mark.parametrize("depth", [65, 20_000])
def test_nothing_that_reads_enters_what_the_walk_steps_over(depth):
    """Therefore such a file is no danger at ingest: noise in place of the nested items changes nothing of what is read."""
    inside = nested(depth, "implicit")
    data = with_nesting(depth, "implicit")
    noise = inside[:8] + random.Random(depth).randbytes(len(inside) - 8)
    assert data.count(inside) == 1
    one, other = inspect(data), inspect(data.replace(inside, noise))
    assert one.series == other.series != ""
    assert vars(one.header) == vars(other.header)


def test_an_identity_that_is_left_would_be_found(monkeypatch):
    """The measuring itself, with an engine that does nothing."""
    sound = next(one for one in corpus() if one.expect == "sound" and one.mutant.endswith(".dcm"))
    data = dict(sound.files)[sound.mutant]

    class Idle:
        patient, data = "ZQ01", dict(sound.files)[sound.mutant]

    engine = Deidentifier(Identity("pseudonym", SECRET.encode()))
    monkeypatch.setattr(engine, "file", lambda _: Idle)
    assert fault(engine, data) == "bears no pseudonym"


def below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_a_folder_of_malformed_files_is_accounted_for_and_nothing_is_written_outside(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    monkeypatch.chdir(tmp_path)
    sections = {**SECTIONS, "source": {"images": "images", "labels": None, "identity": "pseudonym"}}
    config = Config(Study.model_validate(sections), Site(executor="inline"), Workspace(tmp_path / "study"))
    source, target = tmp_path / "received", tmp_path / "out"
    specimens = sample(60)
    for number, specimen in enumerate(specimens):
        specimen.write(source / str(number))
    before, received = below(tmp_path), sum(len(one.files) for one in specimens)
    digest, certificate = deidentify(config, source, target)
    assert certificate.received == received
    assert received == certificate.written + sum(certificate.rejected.values()) + certificate.duplicates
    assert {path.parts[0] for path in below(tmp_path) - before} == {"out", "study"}
    written = [path for path in target.rglob("*") if path.is_file()]
    table = json.loads((config.workspace.get(digest) / "files.json").read_bytes())
    assert len(table) == certificate.written
    digests = {digest_bytes(path.read_bytes()) for path in written}
    assert digests == set(table.values()), "received files that differ in identity only become one"
    assert not any(one in path.read_bytes() for path in written for one in RECEIVED)
