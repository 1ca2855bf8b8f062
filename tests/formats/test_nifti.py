import gzip
import struct
import tracemalloc
import zlib
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.digest import digest_file
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.volume import Reorientation, Volume
from bedside.formats.gate import Limits
from bedside.formats.nifti import read_nifti, read_nifti_volumes, write_nifti


@pytest.fixture
def sound(tmp_path, numbered, plain_affine):
    """A sound uncompressed file."""
    path = tmp_path / "sound.nii"
    write_nifti(path, numbered(plain_affine()).array[0], plain_affine())
    return path


def patch(path, offset, form, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def code_of(path, limits=None):
    with pytest.raises(InputRejected) as caught:
        read_nifti(path, **({"limits": limits} if limits else {}))
    return caught.value.code


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_every_axis_order_and_sign_keeps_every_voxel_in_its_place(tmp_path, numbered, place_error_mm, order, signs):
    affine = np.zeros((4, 4))
    for axis, (world, sign, spacing) in enumerate(zip(order, signs, (0.5, 1.25, 2.5), strict=True)):
        affine[world, axis] = sign * spacing
    affine[:, 3] = (-31.25, 12.5, 100.125, 1)
    written = numbered(affine)
    write_nifti(tmp_path / "a.nii.gz", written.array[0], affine)
    read = read_nifti(tmp_path / "a.nii.gz").volume
    assert place_error_mm(written, read) == 0
    assert place_error_mm(written, read.canonical()) == 0


@settings(max_examples=60)
@given(columns=st.lists(st.floats(-3, 3), min_size=9, max_size=9), origin=st.tuples(*[st.floats(-500, 500)] * 3))
def test_reorientation_and_its_undoing_give_the_same_array(numbered, place_error_mm, columns, origin):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).reshape(3, 3)
    affine[:3, 3] = origin
    if abs(np.linalg.det(affine[:3, :3])) < 0.05:
        return
    written = numbered(affine)
    turn = Reorientation.of(written)
    assert np.array_equal(turn.undo(turn.apply(written.array)), written.array)
    assert place_error_mm(written, written.canonical()) < 1e-9


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_what_is_written_is_what_is_read_and_what_nibabel_reads(tmp_path, plain_affine, name, dtype):
    array = (np.arange(60).reshape(4, 3, 5) * 2).astype(dtype)
    write_nifti(tmp_path / name, array, plain_affine())
    found, other = read_nifti(tmp_path / name), nibabel.load(tmp_path / name)
    assert found.volume.array.dtype == dtype
    assert np.array_equal(found.volume.array[0], array)
    assert np.array_equal(np.asarray(other.dataobj), array)
    assert np.array_equal(found.volume.affine, other.affine)
    assert (found.geometry, found.modality, found.files) == ("sform", "", (tmp_path / name,))
    assert found.source == digest_file(tmp_path / name)


def test_the_same_array_gives_the_same_bytes(tmp_path, plain_affine):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, np.zeros((4, 3, 5), np.uint8), plain_affine())
    assert digest_file(tmp_path / "a.nii.gz") == digest_file(tmp_path / "b.nii.gz")


def test_a_sheared_affine_is_written_without_a_contradicting_qform(tmp_path, plain_affine):
    affine = plain_affine()
    affine[0, 1] = 0.4
    write_nifti(tmp_path / "a.nii", np.zeros((40, 30, 50), np.uint8), affine)
    assert np.allclose(read_nifti(tmp_path / "a.nii").volume.affine, affine)


def test_the_qform_is_used_when_there_is_no_sform(sound, plain_affine):
    found = read_nifti(patch(sound, 254, "h", 0))
    assert found.geometry == "qform"
    assert np.allclose(found.volume.affine, plain_affine(), atol=1e-5)


def test_scaled_values_are_float32(sound, numbered, plain_affine):
    array = read_nifti(patch(sound, 112, "2f", 0.5, 10)).volume.array
    assert array.dtype == np.float32
    assert np.array_equal(array, numbered(plain_affine()).array * 0.5 + 10)


