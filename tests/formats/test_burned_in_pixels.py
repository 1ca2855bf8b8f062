"""The rule by which boxes are filled is one: for pixels that are read, and for pixels of a file that is exported."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from bedside.core.deidentification import Deidentification, PixelMask
from bedside.core.digest import digest_file
from bedside.core.volume import Volume
from bedside.formats.burned_in import examine
from bedside.formats.burned_in_pixels import darkest
from bedside.formats.dicom import assemble, look
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.dicom_write import SeriesIdentity, planes_of
from bedside.formats.dicom_write_frames import write_frames


def blanked_file(path: Path, options: Deidentification) -> bytes:
    """The file with its boxes blanked, as an export has it."""
    elements = Elements()
    walk(path.read_bytes(), elements)
    return examine(path.read_bytes(), elements, options).data


def test_the_darkest_number_is_no_padding_unless_there_is_nothing_else():
    plane = np.array([[-2000, -5], [3, 9]], np.int16)
    padding = plane == -2000
    assert darkest(plane, "MONOCHROME2") == -2000
    assert darkest(plane, "MONOCHROME2", padding) == -5
    assert darkest(plane, "MONOCHROME1", plane == 9) == 3
    assert darkest(plane, "MONOCHROME2", np.ones((2, 2), bool)) == -2000


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("padding", [None, (-2000, None), (-2000, -1990)], ids=["none", "value", "range"])
def test_a_masked_frame_is_the_same_numbers_when_it_is_read_and_when_it_was_exported(tmp_path, padding, syntax, photometric):
    """Each frame has a darkest number of its own, and one is padding from end to end."""
    values = np.random.default_rng(7).integers(-1000, 1000, (12, 9, 4)).astype(np.int16) + np.arange(4, dtype=np.int16) * 500
    values[:3] = -1995
    values[5] = -2000
    values[..., 3] = -2000
    (path,) = write_frames(
        tmp_path / "received", planes_of(Volume.of(values, np.diag([-1.0, -1.0, 2.0, 1.0]))), identity=SeriesIdentity.of("P", "1")
    )
    data = dcmread(path)
    data.BurnedInAnnotation, data.PhotometricInterpretation = "YES", photometric
    if padding is not None:
        data.PixelPaddingValue = padding[0]
        data["PixelPaddingValue"].VR = "SS"
        if padding[1] is not None:
            data.PixelPaddingRangeLimit = padding[1]
            data["PixelPaddingRangeLimit"].VR = "SS"
    if syntax != ExplicitVRLittleEndian:
        data.compress(syntax, generate_instance_uid=False)
    data.save_as(path)
    boxes = Deidentification(masks=(PixelMask(boxes=((1, 1, 10, 3), (0, 7, 2, 8))),))
    read = assemble([look(path, pixels=boxes)]).found[0].volume.array
    exported = tmp_path / "exported.dcm"
    exported.write_bytes(blanked_file(path, boxes))
    released = Deidentification(released=(digest_file(exported),))
    again = assemble([look(exported, pixels=released)]).found[0].volume.array
    assert np.array_equal(read, again)
    assert not np.array_equal(read, values[None])
