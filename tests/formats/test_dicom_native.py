"""Claims about uncompressed pixels that are read into their place: same values, and no changed byte is taken unhashed."""

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bedside.core.digest import digest_bytes
from bedside.core.errors import IntegrityError
from bedside.formats import dicom_pixels, gate
from bedside.formats.burned_in import UNDECIDED, Decision
from bedside.formats.dicom import look, read_folder
from bedside.formats.dicom_header import Facts, Header
from bedside.formats.dicom_pixels import Slice, load_stack

_LITTLE, _IMPLICIT, _BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file were old."""
    monkeypatch.setattr(gate, "_SETTLED_NS", -(10**15))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that are hashed when pixels are read."""
    paths: list[Path] = []

    def noted(path: Path, digest: str, **kwargs: object) -> bytes:
        paths.append(path)
        return gate.receive_again(path, digest, **kwargs)

    monkeypatch.setattr(dicom_pixels, "receive_again", noted)
    return paths


def facts(**said: object) -> Facts:
    plain = dict.fromkeys((one.name for one in fields(Facts)), "")
    plain |= {"syntax": _LITTLE, "modality": "CT", "bits_allocated": 16, "bits_stored": 16, "signed": True, "padding": None}
    plain |= {"photometric": "MONOCHROME2", "pixel_vr": "OW", "decision": UNDECIDED, "acquisition": ()}
    return Facts(**(plain | said))


def slice_of(path: Path, pixels: bytes, header: Header) -> Slice:
    path.write_bytes(b"head" + pixels + b"!")
    with path.open("rb") as stream:
        state = gate._state(os.fstat(stream.fileno()))
    return Slice(path, digest_bytes(path.read_bytes()), header, state)


@st.composite
def planes(draw: st.DrawFn) -> tuple[Facts, list[tuple[bytes, float, float]]]:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    bits, signed = draw(st.sampled_from([8, 12, 15, 16])), draw(st.booleans())
    numbers = st.one_of(st.integers(-5, 5), st.integers(-2050, -1990), st.integers(-32768, 32767), st.integers(32768, 65535))
    padding = draw(st.sampled_from([None, (-2000, -2000), (-32768, -1990), (0, 0), (63536, 63536), (40000, 65535)]))
    boxes = draw(st.sampled_from([(), (), ((0, 0, 0, 0),)]))
    said = facts(
        rows=rows,
        columns=columns,
        bits_stored=bits,
        signed=signed,
        padding=padding,
        syntax=draw(st.sampled_from([_LITTLE, _IMPLICIT, _BIG])),
        decision=Decision(boxes),
    )
    slopes = st.sampled_from([1.0, 1.0, 2.0, -1.0, 0.5, 300.0, -32768.0, 1e6])
    intercepts = st.sampled_from([0.0, 0.0, -1024.0, 1024.0, 32767.0, -32768.0, 40000.0, 0.25])
    count = draw(st.integers(1, 3))
    size = rows * columns
    pixels = st.lists(numbers, min_size=size, max_size=size).map(lambda ns: (np.array(ns) % 65536).astype("<u2").tobytes())
    return said, [(draw(pixels), draw(slopes), draw(intercepts)) for _ in range(count)]


@given(planes())
@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example((facts(rows=1, columns=2, signed=False), [(b"\x00\x80\xff\xff", 1.0, -32768.0), (b"\x00\x00\xff\xff", 1.0, 0.0)]))
@example((facts(rows=1, columns=2, padding=(-2000, -2000)), [(b"\x30\xf8\x00\x00", 1.0, 0.0)]))
def test_values_made_in_place_are_those_that_decoding_and_rescaling_give(tmp_path, made):
    said, frames = made
    slices = []
    for number, (pixels, slope, intercept) in enumerate(frames):
        header = Header("1", said, (0.0, 0.0, float(number)), slope, intercept, (4, 4 + len(pixels)), (), 0)
        slices.append(slice_of(tmp_path / f"{number}", pixels, header))
    quick = load_stack(slices)
    careful = load_stack([replace(one, state=b"") for one in slices])
    assert quick.dtype == careful.dtype
    assert quick.strides == careful.strides
    assert np.array_equal(quick, careful)


@pytest.mark.parametrize("syntax", [_LITTLE, _IMPLICIT])
def test_a_series_whose_files_did_not_change_is_hashed_once(series, settled, hashed, syntax):
    (found,) = read_folder(series()).found
    found.volume.load()
    assert hashed == []


def test_a_file_that_was_written_shortly_before_is_hashed_again(series, hashed):
    folder = series()
    assert all(one.state == b"" for one in look(min(folder.iterdir())).slices)
    (found,) = read_folder(folder).found
    found.volume.load()
    assert sorted(hashed) == sorted(folder.iterdir())


def spoilt(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    return bytes(data)


def rewritten(path: Path) -> None:
    path.write_bytes(spoilt(path))


def rewritten_under_the_old_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(spoilt(path))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(spoilt(path))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def replaced_by_a_link(path: Path) -> None:
    other = path.parent.with_name("elsewhere")
    other.write_bytes(spoilt(path))
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("change", [rewritten, rewritten_under_the_old_time, replaced])
@pytest.mark.parametrize("age", ["settled", "young"])
def test_bytes_that_changed_after_they_were_accepted_are_found_out(series, request, change, age):
    if age == "settled":
        request.getfixturevalue("settled")
    folder = series()
    (found,) = read_folder(folder).found
    change(sorted(folder.iterdir())[2])
    with pytest.raises(IntegrityError) as caught:
        found.volume.load()
    assert caught.value.code == "FILE_CHANGED"


def test_a_link_in_the_place_of_a_file_is_not_followed(series, settled):
    folder = series()
    (found,) = read_folder(folder).found
    replaced_by_a_link(sorted(folder.iterdir())[2])
    with pytest.raises(Exception, match="link") as caught:
        found.volume.load()
    assert caught.value.code == "FILE_KIND"


def test_a_file_that_was_only_touched_is_hashed_again_and_taken(series, settled, hashed):
    folder = series()
    (found,) = read_folder(folder).found
    touched = sorted(folder.iterdir())[2]
    touched.touch()
    found.volume.load()
    assert hashed == [touched]


@pytest.mark.real
def test_real_series_have_the_same_voxels_read_either_way(data_root, monkeypatch, settled):
    quick = read_folder(data_root / "dicom_conversion_dev").found
    arrays = [one.volume.load() for one in quick]
    monkeypatch.setattr(dicom_pixels, "unchanged_part", lambda *_: False)
    assert len(arrays) > 10
    for one, array in zip(quick, arrays, strict=True):
        again = one.volume.load()
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)