def test_slope_zero_means_not_scaled(sound, numbered, plain_affine):
    array = read_nifti(patch(sound, 112, "2f", 0, 10)).volume.array
    assert array.dtype == np.int16
    assert np.array_equal(array, numbered(plain_affine()).array)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_description_stands_in_the_header_and_moves_no_voxel(tmp_path, plain_affine, name):
    array, words = np.arange(60, dtype=np.uint8).reshape(4, 3, 5), "label map " + "0123456789abcdef" * 4
    write_nifti(tmp_path / name, array, plain_affine(), description=words)
    other = nibabel.load(tmp_path / name)
    assert other.header["descrip"].item().decode() == words
    assert other.dataobj.offset == 352
    np.testing.assert_array_equal(read_nifti(tmp_path / name).volume.array[0], array)


@pytest.mark.parametrize("words", ["x" * 80, "Größe"])
def test_a_description_that_the_header_cannot_hold_is_wrong_use(tmp_path, plain_affine, words):
    with pytest.raises(UsageError) as caught:
        write_nifti(tmp_path / "a.nii", np.zeros((4, 3, 5), np.uint8), plain_affine(), description=words)
    assert caught.value.code == "NII_DESCRIPTION"
    assert not (tmp_path / "a.nii").exists()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_in_both_byte_orders_are_read(tmp_path, numbered, plain_affine, kind, order):
    volume = numbered(plain_affine())
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(volume.array[0], volume.affine, header)
    assert image.header.endianness == order
    nibabel.save(image, tmp_path / "a.nii")
    array = read_nifti(tmp_path / "a.nii").volume.array
    assert np.array_equal(array, volume.array)
    assert array.dtype.isnative


def test_a_fourth_axis_of_one_is_no_fourth_axis(tmp_path, plain_affine):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 5, 1), np.uint8), plain_affine()), tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").volume.shape == (1, 4, 3, 5)


def in_time(path, affine, array, dtype=np.int16):
    image = nibabel.Nifti1Image(array.astype(dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float64])
def test_a_fourth_axis_is_time_and_gives_a_volume_for_each_step(tmp_path, plain_affine, ending, dtype):
    array = np.random.default_rng(0).integers(0, 200, (7, 3, 5, 4))
    path = in_time(tmp_path / f"a{ending}", plain_affine(), array, dtype)
    volumes, digest = read_nifti_volumes(path)
    assert digest == digest_file(path)
    assert len({digest, *(one.source for one in volumes)}) == 5
    for number, one in enumerate(volumes):
        assert np.array_equal(one.volume.array[0], array[..., number])
        np.testing.assert_allclose(one.volume.affine, plain_affine(), atol=1e-6)
        assert (one.notes, one.files, one.later) == (("SPLIT_BY_TIME",), (path,), ())
    assert code_of(path) == "NII_DIM", "where one volume is asked for"


def test_a_scaled_fourth_axis_is_scaled_as_nibabel_does(tmp_path, plain_affine):
    image = nibabel.Nifti1Image(np.random.default_rng(1).normal(0, 9, (4, 3, 5, 3)), plain_affine(), dtype=np.int16)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    wanted = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    volumes, _ = read_nifti_volumes(tmp_path / "a.nii.gz")
    for number, one in enumerate(volumes):
        np.testing.assert_allclose(one.volume.array[0], wanted[..., number], rtol=1e-6)


