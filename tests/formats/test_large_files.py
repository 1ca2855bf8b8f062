"""The header pass holds little of a large file, and says of it what it would say of a small one."""

import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import fields

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from bedside.core.digest import digest_file
from bedside.core.errors import IntegrityError
from bedside.core.volume import Volume
from bedside.formats import dicom_deflated, gate
from bedside.formats.dicom import assemble, look
from bedside.formats.dicom_elements import data_set_start
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_pixels import load_stack
from bedside.formats.dicom_write import planes_of
from bedside.formats.dicom_write_frames import write_frames

from .reading import IDENTITY

FRAMES, SIDE = 6, 4096
CHILD = """
import json, sys
from pathlib import Path
from bedside.formats.dicom import look

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

look(Path(sys.argv[1]))
before = peak_bytes()
seen = look(Path(sys.argv[2]))
print(json.dumps([peak_bytes() - before, len(seen.slices), seen.digest, str(seen.problem)]))
"""


def enhanced(folder, volume, syntax=ExplicitVRLittleEndian):
    return write_frames(folder, list(planes_of(volume)), identity=IDENTITY, syntax=syntax)[0]


@pytest.fixture
def large(tmp_path, numbered, plain_affine):
    """192 MiB of frames of zeros, almost none of it on the disk; and the same file with small frames."""
    small = enhanced(tmp_path / "small", numbered(plain_affine(), (8, 8, FRAMES)))
    dataset = pydicom.dcmread(small)
    dataset.Rows = dataset.Columns = SIDE
    path = tmp_path / "large.dcm"
    dataset.PixelData = b"\0\0"
    dataset.save_as(path)
    length = 2 * SIDE * SIDE * FRAMES
    with path.open("r+b") as stream:
        stream.seek(-6, 2)
        stream.write(struct.pack("<I", length))
        stream.truncate(stream.tell() + length)
    return small, path


