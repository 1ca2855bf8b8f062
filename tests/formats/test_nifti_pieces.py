"""A NIfTI file is read and inflated piece by piece: the same numbers as nibabel's, and hardly more memory than the volume."""

import gzip
import os
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest

from bedside.core.errors import InputRejected, IntegrityError
from bedside.formats.gate import Limits, inflate_pieces
from bedside.formats.nifti import read_nifti

SHAPE = (96, 96, 160)  # some pieces of 256 KiB, and no whole number of them


def write(path, dtype, *, scale=None, order="<"):
    """A noisy volume by nibabel itself, packed where the name says so."""
    values = np.random.default_rng(0).integers(0, 120, SHAPE).astype(np.dtype(dtype).newbyteorder(order))
    image = nibabel.Nifti1Image(values, np.diag([1.0, 1.5, 2.0, 1.0]), header=nibabel.Nifti1Header(endianness=order))
    image.header.set_data_dtype(values.dtype)
    data = bytearray(image.to_bytes())
    if scale is not None:
        data[112:120] = np.array(scale, np.dtype("f4").newbyteorder(order)).tobytes()
    path.write_bytes(gzip.compress(bytes(data), 1) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "scale"), [("i2", None), ("u1", (0.1, -3.5)), ("i2", (2.5, -1024.0)), ("f8", (1.7, 0.3))])
def test_the_numbers_are_those_of_nibabel(tmp_path, name, order, dtype, scale):
    path = write(tmp_path / name, dtype, scale=scale, order=order)
    array = read_nifti(path).volume.array[0]
    assert array.dtype == (np.float32 if scale else np.dtype(dtype))
    assert array.flags.f_contiguous
    np.testing.assert_array_equal(array, np.asarray(nibabel.load(path).dataobj).astype(array.dtype))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("dtype", "scale"), [("i2", None), ("i2", (2.5, -1024.0))])
def test_reading_takes_the_volume_and_little_more(tmp_path, name, dtype, scale):
    path = write(tmp_path / name, dtype, scale=scale)
    _ = read_nifti(path).volume.array  # what is imported on the way
    tracemalloc.start()
    found = read_nifti(path)
    header = tracemalloc.get_traced_memory()[1]
    nbytes = found.volume.array.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header < 3 << 20
    assert peak < nbytes + (6 << 20)
    assert nbytes > 2 << 20


def test_members_that_follow_each_other_are_one_stream_however_they_are_cut():
    content = os.urandom(300_000) + bytes(5 << 20)
    packed = zlib.compress(content[:1000], wbits=31) + zlib.compress(content[1000:], wbits=31) + zlib.compress(b"", wbits=31)
    for size in (1, 7, 1000, 1 << 18, len(packed)) if len(packed) < 400_000 else (1 << 18,):
        pieces = (packed[at : at + size] for at in range(0, len(packed), size))
        assert b"".join(inflate_pieces(pieces, code="NII")) == content
    for cut in (0, 5, 990, len(packed) - 21, len(packed) - 1):
        with pytest.raises(InputRejected) as refused:
            list(inflate_pieces([packed[:cut]], code="NII"))
        assert refused.value.code == "NII_TRUNCATED"
    with pytest.raises(InputRejected) as refused:
        list(inflate_pieces([packed + b"more"], code="NII"))
    assert refused.value.code == "NII_TRUNCATED"
    with pytest.raises(InputRejected) as refused:
        list(inflate_pieces([packed], code="NII", limits=Limits(max_inflated_bytes=4 << 20)))
    assert refused.value.code == "NII_INFLATE_LIMIT"


def test_a_packed_file_that_was_cut_after_it_was_accepted_is_called_changed(tmp_path):
    path = write(tmp_path / "a.nii.gz", "i2")
    found = read_nifti(path)
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(IntegrityError) as changed:
        _ = found.volume.array
    assert changed.value.code == "FILE_CHANGED"
