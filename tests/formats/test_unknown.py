"""Elements of VR UN that the standard defines: read like all others, de-identified like all others, and none of them is lost."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian

from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier, already
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_elements import PIXEL_DATA, Elements, walk

from .identified import SOP, STUDY, decoded, encoded, person
from .segmented import affine_of, rotation, series
from .unknown import CHARACTER_SET, as_unknown

KEY = Identity("pseudonym", b"a secret of this test")
ENGINE = Deidentifier(KEY)


def described(data: Dataset) -> dict[str, object]:
    """Everything but the pixels and what the engine says of itself, by keyword."""
    return {element.keyword: element.value for element in data if element.tag != PIXEL_DATA and element.tag.group != 0x12}


def test_what_is_left_of_a_file_is_the_same_as_with_its_vrs_written() -> None:
    received = encoded(person())
    named, unknown = ENGINE.file(received), ENGINE.file(as_unknown(received))
    assert described(decoded(unknown.data)) == described(decoded(named.data))
    assert decoded(unknown.data).PixelData == person().PixelData
    assert {element.VR for element in decoded(unknown.data)} == {element.VR for element in decoded(named.data)}
    assert unknown.actions == named.actions


def test_nothing_of_the_person_is_in_any_byte() -> None:
    data = ENGINE.file(as_unknown(encoded(person()))).data
    assert b"zq" not in data.lower()
    assert not [seed for seed in (STUDY, SOP, "19560731", "20200229") if seed.encode() in data]


def test_items_of_an_unknown_sequence_are_cleaned_and_written_with_their_vrs() -> None:
    data = person()
    code, request = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D1100", "SRT", "Head of Zqmustermann"
    request.ReferencedSOPClassUID, request.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", STUDY + ".77"
    request.PurposeOfReferenceCodeSequence = Sequence([code])
    request.private_block(0x0029, "ZQMAKER", create=True).add_new(1, "LO", "Zqmustermann")
    data.ReferencedImageSequence = Sequence([request])
    written = ENGINE.file(as_unknown(encoded(data))).data
    (item,) = decoded(written).ReferencedImageSequence
    assert b"zq" not in written.lower()
    assert item.ReferencedSOPInstanceUID == KEY.uid(STUDY + ".77")
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "T-D1100"
    assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "REMOVED"
    assert len(item) == 3


@pytest.mark.parametrize("signed", [0, 1])
def test_a_number_whose_sign_another_element_says_is_written_with_it(signed: int) -> None:
    data = person()
    data.PixelRepresentation = signed
    data.add_new("PixelPaddingValue", "SS" if signed else "US", -2000 if signed else 63536)
    after = decoded(ENGINE.file(as_unknown(encoded(data))).data)
    assert (after["PixelPaddingValue"].VR, after.PixelPaddingValue) == (("SS", -2000) if signed else ("US", 63536))


def test_what_the_dictionary_does_not_know_is_removed() -> None:
    data = person()
    data.add_new(0x00189999, "UN", b"Zqmustermann")
    data.private_block(0x0019, "ZQMAKER", create=True).add_new(0x0C, "UN", b"1000")
    after = decoded(ENGINE.file(as_unknown(encoded(data))).data)
    assert 0x00189999 not in after
    assert not [element for element in after if element.tag.is_private]


def test_a_text_that_is_too_long_for_its_vr_is_removed() -> None:
    data = encoded(person())
    long = b"AXIAL" * 20_000
    at = as_unknown(data, keeps=frozenset({CHARACTER_SET, PIXEL_DATA, 0x00080008}))
    head = b"\x08\x00\x08\x00CS"
    begin = at.index(head)
    length = int.from_bytes(at[begin + 6 : begin + 8], "little")
    unknown = b"\x08\x00\x08\x00UN\0\0" + len(long).to_bytes(4, "little") + long
    after = decoded(ENGINE.file(at[:begin] + unknown + at[begin + 8 + length :]).data)
    assert "ImageType" not in after
    assert after.Modality == "CT"


def test_what_was_written_here_is_known_again_and_stays() -> None:
    once = ENGINE.file(as_unknown(encoded(person())))
    elements = Elements()
    walk(as_unknown(once.data), elements)
    assert already(elements, KEY)
    again = ENGINE.file(as_unknown(once.data))
    assert described(decoded(again.data)) == described(decoded(once.data))


def test_big_endian_files_lose_what_is_unknown() -> None:
    """PS3.5 6.2.2 has UN in little endian only; what it holds elsewhere nobody says."""
    data = person()
    data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
    data.PatientPosition = "HFS"
    position = b"\x00\x18\x51\x00CS\x00\x04HFS "
    received = encoded(data, ExplicitVRBigEndian)
    assert position in received
    after = decoded(ENGINE.file(received.replace(position, b"\x00\x18\x51\x00UN\x00\x00\x00\x00\x00\x04HFS ")).data)
    assert "PatientPosition" not in after
    assert after.Modality == "CT"


@pytest.mark.parametrize("degrees", [0.0, 37.0])
def test_a_series_is_read_voxel_by_voxel_in_the_same_place(tmp_path: Path, degrees: float) -> None:
    found = series(tmp_path / "named", affine_of(rotation(degrees, np.array((1, 2, 3)))))
    (tmp_path / "unknown").mkdir()
    for path in (tmp_path / "named").iterdir():
        (tmp_path / "unknown" / path.name).write_bytes(as_unknown(path.read_bytes()))
    (unknown,) = read_folder(tmp_path / "unknown").found
    np.testing.assert_array_equal(unknown.volume.array, found.volume.array)
    np.testing.assert_array_equal(unknown.volume.affine, found.volume.affine)
