"""Claims about the values of a series: rescaling, syntaxes, decoding, and folders that hold more than one thing."""

import numpy as np
import pydicom
import pytest

from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.gate import Limits

from .reading import codes, only


def set_on(slice_index, **values):
    def edit(dataset, index):
        if slice_index in (None, index):
            for name, value in values.items():
                if value is None:
                    del dataset[name]
                else:
                    setattr(dataset, name, value)

    return edit


def moved(offsets_mm):
    """Edit that moves slices along x, y, z of the patient by offsets[index]."""

    def edit(dataset, index):
        at = np.array(dataset.ImagePositionPatient, dtype=float) + offsets_mm[index]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in at]

    return edit


# --- values


def test_hounsfield_units_are_slope_times_stored_plus_intercept_as_int16(series, numbered, plain_affine):
    found = only(series(edit=set_on(None, RescaleSlope=2, RescaleIntercept=-1024)))
    assert found.volume.array.dtype == np.int16
    assert np.array_equal(found.volume.array, numbered(plain_affine()).array * 2 - 1024)


def test_a_slope_per_slice_is_applied_per_slice_in_float32(series, numbered, plain_affine):
    def edit(dataset, index):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + index, 10 * index

    array = only(series(edit=edit)).volume.array
    expected = numbered(plain_affine()).array * (0.5 + np.arange(5)) + 10 * np.arange(5)
    assert array.dtype == np.float32
    assert np.array_equal(array, expected)


def test_values_beyond_int16_are_not_wrapped(series):
    array = only(series(edit=set_on(None, RescaleSlope=1000, RescaleIntercept=0))).volume.array
    assert array.max() == 59000


def test_a_magnetic_resonance_series_needs_no_rescale(series, numbered, place_error_mm, plain_affine):
    folder = series(modality="MR", edit=set_on(None, RescaleSlope=None, RescaleIntercept=None))
    assert only(folder).modality == "MR"
    assert place_error_mm(numbered(plain_affine()), only(folder).volume) < 1e-9


def test_unsigned_sixteen_bit_values_stay_what_they_are(series):
    def edit(dataset, _):
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.full((3, 4), 60000, "<u2").tobytes()
        del dataset.RescaleSlope, dataset.RescaleIntercept

    array = only(series(modality="MR", edit=edit)).volume.array
    assert array.dtype == np.uint16
    assert (array == 60000).all()


@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"])
def test_every_uncompressed_syntax_gives_the_same_volume(series, syntax, numbered, place_error_mm, plain_affine):
    folder = series()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        if syntax == "ExplicitVRBigEndian":
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax.startswith("Implicit"), little_endian="Big" not in syntax, force_encoding=True
        )
    assert place_error_mm(numbered(plain_affine()), only(folder).volume) < 1e-9


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_lossless_compression_gives_the_same_volume_and_names_its_decoder(series, syntax, numbered, place_error_mm, plain_affine):
    shape = (64, 48, 3)
    folder = series(volume=numbered(plain_affine(), shape))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)
        dataset.save_as(path)
    found = only(folder)
    assert place_error_mm(numbered(plain_affine(), shape), found.volume) < 1e-9
    assert ("openjpeg" in found.decoder) == (syntax == "JPEG2000Lossless")


def test_a_syntax_without_decoder_is_refused_by_its_keyword(series):
    folder = series()
    for path in folder.iterdir():
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    assert codes(folder) == {"DCM_SYNTAX"}
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path, force=True)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
        pydicom.dcmwrite(path, dataset)
    (refused,) = read_folder(folder).refused
    assert "MPEG2MPML" in refused.sentence


def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(series, numbered, plain_affine):
    folder = series(volume=numbered(plain_affine(), (64, 48, 3)))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.JPEG2000Lossless, generate_instance_uid=False)
        dataset.Rows, dataset.Columns = 48, 63
        dataset.save_as(path)
    assert codes(folder) == {"DCM_GEOMETRY"}


# --- folders


def test_a_mixed_folder_adds_up_and_every_file_is_in_one_place(series, tmp_path):
    series("a"), series("b", modality="MR"), series("c", edit=set_on(None, Rows=0))
    series("d", edit=moved([(0, 9 * n, 0) for n in range(5)]))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(tmp_path / "notes.txt")
    (tmp_path / "a" / "again").write_bytes((tmp_path / "a" / "slice-0001.dcm").read_bytes())
    reading = read_folder(tmp_path)
    named = [*reading.duplicates, *(p for f in reading.found for p in f.files), *(p for r in reading.refused for p in r.files)]
    assert sorted(named) == sorted(p for p in tmp_path.rglob("*") if p.is_symlink() or p.is_file())
    assert len(reading.found) == 2
    assert {"DCM_GEOMETRY", "SERIES_TILT", "DCM_NOT_DICOM", "FILE_EMPTY", "FILE_KIND"} == {r.code for r in reading.refused}


def test_two_series_of_one_patient_in_one_folder_are_two_volumes(tmp_path, numbered, plain_affine):
    for name, offset in (("1", 0), ("2", 1)):
        volume = numbered(plain_affine() + np.array([[0, 0, 0, 0]] * 2 + [[0, 0, 0, offset]] + [[0, 0, 0, 0]]))
        paths = write_series(tmp_path / name, volume, identity=SeriesIdentity.of("P1", name))
        for path in paths:
            path.rename(tmp_path / f"{name}-{path.name}")
    assert len(read_folder(tmp_path).found) == 2


@pytest.mark.parametrize("cut", [0, 140, 400, -3])
def test_a_series_with_a_damaged_last_slice_is_not_taken_for_a_shorter_one(series, cut):
    folder = series()
    last = folder / "slice-0005.dcm"
    last.write_bytes(last.read_bytes()[:cut])
    reading = read_folder(folder)
    assert reading.found == ()
    assert "SERIES_INCOMPLETE" in {refused.code for refused in reading.refused}


def test_files_may_be_given_one_by_one_in_any_order(series):
    files = sorted(series().iterdir())
    assert read_folder(reversed(files)).found[0].files == tuple(files)


def test_a_missing_folder_is_wrong_use(tmp_path):
    with pytest.raises(UsageError):
        read_folder(tmp_path / "absent")


def test_a_volume_larger_than_the_limit_is_refused_before_it_is_decoded(series):
    assert {r.code for r in read_folder(series(), limits=Limits(max_voxels=59)).refused} == {"DCM_GEOMETRY"}


def test_pixels_are_read_late_and_a_file_changed_meanwhile_is_an_integrity_error(series):
    folder = series()
    volume = only(folder).volume
    path = folder / "slice-0003.dcm"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        _ = volume.array
    assert caught.value.code == "FILE_CHANGED"


def test_a_frame_that_no_decoder_takes_is_rejected_when_it_is_looked_at(series, numbered, plain_affine):
    folder = series(volume=numbered(plain_affine(), (64, 48, 3)))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        data = bytearray(dataset.PixelData)
        data[-200:] = b"\x80" * 200
        dataset.PixelData = bytes(data)
        dataset.save_as(path)
    with pytest.raises(InputRejected) as caught:
        _ = only(folder).volume.array
    assert caught.value.code == "DCM_DECODE"


@pytest.mark.parametrize(("signed", "expected"), [(0, 0x0FFE), (1, -2)])
def test_bits_above_those_stored_are_not_part_of_the_value(series, signed, expected):
    def edit(dataset, _):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, signed
        dataset.PixelData = np.full((3, 4), 0x7FFE, "<u2").tobytes()

    assert (only(series(edit=edit)).volume.array == expected).all()
