"""Claims about answers that are worked out once for all files that say the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.hostile.corpus import corpus

from bedside.core.deidentification import Deidentification
from bedside.core.identity import Identity
from bedside.formats import dicom_header
from bedside.formats.dicom_alike import Alike
from bedside.formats.dicom_elements import PIXEL_DATA, Element, Elements
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_values import text

_IDENTITY = Identity("pseudonym", b"0123456789abcdef")
_MASKS = Deidentification.model_validate({"masks": [{"modality": "CT", "rows": 3, "boxes": [[0, 0, 1, 1]]}]})


def said(data: bytes, asked: dict[str, object]) -> object:
    found = inspect(data, **asked)
    headers = [{name: getattr(one, name) for name in vars(one)} for one in found.headers]
    return found.series, headers, found.problem and (found.problem.code, found.problem.sentence)


def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_header, "_KIND", dicom_header._kind)
    monkeypatch.setattr(dicom_header, "_FACTS", dicom_header._facts)


def check_said_alike(files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"identity": _IDENTITY}, {}, {"pixels": _MASKS}]
    order = [(data, asked[int(n)]) for data, n in zip(files, np.random.default_rng(1).integers(0, 3, len(files)), strict=True)]
    remembered = [said(*one) for one in order]
    afresh(monkeypatch)
    assert remembered == [said(*one) for one in order]


def test_every_hostile_file_is_described_and_refused_as_without_a_memory(monkeypatch):
    files = [data for one in corpus() if not one.family.startswith("D3") for _, data in one.files if data[128:132] == b"DICM"]
    assert len(files) > 500
    check_said_alike(files, monkeypatch)


def test_every_spoilt_slice_is_described_and_refused_as_without_a_memory(series, monkeypatch):
    chance = np.random.default_rng(0)
    files = []
    for path in sorted(series().iterdir()):
        data = path.read_bytes()
        files.append(data)
        for _ in range(300):
            changed = bytearray(data)
            for at in chance.integers(132, len(data), chance.integers(1, 4)):
                changed[at] = chance.integers(0, 256)
            files.append(bytes(changed))
    check_said_alike(files, monkeypatch)


@pytest.mark.real
def test_every_real_file_is_described_as_without_a_memory(data_root: Path, monkeypatch):
    files = [path.read_bytes() for path in sorted((data_root / "dicom_conversion_dev").rglob("*.dcm"))]
    assert len(files) > 50
    check_said_alike(files, monkeypatch)


def elements(**values: bytes) -> Elements:
    data, table = b"", {}
    for name, value in values.items():
        table[int(name[1:], 16)] = Element("LO", len(data), len(data) + len(value))
        data += value
    return Elements(data=data, table=table, syntax="1.2.840.10008.1.2.1")


def test_the_function_runs_again_when_something_it_looked_at_differs_and_only_then():
    runs = []

    def function(one: Elements, asked: str) -> str:
        runs.append(asked)
        return text(one, 0x10) + (text(one, 0x20) if 0x30 in one.table else "") + asked

    alike = Alike(function)
    assert alike(elements(t10=b"a", t20=b"b"), "x") == "ax"
    assert alike(elements(t99=b"longer", t10=b"a", t20=b"c"), "x") == "ax"
    assert len(runs) == 1
    assert alike(elements(t10=b"a", t20=b"c"), "y") == "ay"
    assert alike(elements(t10=b"a", t20=b"c", t30=b""), "x") == "acx"
    assert alike(elements(t10=b"d", t20=b"c"), "x") == "dx"
    assert alike(replace(elements(t10=b"a", t20=b"b"), order=">"), "x") == "ax"
    assert len(runs) == 5
    assert alike(elements(t10=b"a", t20=b"e", t30=b""), "x") == "aex"
    assert len(runs) == 6


def test_a_refusal_is_worked_out_each_time():
    runs = []

    def function(_one: Elements, _asked: str) -> str:
        runs.append(1)
        raise ValueError

    alike = Alike(function)
    for _ in range(2):
        with pytest.raises(ValueError):
            alike(elements(t10=b"a"), "")
    assert len(runs) == 2


def test_values_that_are_too_long_are_not_kept():
    runs = []

    def function(one: Elements, _asked: str) -> int:
        runs.append(1)
        return len(one.raw(0x10))

    alike = Alike(function)
    for _ in range(2):
        assert alike(elements(t10=bytes(100_000)), "") == 100_000
    assert len(runs) == 2


@pytest.mark.parametrize("looks", [lambda one: one.raw(PIXEL_DATA), lambda one: len(one.table), lambda one: list(one.table)])
def test_a_function_that_looks_at_more_than_can_be_noted_is_a_defect(looks):
    with pytest.raises(AssertionError, match="elements one by one, and at no pixels"):
        Alike(lambda one, _asked: looks(one))(elements(t10=b"a", t7FE00010=b""), "")