def test_a_file_in_time_that_is_too_short_or_changed_later_is_refused(tmp_path, plain_affine):
    path = in_time(tmp_path / "a.nii", plain_affine(), np.arange(180).reshape(4, 3, 5, 3))
    volumes, _ = read_nifti_volumes(path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    with pytest.raises(IntegrityError):
        _ = volumes[0].volume.array
    path.write_bytes(data[:-2])
    assert code_of(path) == "NII_TRUNCATED"
    path.write_bytes(data + bytes(2))
    assert code_of(path) == "NII_LENGTH"


@pytest.mark.parametrize(
    "dim",
    [
        (4, 4, 3, 5, 4097, 1, 1, 1),
        (5, 4, 3, 5, 1, 2, 1, 1),
        (2, 4, 15, 1, 1, 1, 1, 1),
        (0, 4, 3, 5, 1, 1, 1, 1),
        (9, 4, 3, 5, 1, 1, 1, 1),
        (3, -4, 3, 5, 1, 1, 1, 1),
        (3, 0, 3, 5, 1, 1, 1, 1),
        (3, 32767, 32767, 32767, 1, 1, 1, 1),
        (3, 1200, 1200, 1200, 1, 1, 1, 1),
        (7, 4, 3, 5, 32767, 32767, 32767, 32767),
    ],
)
def test_impossible_dimensions_are_refused_from_the_header_without_memory(sound, dim):
    patch(sound, 40, "8h", *dim)
    tracemalloc.start()
    assert code_of(sound) == "NII_DIM"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("offset", "form", "values", "code"),
    [
        (70, "2h", (32, 64), "NII_DATATYPE"),
        (70, "2h", (128, 24), "NII_DATATYPE"),
        (70, "2h", (4, 8), "NII_DATATYPE"),
        (108, "f", (float("nan"),), "NII_TRUNCATED"),
        (108, "f", (0.0,), "NII_TRUNCATED"),
        (108, "f", (352.5,), "NII_TRUNCATED"),
        (108, "f", (-352.0,), "NII_TRUNCATED"),
        (108, "f", (1e30,), "NII_TRUNCATED"),
        (108, "f", (368.0,), "NII_TRUNCATED"),
        (112, "f", (float("nan"),), "NII_SCALE"),
        (112, "f", (float("inf"),), "NII_SCALE"),
        (116, "f", (float("nan"),), "NII_SCALE"),
        (123, "b", (1,), "NII_UNITS"),
        (123, "b", (3,), "NII_UNITS"),
        (252, "2h", (0, 0), "NII_AFFINE"),
        (252, "2h", (-1, 0), "NII_AFFINE"),
        (280, "f", (float("nan"),), "NII_AFFINE"),
        (280, "4f", (0, 0, 0, 0), "NII_AFFINE"),
        (292, "f", (-31.0,), "NII_AFFINE"),
        (280, "f", (0.8,), "NII_AFFINE"),
        (80, "f", (-0.7,), "NII_AFFINE"),
        (84, "f", (0.0,), "NII_AFFINE"),
        (84, "f", (float("inf"),), "NII_AFFINE"),
        (76, "f", (float("nan"),), "NII_AFFINE"),
        (256, "f", (5.0,), "NII_AFFINE"),
        (344, "4s", (b"ni1\0",), "NII_NOT_NIFTI"),
        (0, "i", (347,), "NII_NOT_NIFTI"),
    ],
)
def test_a_header_field_that_cannot_be_true_is_refused_by_name(sound, offset, form, values, code):
    assert code_of(patch(sound, offset, form, *values)) == code


