"""A head is recognised by what its header says in any of the hospital's words, and unknown parts count as heads."""

from io import BytesIO

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.face import face_of, recognizable

HEADS = {
    "BodyPartExamined": ["HEAD", "BRAIN", "SKULL", "FACE", "NECK", "HEADNECK", "WHOLEBODY", "CSPINE", "ORBIT", "JAW", "IAC"],
    "StudyDescription": [
        *("CT HEAD WITHOUT CONTRAST", "MRI BRAIN W/O", "CTA Head/Neck", "Stroke protocol", "PET-CT skull base to mid-thigh"),
        *("CT Schädel nativ", "MRT Kopf", "cCT", "Gesichtsschädel", "CT NNH", "Ganzkörper-CT", "Hals-Weichteile", "Schaedel-CT"),
        *("IRM cérébrale", "Scanner du crâne", "TDM massif facial", "Tête", "cou", "Corps entier"),
        *("TAC de cráneo", "RM cerebro", "Cabeza", "cuello", "cuerpo entero", "RM de cara"),
        *("CT hersenen", "MRI schedel", "Hoofd", "hals", "aangezicht", "CT nek", "hele lichaam"),
    ],
    "SeriesDescription": ["t1_mprage_sag", "AX FLAIR", "3D TOF", "ax_brain", "Sinuses bone", "head2"],
    "ProtocolName": ["Neuro^Routine", "ED_HEAD_NEURO_SEQ", "5.1 HeadSeq", "c-spine", "c_spine"],
}
ELSEWHERE = {
    "BodyPartExamined": ["CHEST", "ABDOMEN", "PELVIS", "KNEE", "HIP", "LSPINE", "HAND", "EXTREMITY"],
    "StudyDescription": ["CT Thorax/Abdomen", "MRT Knie links", "LWS", "Becken", "Genou droit", "TAC abdomen", "heup links"],
    "SeriesDescription": ["t2 prostate surface coil", "liver interface", "Lung 1.0 B70f"],
    "ProtocolName": ["ThoraxAbdomen", "Shoulder"],
}


def header(syntax=ExplicitVRLittleEndian, *, spacing=(0.5, 0.5), rows=512, columns=512, modality="CT", **facts):
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    data.Modality, data.Rows, data.Columns = modality, rows, columns
    if spacing:
        data.PixelSpacing = list(spacing)
    data.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in facts.items():
        setattr(data, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = syntax, data.SOPClassUID, "1.2.3"
    data.file_meta = meta
    stream = BytesIO()
    dcmwrite(stream, data, enforce_file_format=True)
    elements = Elements()
    walk(stream.getvalue(), elements)
    return elements


def code(value, meaning, scheme="SRT"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


@pytest.mark.parametrize(("keyword", "words"), [(keyword, words) for keyword, many in HEADS.items() for words in many])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_a_head_is_known_by_its_words(keyword, words, modality):
    assert recognizable(header(modality=modality, **{keyword: words}))


@pytest.mark.parametrize(("keyword", "words"), [(keyword, words) for keyword, many in ELSEWHERE.items() for words in many])
def test_another_part_is_no_head(keyword, words):
    assert face_of(header(**{keyword: words})) == ""


def test_a_head_beside_another_part_is_a_head():
    assert recognizable(header(BodyPartExamined="CHEST", StudyDescription="CT neck and chest"))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(("value", "meaning"), [("T-D1100", "x"), ("69536005", "x"), ("X-1", "Head"), ("12738006", "")])
def test_a_head_is_known_by_its_region_code(syntax, value, meaning):
    assert recognizable(header(syntax, BodyPartExamined="KNEE", AnatomicRegionSequence=code(value, meaning)))
    assert not recognizable(header(syntax, AnatomicRegionSequence=code("T-D9200", "Ankle")))


def test_a_head_is_known_by_the_functional_groups_of_a_multi_frame_image():
    frame, shared = Dataset(), Dataset()
    frame.AnatomicRegionSequence = code("T-D1100", "Head")
    shared.FrameAnatomySequence = Sequence([frame])
    assert recognizable(header(BodyPartExamined="KNEE", SharedFunctionalGroupsSequence=Sequence([shared])))


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_an_unknown_part_counts_as_a_head_when_a_head_could_be_in_the_picture(modality):
    assert recognizable(header(modality=modality))
    assert recognizable(header(modality=modality, StudyDescription="routine"))
    assert recognizable(header(modality=modality, spacing=None))
    assert not recognizable(header(modality=modality, rows=51, columns=35, spacing=(1, 1)))
    assert not recognizable(header(modality=modality, spacing=(0.5, 0.1)))
    assert recognizable(header(modality=modality, spacing=(0.2, 0.2)))


def test_what_is_marked_as_defaced_is_no_longer_recognizable():
    assert face_of(header(BodyPartExamined="HEAD", RecognizableVisualFeatures="NO")) == "removed"
    defaced = header(BodyPartExamined="HEAD", DeidentificationMethodCodeSequence=code("113102", "Clean Recognizable", "DCM"))
    assert face_of(defaced) == "removed"
    other = header(BodyPartExamined="HEAD", DeidentificationMethodCodeSequence=code("113100", "Basic", "DCM"))
    assert face_of(other) == "recognizable"


def test_a_header_that_admits_a_face_is_believed():
    assert recognizable(header(BodyPartExamined="KNEE", RecognizableVisualFeatures="YES"))


@pytest.mark.parametrize("modality", ["US", "SEG", "CR", "SR", ""])
def test_other_modalities_hold_no_volume_of_a_face(modality):
    assert face_of(header(modality=modality, BodyPartExamined="HEAD", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")) == ""


@pytest.mark.parametrize("modality", ["OT", "SEG", "CT\\CT", ""])
def test_a_scanners_own_class_shows_a_face_whatever_word_its_modality_is(modality):
    assert recognizable(header(modality=modality, BodyPartExamined="HEAD"))


def test_a_spacing_that_is_no_number_could_hold_a_head():
    elements = header(spacing=(0.1, 0.1))
    place = elements.table[0x00280030]
    elements.data = elements.data[: place.start] + b"a" * (place.end - place.start) + elements.data[place.end :]
    assert recognizable(elements)