def test_a_large_file_is_looked_at_in_little_memory(large):
    command = [sys.executable, "-c", CHILD, *map(str, large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    grown, slices, digest, problem = json.loads(done.stdout)
    assert (slices, problem) == (FRAMES, "None")
    assert digest == digest_file(large[1])
    assert grown < 64 << 20


def as_deflated(path, plain, small_deflated):
    """A plain file's data set, deflated piece by piece, behind the file meta information of a deflated file."""
    meta, packer = small_deflated.read_bytes(), zlib.compressobj(1, wbits=-15)
    with plain.open("rb") as stream, path.open("wb") as target:
        target.write(meta[: data_set_start(meta)])
        stream.seek(data_set_start(stream.read(1 << 16)))
        while piece := stream.read(1 << 20):
            target.write(packer.compress(piece))
        target.write(packer.flush())
    return path


def test_a_large_deflated_file_is_looked_at_in_little_memory(large, tmp_path, numbered, plain_affine):
    small = enhanced(tmp_path / "deflated", numbered(plain_affine(), (8, 8, FRAMES)), DeflatedExplicitVRLittleEndian)
    path = as_deflated(tmp_path / "deflated.dcm", large[1], small)
    done = subprocess.run([sys.executable, "-c", CHILD, small, path], capture_output=True, text=True, check=True, timeout=300)
    grown, slices, digest, problem = json.loads(done.stdout)
    assert (slices, problem, digest) == (FRAMES, "None", digest_file(path))
    assert grown < 64 << 20


@pytest.fixture
def medium(tmp_path):
    """10 MB of deflated frames that do not pack well, from the top down, and their numbers (I, J, K)."""
    array = np.random.default_rng(0).integers(-900, 900, (256, 256, 80)).astype(np.int16)
    planes = list(planes_of(Volume.of(array, np.diag([-1.0, -1.0, 2.0, 1.0]))))[::-1]
    (path,) = write_frames(tmp_path / "medium", planes, identity=IDENTITY, syntax=DeflatedExplicitVRLittleEndian)
    return path, array


def test_a_deflated_file_becomes_a_volume_without_being_held_inflated(medium):
    path, array = medium
    (found,) = assemble([look(path)]).found
    tracemalloc.start()
    loaded = found.volume.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(loaded[0], array)
    assert peak < array.nbytes + (4 << 20)


def test_the_headers_of_a_deflated_file_are_those_that_its_whole_data_set_says(medium, monkeypatch):
    path, _ = medium
    seen = look(path)
    monkeypatch.setattr(dicom_deflated, "_LEAST_BYTES", 1 << 40)
    whole = look(path)
    assert [vars(one.header) for one in seen.slices] == [vars(one.header) for one in whole.slices]


def test_frames_of_a_deflated_file_that_are_asked_for_backwards_are_the_same(medium):
    path, array = medium
    slices = assemble([look(path)]).found[0].volume.load.args[0]
    last = len(slices) - 2
    blend = [*((k, 0.0) for k in range(last + 1)), (last, 1.0)]  # as of an uneven stack, whose slices are read in their own order
    assert np.array_equal(load_stack(slices, blend=blend)[0], array)


def test_a_deflated_file_that_was_changed_is_noticed(medium):
    path, _ = medium
    (found,) = assemble([look(path)]).found
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        found.volume.load()
    assert caught.value.code == "FILE_CHANGED"


@pytest.mark.parametrize("edit", ["icon", "behind", "none", "private"])
def test_what_stands_around_the_pixels_of_a_deflated_file_is_seen(tmp_path, numbered, plain_affine, monkeypatch, edit):
    path = enhanced(tmp_path, numbered(plain_affine(), (36, 32, 5)), DeflatedExplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    item = pydicom.Dataset()
    item.PixelData = b"\1" * 400
    item["PixelData"].VR = "OB"
    if edit == "icon":
        dataset.IconImageSequence = [item]
        dataset["IconImageSequence"].is_undefined_length = True
    elif edit == "behind":
        dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 70)
    elif edit == "none":
        del dataset.PixelData
    else:
        dataset.add_new(0x00110010, "LO", "OURS")
        dataset.add_new(0x00111001, "OB", struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 64) + bytes(64))
    dataset.save_as(path)
    monkeypatch.setattr(dicom_deflated, "_LEAST_BYTES", 1 << 40)
    whole = look(path)
    monkeypatch.setattr(dicom_deflated, "_LEAST_BYTES", 0)
    seen = look(path)
    assert (len(seen.slices), seen.series) == (0 if edit == "none" else 5, whole.series)
    assert [vars(one.header) for one in seen.slices] == [vars(one.header) for one in whole.slices]
    assert str(seen.problem) == str(whole.problem)


@given(st.binary(min_size=1, max_size=12), st.integers(0, 4000))
def test_a_spoilt_deflated_file_says_the_same_with_and_without_its_pixels(deflated_data_set, spoilt, place):
    meta, content = deflated_data_set
    changed = bytearray(content)
    at = place % len(content)
    changed[at : at + len(spoilt)] = spoilt
    packer = zlib.compressobj(1, wbits=-15)
    data = meta + packer.compress(bytes(changed)) + packer.flush()
    answers = []
    for least in (1 << 40, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dicom_deflated, "_LEAST_BYTES", least)
            found = inspect(data)
        answers.append((found.series, [vars(one) for one in found.headers], str(found.problem)))
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def deflated_data_set(tmp_path_factory, numbered, plain_affine):
    """File meta information, and a data set of 3 frames of 8 x 8 pixels, inflated."""
    path = enhanced(tmp_path_factory.mktemp("d"), numbered(plain_affine(), (8, 8, 3)), DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = data_set_start(data)
    return data[:start], zlib.decompress(data[start:], wbits=-15)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_a_mapped_file_says_what_a_read_one_says(tmp_path, numbered, plain_affine, monkeypatch, syntax):
    path = enhanced(tmp_path, numbered(plain_affine(), (36, 32, 5)))
    if syntax != ExplicitVRLittleEndian:
        dataset = pydicom.dcmread(path)
        if syntax == RLELossless:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    read = look(path)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(path.read_bytes()[:-300])
    read_cut = look(cut)
    monkeypatch.setattr(gate, "_MAPPED_BYTES", 100)
    mapped, mapped_cut = look(path), look(cut)
    assert len(mapped.slices) == 5
    assert (mapped.digest, mapped.series) == (read.digest, read.series)
    for one, other in zip(mapped.slices, read.slices, strict=True):
        for field in fields(one.header):
            assert getattr(one.header, field.name) == getattr(other.header, field.name)
    assert (mapped_cut.problem.code, mapped_cut.digest) == (read_cut.problem.code, read_cut.digest)
