"""Claims about the walk through a file's elements."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.core.errors import InputRejected
from bedside.formats import dicom_elements
from bedside.formats.dicom_elements import Elements, walk


def walked(data):
    elements = Elements()
    try:
        walk(data, elements)
    except InputRejected as problem:
        return problem.code, problem.sentence, dict(elements.table), elements.frames
    return "", "", dict(elements.table), elements.frames


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_quick_pass_over_plain_values_finds_and_refuses_what_the_careful_one_does(series, monkeypatch, syntax, tmp_path):
    dataset = pydicom.dcmread(next(series().iterdir()))
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "one"
    dataset.AnatomicRegionSequence = [inner, inner]
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "one.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    data = path.read_bytes()
    chance = np.random.default_rng(0)
    files = [data, *(data[:cut] for cut in chance.integers(132, len(data), 100))]
    for _ in range(300):
        changed = bytearray(data)
        for at in chance.integers(132, len(data), chance.integers(1, 4)):
            changed[at] = chance.integers(0, 256)
        files.append(bytes(changed))
    quick = [walked(one) for one in files]
    monkeypatch.setattr(dicom_elements._Walk, "_run_explicit", lambda _self, _top: None)
    monkeypatch.setattr(dicom_elements._Walk, "_run_implicit", lambda _self, _top: None)
    assert quick == [walked(one) for one in files]
    assert quick[0][0] == ""
    assert len({code for code, *_ in quick}) > 2


def test_what_a_walk_found_says_nothing_of_the_file_in_a_log(series):
    elements = Elements()
    walk(next(series(patient_id="ZQ4711").iterdir()).read_bytes(), elements)
    assert "ZQ4711" not in repr(elements)
    assert elements.raw(0x00100020) == b"ZQ4711"
