"""Elements of VR UN that the standard defines: read like all others, de-identified like all others, and none of them is lost."""

import struct
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier, already
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_elements import PIXEL_DATA, Elements, walk

from .identified import SOP, STUDY, decoded, encoded, person
from .segmented import affine_of, rotation, series
from .unknown import as_unknown, named_unknown

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


def with_unknown(tag: int, value: bytes, data: Dataset | None = None) -> bytes:
    """A file in which this element, and no other, is of VR UN and has these bytes."""
    received = encoded(data or person())
    elements = Elements()
    walk(received, elements)
    long = {"OB", "OW", "SQ", "UT"}
    starts = {one: place.start - (12 if place.vr in long else 8) for one, place in elements.table.items()}
    begin = starts[tag] if tag in starts else min([start for one, start in starts.items() if one > tag], default=len(received))
    end = elements.table[tag].end if tag in starts else begin
    return received[:begin] + named_unknown(tag, value) + received[end:]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x00080008, b"AXIAL" * 20_000),
        (0x00189087, b"Zqmustermann, 0171 5551234, of Zqdorf, room 1."),
        (0x00189087, bytes(6)),
        (0x00280010, bytes(4)),
        (0x00280106, b"Zqmustermann"),
        (0x00282000, b"Zqmustermann"),
        (0x00281201, b"Zqmustermann"),
        (0x7FE00008, b"Zqmustermann"),
    ],
    ids=[
        "ImageType",
        "DiffusionBValue",
        "half a number",
        "two Rows",
        "SmallestImagePixelValue",
        "ICCProfile",
        "palette",
        "floats",
    ],
)
def test_what_cannot_be_such_a_value_or_may_be_anything_is_removed(tag: int, value: bytes) -> None:
    after = decoded(ENGINE.file(with_unknown(tag, value)).data)
    assert tag not in after
    assert after.Modality == "CT"


def lone(tag: int, value: bytes, length: int | None = None) -> bytes:
    """An element in implicit VR; `length` is what it says of itself."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes, length: int | None = None) -> bytes:
    return lone(0xFFFEE000, content, length)


SWALLOWED = lone(0x00100010, b"Klein^Maria ") + lone(0x00321060, b"hip of Klein")


@pytest.mark.parametrize(
    "content",
    [
        item(lone(0x00189328, bytes(8), 500) + SWALLOWED),
        item(lone(0x00189328, bytes(8), 8 + 8 + len(SWALLOWED))) + item(SWALLOWED),
        item(lone(0x00189328, bytes(8)), 500),
        item(b"\x18\x00\x28\x93FD\x08\x00" + bytes(8) + b"\x32\x00\x60\x10LO\x0c\x00hip of Klein"),
    ],
    ids=["beyond the sequence", "into the next item", "item beyond the sequence", "explicit inside"],
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["UN", "implicit"])
def test_an_element_of_a_sequence_without_a_vr_swallows_no_other(content: bytes, syntax: str) -> None:
    """What a number's value holds is not looked at, so a length that reaches over a name would hide it."""
    if syntax == ExplicitVRLittleEndian:
        received = with_unknown(0x00189321, content)
    else:
        received = encoded(person(), syntax)
        at = received.index(b"\x20\x00\x0d\x00")
        received = received[:at] + lone(0x00189321, content) + received[at:]
    with pytest.raises(InputRejected) as refused:
        ENGINE.file(received)
    assert refused.value.code in {"DCM_TRUNCATED", "DCM_STRUCTURE"}


def test_a_sequence_of_very_many_items_is_refused_before_it_is_read() -> None:
    received = with_unknown(0x00189321, item(b"") * 300_000)
    began = time.process_time()
    with pytest.raises(InputRejected) as refused:
        ENGINE.file(received)
    assert refused.value.code == "DCM_ELEMENTS"
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "Wang^小东"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_names_in_any_character_set_are_the_same_names(charset: str | list[str], name: str) -> None:
    data = person(name=name)
    data.SpecificCharacterSet = charset
    data.ImageComments = data.ConvolutionKernel = name.split("=")[-1].replace("^", " ")
    named, unnamed = ENGINE.file(encoded(data)), ENGINE.file(as_unknown(encoded(data)))
    assert described(decoded(unnamed.data)) == described(decoded(named.data))
    assert (unnamed.patient, unnamed.searched) == (named.patient, named.searched)


def test_a_seal_where_it_stood_at_first_still_counts() -> None:
    done = ENGINE.file(encoded(person()))
    data = decoded(done.data)
    data.DeidentificationMethod = [
        data.DeidentificationMethod,
        f"seal {data.ContributingEquipmentSequence[0].ContributionDescription}",
    ]
    del data.ContributingEquipmentSequence
    stream = BytesIO()
    data.save_as(stream)
    again = ENGINE.file(stream.getvalue())
    assert again.again
    assert (again.patient, again.sop_uid) == (done.patient, done.sop_uid)


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
