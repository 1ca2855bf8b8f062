"""The header pass holds little of a large file, and says of it what it would say of a small one."""

import json
import struct
import subprocess
import sys
from dataclasses import fields

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from bedside.core.digest import digest_file
from bedside.formats import gate
from bedside.formats.dicom import look
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
