"""The answer key passes what is right and fails what is wrong, missing or let through; our engine passes all of it."""

import shutil
from collections import Counter

import pytest
from pydicom import dcmread

from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.burned_in import examine
from bedside.formats.deidentify import Deidentifier
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.identity_answers import KINDS, score
from bedside.formats.identity_studies import OPTIONS, write_studies

FILES_OF_A_PATIENT = 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The key, and what our engine writes for it."""
    root = tmp_path_factory.mktemp("studies")
    answers = write_studies(root / "in", patients=2)
    engine = Deidentifier(Identity("pseudonym", b"a secret of this test, 32 letters"), OPTIONS)
    written = {}
    for number, answer in enumerate(answers):
        data, elements = answer.path.read_bytes(), Elements()
        walk(data, elements)
        examined = examine(data, elements, OPTIONS)
        if examined.refusal is not None:
            assert isinstance(examined.refusal, InputRejected)
            continue
        done = engine.file(examined.data, pixels_cleaned=bool(examined.masked), burned_in=examined.burned_in)
        written[answer.path] = root / f"{number}.dcm"
        written[answer.path].write_bytes(done.data)
    return answers, written


def test_our_engine_passes_every_check_of_every_kind(cohort):
    answers, written = cohort
    assert len(answers) == 2 * FILES_OF_A_PATIENT
    result = score(answers, written)
    assert dict(result.failures) == {}
    assert result.share == 1.0
    assert set(result.made) == set(KINDS)
    assert result.made.total() > 2000


def test_a_masked_file_says_that_nothing_is_burned_in_any_more(cohort):
    answers, written = cohort
    (path, *_) = [answer.path for answer in answers if answer.boxes]
    after = dcmread(written[path])
    assert after.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in after.DeidentificationMethodCodeSequence]


def test_a_missing_file_fails_all_its_checks(cohort):
    answers, _ = cohort
    result = score(answers, {})
    documents = sum(len(answer.gone) for answer in answers if not answer.comes_out)
    assert result.passed == Counter(text_removed=documents)
    assert result.made.total() > documents


def test_files_that_pass_through_unchanged_fail_what_asks_for_change(cohort):
    answers, _ = cohort
    result = score(answers, {answer.path: answer.path for answer in answers})
    for kind in ("text_removed", "date_shifted", "uid_changed", "patid_consistent", "pixels_hidden"):
        assert result.passed[kind] == 0, kind
    assert result.passed["tag_retained"] == result.made["tag_retained"]
    assert result.passed["pixels_retained"] == result.made["pixels_retained"]


@pytest.mark.parametrize(
    ("kind", "keyword", "value"),
    [
        ("tag_retained", "Modality", "XX"),
        ("text_notnull", "SOPInstanceUID", ""),
        ("text_retained", "StudyDescription", "CT"),
        ("date_shifted", "StudyDate", "19990101"),
        ("uid_consistent", "StudyInstanceUID", "2.25.1"),
        ("patid_consistent", "PatientID", "P1"),
    ],
)
def test_one_wrong_value_fails_its_check(cohort, tmp_path, kind, keyword, value):
    answers, written = cohort
    changed = tmp_path / "changed.dcm"
    data = dcmread(written[answers[0].path])
    setattr(data, keyword, value)
    data.save_as(changed)
    result = score(answers, {**written, answers[0].path: changed})
    assert result.passed[kind] < result.made[kind]


def test_one_pixel_or_one_name_too_many_fails(cohort, tmp_path):
    answers, written = cohort
    changed = tmp_path / "changed.dcm"
    picture = next(answer for answer in answers if answer.boxes)
    data = dcmread(written[picture.path])
    for at, kind in ((0, "pixels_hidden"), (-1, "pixels_retained")):
        pixels = bytearray(data.PixelData)
        pixels[at] ^= 1
        data.PixelData, whole = bytes(pixels), data.PixelData
        data.save_as(changed)
        data.PixelData = whole
        assert score(answers, {**written, picture.path: changed}).failures == {(kind, "PixelData"): 1}
    data.ImageComments = picture.gone[0]
    data.save_as(changed)
    assert score(answers, {**written, picture.path: changed}).failures[("text_removed", "text")] == 1


def test_a_document_that_comes_out_fails(cohort, tmp_path):
    answers, written = cohort
    document = next(answer for answer in answers if not answer.comes_out)
    assert document.path not in written
    shutil.copy(document.path, tmp_path / "out.dcm")
    result = score(answers, {**written, document.path: tmp_path / "out.dcm"})
    assert result.failures == {("text_removed", "encapsulated document"): len(document.gone)}
