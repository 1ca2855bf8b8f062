"""What is written is what pydicom's own writer would write, in every encoding; what nobody changed is copied."""

from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.formats.deidentify_write import part10
from bedside.formats.dicom_elements import data_set_start

from .identified import encoded, nested, person

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # some values are wrong on purpose
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def both(received: bytes) -> tuple[bytes, bytes]:
    """The data set as we and pydicom write it, of a file that was read and not changed."""
    ours, theirs = (pydicom.dcmread(BytesIO(received)) for _ in range(2))
    stream = BytesIO()
    theirs.preamble = bytes(128)
    dcmwrite(stream, theirs, enforce_file_format=True)
    written = part10(ours, ours.file_meta)
    return written[data_set_start(written) :], stream.getvalue()[data_set_start(stream.getvalue()) :]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("make", [person, lambda: nested(5)], ids=["flat", "nested"])
def test_an_unchanged_file_is_written_as_pydicom_writes_it(make, syntax: str) -> None:
    ours, theirs = both(encoded(make(), syntax))
    assert ours == theirs


@pytest.mark.parametrize("undefined", [True, False])
def test_lengths_of_sequences_and_items_stay_open_where_they_were(undefined: bool) -> None:
    data = nested(3)
    data.ReferencedImageSequence.is_undefined_length = data["ReferencedImageSequence"].is_undefined_length = undefined
    data.ReferencedImageSequence[0].is_undefined_length_sequence_item = undefined
    received = encoded(data)
    ours, theirs = both(received)
    assert ours == theirs
    assert (b"\xff\xff\xff\xff" in ours) == undefined


@pytest.mark.real
def test_a_real_enhanced_file_is_written_as_pydicom_writes_it(data_root) -> None:
    path = next((data_root / "dicom_conversion_dev" / "philips_enhanced").rglob("*.dcm"))
    ours, theirs = both(path.read_bytes())
    assert ours == theirs


def test_values_that_nobody_read_are_not_decoded() -> None:
    data = pydicom.dcmread(BytesIO(encoded(person())))
    part10(data, data.file_meta)
    assert isinstance(data.get_item("PixelSpacing"), RawDataElement)


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip("\0 ") and "\\" not in text and text.isprintable()))
def test_what_was_changed_is_written_in_utf_8_at_every_level(word: str) -> None:
    data = pydicom.dcmread(BytesIO(encoded(person())))
    inner = Dataset()
    inner.CodeMeaning = word
    data.ConceptNameCodeSequence = Sequence([inner])
    data.SpecificCharacterSet, data.SeriesDescription = "ISO_IR 192", word
    after = pydicom.dcmread(BytesIO(part10(data, data.file_meta)))
    assert after.SeriesDescription == word.rstrip(" ") == after.ConceptNameCodeSequence[0].CodeMeaning


def test_a_file_with_meta_elements_in_its_data_set_is_not_written() -> None:
    data = person()
    data[0x00020002] = pydicom.DataElement(0x00020002, "UI", "1.2.3")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    with pytest.raises(ValueError):
        part10(data, meta)
