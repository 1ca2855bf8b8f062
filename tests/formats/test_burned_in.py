"""Pixels that may carry names: which files wait, and that a mask blanks its boxes and not one bit beside them."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.pixels.utils import compress
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bedside.core.deidentification import Deidentification, PixelMask
from bedside.core.digest import digest_bytes
from bedside.formats.burned_in import examine, suspicion
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.dicom_write_syntax import encode

from .pictures import dataset, part10, written

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
BOXES = ((0, 0, 30, 9), (40, 20, 63, 31))
PLAIN = Deidentification()


def picture(dtype=np.uint8, *, samples=1, frames=1, seed=0, rows=48, columns=64, bits=None):
    """Random pixels, (frames, rows, columns, samples), with `bits` stored bits."""
    stored = bits or 8 * np.dtype(dtype).itemsize
    low, high = (-(1 << (stored - 1)), 1 << (stored - 1)) if np.dtype(dtype).kind == "i" else (0, 1 << stored)
    return np.random.default_rng(seed).integers(low, high, (frames, rows, columns, samples)).astype(dtype)


def walked(data):
    elements = Elements()
    walk(data, elements)
    return elements


def look(data, options=PLAIN):
    return examine(data, walked(data), options)


def masks(*boxes, **criteria):
    return Deidentification(masks=(PixelMask(boxes=boxes or BOXES, **criteria),))


def samples_of(data):
    """Stored numbers, (frames, rows, columns, samples), by pydicom."""
    read = dcmread(BytesIO(data))
    array = pydicom.pixels.pixel_array(read, raw=True)
    return array.reshape(int(read.get("NumberOfFrames", 1)), read.Rows, read.Columns, read.SamplesPerPixel)


def inside(shape):
    """True in the boxes."""
    where = np.zeros(shape[1:3], bool)
    for left, top, right, bottom in BOXES:
        where[top : bottom + 1, left : right + 1] = True
    return where


def darkest_of(before):
    """The smallest number of each frame."""
    return before.min(axis=(1, 2, 3), keepdims=True)[:, 0]


def check_masked(before, data, *, black):
    """Boxes hold one constant per frame, everything else is what it was, and nothing but pixel bytes moved."""
    examined = look(data, masks())
    assert examined.refusal is None
    assert (examined.masked, examined.codes, examined.burned_in) == (BOXES, ("113101",), "NO")
    after, where = samples_of(examined.data), inside(before.shape)
    assert np.array_equal(after[:, ~where], before[:, ~where])
    assert (after[:, where] == np.asarray(black, after.dtype)).all()
    return examined


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(
    ("dtype", "bits", "samples", "planar", "frames"),
    [
        (np.uint8, 8, 1, 0, 1),
        (np.uint8, 8, 1, 0, 3),
        (np.uint16, 12, 1, 0, 1),
        (np.int16, 16, 1, 0, 2),
        (np.uint8, 8, 3, 0, 1),
        (np.uint8, 8, 3, 1, 2),
    ],
)
def test_boxes_become_constant_and_no_other_bit_changes_in_any_native_coding(syntax, dtype, bits, samples, planar, frames):
    before = picture(dtype, samples=samples, frames=frames, bits=bits)
    data = part10(dataset(before, bits=bits, planar=planar), before, syntax)
    examined = check_masked(before, data, black=0 if samples == 3 else darkest_of(before))
    old, new = walked(data), walked(examined.data)
    place = old.table[0x7FE00010]
    assert new.data[: place.start] == old.data[: place.start]
    assert new.data[place.end :] == old.data[place.end :]
    assert (new.syntax, len(new.data)) == (syntax, len(old.data))


def test_an_odd_picture_of_bytes_in_big_endian_words_is_blanked_in_the_right_order():
    before = picture(rows=49, columns=65)
    data = dataset(before)
    raw = np.frombuffer(before.tobytes() + b"\0", "<u2").byteswap().tobytes()
    data.add_new("PixelData", "OW", raw)
    check_masked(before, written(data, ExplicitVRBigEndian), black=darkest_of(before))


def test_black_of_monochrome1_is_its_largest_number():
    before = picture(np.uint16, bits=10)
    check_masked(
        before,
        part10(dataset(before, photometric="MONOCHROME1", bits=10), before),
        black=before.max(axis=(1, 2, 3), keepdims=True)[:, 0],
    )


def test_black_of_ybr_has_no_colour():
    before = picture(samples=3)
    check_masked(before, part10(dataset(before, photometric="YBR_FULL"), before), black=[0, 128, 128])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize(
    ("dtype", "samples", "frames"), [(np.uint8, 1, 1), (np.uint16, 1, 3), (np.int16, 1, 1), (np.uint8, 3, 2)]
)
def test_lossless_pixels_are_decoded_blanked_and_stored_uncompressed_bit_for_bit(syntax, dtype, samples, frames):
    before = picture(dtype, samples=samples, frames=frames)
    data = dataset(before, PatientName="a^b")
    part10(data, before)
    compress(data, syntax, generate_instance_uid=False)
    examined = check_masked(before, written(data, syntax), black=0 if samples == 3 else darkest_of(before))
    after = dcmread(BytesIO(examined.data))
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert after.PhotometricInterpretation == ("MONOCHROME2" if samples == 1 else "RGB")
    assert after.PatientName == "a^b"
    assert any("uncompressed" in note and "loss before" not in note for note in examined.notes)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_jpeg_lossless_is_decoded_bit_for_bit(dtype):
    before = picture(dtype)
    data = encode(dataset(before), [before[0, :, :, 0].T], JPEGLosslessSV1)
    check_masked(before, data, black=darkest_of(before))


def test_lossy_pixels_keep_their_decoded_numbers_and_say_so():
    smooth = np.add.outer(np.arange(48), 2 * np.arange(64)).astype(np.uint8)[None, :, :, None]
    data = encode(dataset(smooth), [smooth[0, :, :, 0].T], JPEGBaseline8Bit)
    before = samples_of(data)
    examined = check_masked(before, data, black=darkest_of(before))
    assert dcmread(BytesIO(examined.data)).LossyImageCompression == "01"
    assert any("compressed with loss before" in note for note in examined.notes)


def test_a_cut_compressed_picture_is_refused_by_name():
    before = picture()
    data = dataset(before)
    part10(data, before)
    compress(data, JPEG2000Lossless, generate_instance_uid=False)
    short = look(written(data, JPEG2000Lossless).replace(b"\xff\xd9", b"\0\0"), masks())
    assert short.refusal is not None
    assert (short.refusal.code, short.data) == ("DCM_TRUNCATED", b"")


SUSPICIOUS = {
    "ultrasound": {"branch": "6.1", "modality": "US"},
    "ultrasound loop": {"branch": "3.1", "modality": "US", "frames": 2},
    "secondary capture": {"branch": "7", "modality": "OT"},
    "secondary capture of a CT": {"branch": "7", "modality": "CT"},
    "angiography": {"branch": "12.1", "modality": "XA"},
    "fluoroscopy": {"branch": "12.2", "modality": "RF"},
    "endoscopy": {"branch": "77.1.1", "modality": "ES", "samples": 3},
    "photograph": {"branch": "77.1.4", "modality": "XC", "samples": 3},
    "encapsulated PDF": {"branch": "104.1", "modality": "DOC"},
    "presentation state": {"branch": "11.1", "modality": "PR"},
    "key object": {"branch": "88.59", "modality": "KO"},
    "private class": {"sop_class": "1.3.12.2.1107.5.9.1", "modality": "CT"},
    "unheard of class": {"branch": "999", "modality": "CT"},
    "CT that says so": {"branch": "2", "modality": "CT", "BurnedInAnnotation": "YES"},
    "MR with an unknown word": {"branch": "4", "modality": "MR", "BurnedInAnnotation": "OTHER"},
    "screen under CT": {"branch": "2", "modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "dose screen under CT": {"branch": "2", "modality": "CT", "SeriesDescription": "Dose Report"},
    "protocol under CT": {"branch": "2", "modality": "CT", "ImageType": ["ORIGINAL", "SECONDARY", "OTHER", "CT_SOM5 PROT"]},
    "colour under MR": {"branch": "4", "modality": "MR", "samples": 3},
    "film under CT": {"branch": "2", "modality": "CT", "ConversionType": "DF"},
    "other modality under CT": {"branch": "2", "modality": "OT"},
    "no modality": {"branch": "2", "modality": ""},
    "plate without a flag": {"branch": "1", "modality": "CR"},
}
CLEAN = {
    "CT": {"branch": "2", "modality": "CT"},
    "CT that says NO": {"branch": "2", "modality": "CT", "BurnedInAnnotation": "NO"},
    "low dose CT": {"branch": "2", "modality": "CT", "SeriesDescription": "LOW DOSE", "ProtocolName": "SnapShot"},
    "reformat": {"branch": "2", "modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    "proton density": {"branch": "4", "modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "PROTON_DENSITY", "NONE"]},
    "PET": {"branch": "128", "modality": "PT"},
    "plate that says NO": {"branch": "1", "modality": "CR", "BurnedInAnnotation": "NO"},
    "segmentation": {"branch": "66.4", "modality": "SEG"},
}


def _made(photograph):
    facts = dict(photograph)
    pixels = picture(samples=facts.pop("samples", 1), frames=facts.pop("frames", 1))
    return part10(dataset(pixels, **facts), pixels)


@pytest.mark.parametrize("kind", SUSPICIOUS)
def test_what_may_show_a_name_waits(kind):
    data = _made(SUSPICIOUS[kind])
    examined = look(data)
    assert examined.refusal is not None
    assert (examined.refusal.code, examined.refusal.exit_code, examined.data) == ("PHI_PIXELS", 3, b"")
    assert suspicion(walked(data)) is not None
    assert look(data, Deidentification(released=(digest_bytes(data),))).data == data
    assert look(data, Deidentification(released=("0" * 64,))).refusal is not None


@pytest.mark.parametrize("kind", CLEAN)
def test_what_a_scanner_measures_goes_on_untouched(kind):
    data = _made(CLEAN[kind])
    examined = look(data)
    assert (examined.refusal, examined.data, examined.masked, examined.codes, examined.burned_in) == (None, data, (), (), "")


@pytest.mark.parametrize("kind", ["ultrasound", "secondary capture", "angiography", "photograph"])
def test_a_flag_of_no_is_not_believed_of_screens_and_ultrasound(kind):
    assert look(_made({**SUSPICIOUS[kind], "BurnedInAnnotation": "NO"})).refusal is not None


@pytest.mark.parametrize("kind", ["encapsulated PDF", "presentation state", "key object"])
def test_no_mask_releases_what_is_no_picture(kind):
    assert look(_made(SUSPICIOUS[kind]), masks()).refusal is not None


def test_video_waits_whatever_its_class():
    pixels = picture()
    data = dataset(pixels, branch="2", modality="CT")
    part10(data, pixels)
    compress(data, RLELossless, generate_instance_uid=False)
    assert look(written(data, RLELossless)).refusal is None
    for options in (PLAIN, masks()):
        assert look(written(data, MPEG4HP41), options).refusal is not None


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        ({}, True),
        ({"modality": "US"}, True),
        ({"modality": "CT"}, False),
        ({"manufacturer": "acme", "model": "RAY 1"}, True),
        ({"manufacturer": "acme", "model": "ray 2"}, False),
        ({"rows": 48, "columns": 64}, True),
        ({"rows": 48, "columns": 65}, False),
    ],
)
def test_a_mask_rule_fits_by_every_criterion_it_gives(criteria, fits):
    pixels = picture()
    data = part10(dataset(pixels, Manufacturer="ACME", ManufacturerModelName="Ray 1"), pixels)
    examined = look(data, masks(**criteria))
    assert (examined.refusal is None) == fits
    assert bool(examined.masked) == fits


def test_a_box_beyond_the_picture_is_no_release():
    pixels = picture()
    examined = look(part10(dataset(pixels), pixels), masks((0, 0, 64, 9)))
    assert examined.refusal is not None
    assert "reaches beyond" in examined.refusal.sentence


def test_boxes_of_all_rules_that_fit_are_blanked():
    pixels = picture()
    both = Deidentification(masks=tuple(PixelMask(boxes=(box,)) for box in BOXES))
    assert look(part10(dataset(pixels), pixels), both).masked == BOXES


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_an_overlay_hidden_in_bits_beside_the_pixels_is_cleared_and_no_pixel_changes(syntax, dtype):
    pixels = picture(dtype, bits=12)
    hidden = pixels.view(np.uint16) & 0x0FFF | np.random.default_rng(1).integers(0, 16, pixels.shape).astype(np.uint16) << 12
    data = part10(dataset(hidden, branch="4", modality="MR", bits=12, PixelRepresentation=int(dtype == np.int16)), hidden, syntax)
    examined = look(data)
    assert examined.refusal is None
    raw = walked(examined.data).raw(0x7FE00010)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    after = np.frombuffer(raw, np.dtype(dtype).newbyteorder(order)).reshape(pixels.shape)
    assert np.array_equal(after, pixels)
    assert "bits beside the pixels were cleared" in examined.notes


def test_a_declared_overlay_in_compressed_pixels_is_decoded_and_cleared():
    pixels = picture(np.uint16, bits=12)
    hidden = pixels | np.uint16(0x8000)
    data = dataset(hidden, branch="4", modality="MR", bits=16)
    part10(data, hidden)
    compress(data, RLELossless, generate_instance_uid=False)
    data.BitsStored, data.HighBit = 12, 11
    data.add_new((0x6000, 0x0100), "US", 16)
    data.add_new((0x6000, 0x0102), "US", 15)
    examined = look(written(data, RLELossless))
    assert examined.refusal is None
    assert np.array_equal(np.frombuffer(walked(examined.data).raw(0x7FE00010), "<u2").reshape(pixels.shape), pixels)


def test_a_refusal_says_nothing_of_the_patient():
    pixels = picture()
    data = part10(dataset(pixels, PatientName="ZQ1^ZQ2", Manufacturer="ZQ3", SeriesDescription="ZQ4 dose report"), pixels)
    for options in (PLAIN, masks((0, 0, 64, 9))):
        refusal = look(data, options).refusal
        assert refusal is not None
        assert "ZQ" not in refusal.sentence
        assert "ZQ" not in repr(look(data, options))


@pytest.mark.real
def test_real_ultrasounds_with_names_wait_and_are_blanked_by_a_rule(data_root):
    for name in ("GREYSCALE_IMAGE.dcm", "RGB_IMAGE.dcm"):
        data = (data_root / "deid_dev" / "deid-data" / "ultrasounds" / name).read_bytes()
        assert look(data).refusal is not None
        before = samples_of(data)
        check_masked(before, data, black=darkest_of(before) if before.shape[3] == 1 else 0)


@pytest.mark.real
def test_real_lossy_captures_are_decoded_and_blanked(data_root):
    data = (data_root / "deid_dev" / "deid-data" / "humans" / "ctbrain1.dcm").read_bytes()
    assert look(data).refusal is not None
    before = samples_of(data)
    check_masked(before, data, black=[0, 128, 128])


def test_an_enhanced_lossy_colour_picture_is_stored_as_rgb():
    pixels = np.tile(np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)[None, :, :, None], (1, 1, 1, 3))
    data = dataset(pixels)
    part10(data, pixels)
    compress(data, JPEG2000, j2k_cr=[5, 1], generate_instance_uid=False)
    examined = look(written(data, JPEG2000), masks())
    assert examined.refusal is None
    assert dcmread(BytesIO(examined.data)).PhotometricInterpretation == "RGB"


def test_a_reader_refuses_a_slice_with_names_in_its_pixels_and_with_it_the_series(series):
    def burned(data, index):
        data.BurnedInAnnotation = "YES" if index == 2 else "NO"

    reading = read_folder(series("burned", edit=burned))
    assert [len(reading.found), sorted(refused.code for refused in reading.refused)] == [0, ["PHI_PIXELS", "SERIES_INCOMPLETE"]]
    assert len(read_folder(series("clean")).found) == 1


def test_a_reader_says_whether_a_face_is_in_the_volume(series):
    (head,) = read_folder(series("head", edit=lambda data, _: setattr(data, "BodyPartExamined", "HEAD"))).found
    (knee,) = read_folder(series("knee", edit=lambda data, _: setattr(data, "BodyPartExamined", "KNEE"))).found
    assert (head.acquisition["face"], "face" in knee.acquisition) == ("recognizable", False)