@pytest.mark.parametrize("size", [-0.7, 0.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("axis", range(3))
def test_voxel_sizes_that_cannot_be_are_refused_beside_an_sform_too(sound, axis, size):
    patch(sound, 252, "h", 0)
    assert code_of(patch(sound, 80 + 4 * axis, "f", size)) == "NII_AFFINE"


def test_the_sign_of_the_qform_is_not_judged_where_no_qform_is_coded(sound):
    patch(sound, 252, "h", 0)
    patch(sound, 76, "f", 7.0)
    assert read_nifti(sound).geometry == "sform"


def test_voxel_sizes_that_contradict_the_sform_are_noted_and_the_sform_counts(sound, plain_affine):
    patch(sound, 252, "h", 0)
    assert read_nifti(sound).notes == ()
    spacing = np.linalg.norm(plain_affine()[:3, :3], axis=0)
    last = np.array([3, 2, 4])  # voxel steps to the far end of (4, 3, 5)
    near, far = spacing + 0.09 / last, spacing + 0.11 / last
    for axis in range(3):
        sizes = spacing.copy()
        sizes[axis] = near[axis]
        assert read_nifti(patch(sound, 80, "3f", *sizes)).notes == ()
        sizes[axis] = far[axis]
        found = read_nifti(patch(sound, 80, "3f", *sizes))
        assert (found.notes, found.geometry) == (("PIXDIM_CONTRADICTED",), "sform")
        np.testing.assert_allclose(found.volume.affine, plain_affine(), rtol=1e-6)


def test_sform_and_qform_may_differ_by_less_than_the_corner_tolerance(sound):
    assert read_nifti(patch(sound, 292, "f", -31.2)).geometry == "sform"


def test_every_cut_of_an_uncompressed_file_is_refused(sound, tmp_path):
    data, cut = sound.read_bytes(), tmp_path / "cut.nii"
    codes = set()
    for length in range(1, len(data)):
        cut.write_bytes(data[:length])
        codes.add(code_of(cut))
    assert codes == {"NII_TRUNCATED", "NII_NOT_NIFTI"}


def test_every_cut_of_a_compressed_file_is_refused(sound, tmp_path):
    data, cut = gzip.compress(sound.read_bytes()), tmp_path / "cut.nii.gz"
    for length in range(2, len(data)):
        cut.write_bytes(data[:length])
        assert code_of(cut) == "NII_TRUNCATED"


def test_bytes_that_the_header_does_not_account_for_are_refused(sound):
    sound.write_bytes(sound.read_bytes() + b"\0")
    assert code_of(sound) == "NII_LENGTH"


def test_a_gzip_bomb_is_refused_in_constant_memory(sound, tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(sound.read_bytes()) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(head + block * 512)
    assert bomb.stat().st_size < 4 << 20
    tracemalloc.start()
    assert code_of(bomb, Limits(max_inflated_bytes=64 << 20)) == "NII_INFLATE_LIMIT"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_compressed_file_is_recognised_by_its_bytes_not_by_its_name(sound, tmp_path):
    odd = tmp_path / "image.bin"
    odd.write_bytes(gzip.compress(sound.read_bytes()))
    assert read_nifti(odd).volume.shape == (1, 4, 3, 5)


@pytest.mark.parametrize("content", [b"x", b"\x1f\x8b", b"hello" * 200, gzip.compress(b"hello" * 200, mtime=0), b"\x5c\x01\0\0"])
def test_what_is_no_nifti_is_refused(tmp_path, content):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    assert code_of(path) in {"NII_NOT_NIFTI", "NII_TRUNCATED"}


def test_an_empty_file_a_link_and_a_folder_are_refused(sound, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(sound)
    assert code_of(tmp_path / "empty") == "FILE_EMPTY"
    assert code_of(tmp_path / "link") == code_of(tmp_path) == "FILE_KIND"
    assert code_of(tmp_path / "absent") == "FILE_UNREADABLE"
    assert code_of(sound, Limits(max_file_bytes=10)) == "FILE_SIZE"


def test_voxels_are_read_late_and_a_file_changed_meanwhile_is_an_integrity_error(sound):
    volume = read_nifti(sound).volume
    patch(sound, 400, "h", 999)
    with pytest.raises(IntegrityError) as caught:
        _ = volume.array
    assert caught.value.code == "FILE_CHANGED"


def test_a_thousand_bit_flips_end_in_a_volume_or_a_named_refusal(sound, tmp_path):
    data, mutant = sound.read_bytes(), tmp_path / "mutant.nii"
    generator = np.random.default_rng(20)
    refused = 0
    for _ in range(1000):
        flipped = bytearray(data)
        for at in generator.integers(0, 352, size=generator.integers(1, 4)):
            flipped[at] ^= 1 << generator.integers(8)
        mutant.write_bytes(flipped)
        try:
            volume: Volume = read_nifti(mutant).volume
            assert volume.array.shape == volume.shape
        except InputRejected:
            refused += 1
    assert 100 < refused < 900
