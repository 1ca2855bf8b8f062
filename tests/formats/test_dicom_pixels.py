"""What a person has decided about names in pixels counts when a series is read, exactly as when it is de-identified."""

import pickle

import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import compress
from pydicom.uid import RLELossless

from bedside.core.deidentification import Deidentification, PixelMask
from bedside.core.digest import digest_file
from bedside.formats.burned_in import examine
from bedside.formats.dicom import assemble, look
from bedside.formats.dicom_elements import Elements, walk

BOX = (1, 0, 2, 1)
MASK = Deidentification(masks=(PixelMask(modality="CT", rows=3, columns=4, boxes=(BOX,)),))


def read(folder, options=None):
    """Look at every file and assemble; looks go through pickle as they do from a worker."""
    files = sorted(folder.iterdir())
    looks = [look(path) if options is None else look(path, pixels=options) for path in files]
    return assemble(pickle.loads(pickle.dumps(looks)))


def flagged(dataset, _):
    dataset.BurnedInAnnotation = "YES"


def test_a_released_file_is_read_and_any_other_waits(series):
    folder = series(edit=flagged)
    assert {(one.code, len(one.files)) for one in read(folder).refused} == {("PHI_PIXELS", 5)}
    released = Deidentification(released=tuple(digest_file(path) for path in folder.iterdir()))
    (found,) = read(folder, released).found
    assert found.notes == ("PIXELS_RELEASED",)
    (plain,) = read(series("plain")).found
    assert np.array_equal(found.volume.array, plain.volume.array)
    assert plain.notes == ()
    part = Deidentification(released=released.released[1:])
    assert {one.code for one in read(folder, part).refused} == {"PHI_PIXELS", "SERIES_INCOMPLETE"}


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("syntax", ["", RLELossless])
def test_a_masked_series_is_read_as_its_de_identified_files_are(series, syntax, photometric):
    def edit(dataset, index):
        flagged(dataset, index)
        dataset.PhotometricInterpretation = photometric
        if syntax:
            compress(dataset, syntax, generate_instance_uid=False)

    folder, blanked = series(edit=edit), series("blanked", edit=edit)
    for path in blanked.iterdir():
        data, elements = path.read_bytes(), Elements()
        walk(data, elements)
        path.write_bytes(examine(data, elements, MASK).data)
        dataset = pydicom.dcmread(path)
        dataset.BurnedInAnnotation = "NO"
        dataset.save_as(path)
    (found,), (expected,) = read(folder, MASK).found, read(blanked).found
    assert found.notes == ("PIXELS_MASKED",)
    assert np.array_equal(found.volume.array, expected.volume.array)
    left, top, right, bottom = BOX
    for k in range(5):
        inside = found.volume.array[0, left : right + 1, top : bottom + 1, k]
        everything = found.volume.array[0, :, :, k]
        assert set(inside.ravel()) == {everything.max() if photometric == "MONOCHROME1" else everything.min()}
    assert found.source != expected.source


def test_a_rule_also_blanks_what_would_pass_by_itself_and_names_another_source(series):
    folder = series()
    (masked,), (plain,) = read(folder, MASK).found, read(folder).found
    assert masked.notes == ("PIXELS_MASKED",)
    assert masked.source != plain.source
    outside = np.ones(masked.volume.array.shape, bool)
    outside[:, BOX[0] : BOX[2] + 1, BOX[1] : BOX[3] + 1] = False
    assert np.array_equal(masked.volume.array[outside], plain.volume.array[outside])
    assert not np.array_equal(masked.volume.array, plain.volume.array)


@pytest.mark.parametrize(
    "rule",
    [PixelMask(modality="MR", boxes=(BOX,)), PixelMask(rows=4, boxes=(BOX,)), PixelMask(modality="CT", boxes=((0, 0, 4, 1),))],
    ids=["other modality", "other size", "reaches beyond"],
)
def test_a_rule_that_does_not_fit_releases_nothing(series, rule):
    reading = read(series(edit=flagged), Deidentification(masks=(rule,)))
    assert reading.found == ()
    assert {one.code for one in reading.refused} == {"PHI_PIXELS"}


@pytest.mark.parametrize(("bits", "signed", "padding"), [(12, 0, 63536), (16, 1, -2000), (12, 1, -2000)])
def test_padding_beside_a_blanked_box_is_air_and_the_box_is_not_padding(series, bits, signed, padding):
    def padded(dataset, _):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, signed
        values = np.arange(12).reshape(3, 4) + 100
        values[:, 0] = padding
        dataset.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
        dataset.add_new(0x00280120, "SS" if signed else "US", padding)
        dataset.RescaleIntercept = -1024

    (found,) = read(series(edit=padded), MASK).found
    plane = found.volume.array[0, :, :, 0].T
    assert (plane[:, 0] == -1024).all(), "outside the field of view is air, whatever is blanked elsewhere"
    assert (plane[:2, 1:3] == 101 - 1024).all(), "a box is as dark as the darkest that was measured"
    assert plane[2].tolist() == [-1024, 109 - 1024, 110 - 1024, 111 - 1024]


def test_padding_over_the_stored_bits_is_still_padding_after_de_identification(series):
    def padded(dataset, _):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = np.full((3, 4), 63536, "<u2").tobytes()[:16] + np.full(4, 0x5007, "<u2").tobytes()
        dataset.add_new(0x00280120, "US", 63536)

    data = next(series(edit=padded).iterdir()).read_bytes()
    elements = Elements()
    walk(data, elements)
    cleaned = examine(data, elements, Deidentification()).data
    assert len(cleaned) == len(data)
    pixels = np.frombuffer(cleaned[elements.table[0x7FE00010].start :], "<u2", 12)
    assert pixels.tolist() == [63536] * 8 + [7] * 4
