"""The engine on whole files: nothing of the person is left, nothing else is lost, and equal files give equal bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected, UsageError
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier, already, codes_of
from bedside.formats.dicom_elements import Elements, walk

from .identified import SOP, STUDY, decoded, encoded, nested, person

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # some values are wrong on purpose
KEY, OTHER = Identity("pseudonym", b"a secret of this test"), Identity("pseudonym", b"another secret of this test")
ENGINE = Deidentifier(KEY)

EVERY_OPTION = [
    Deidentification(dates=dates, device=True, institution=True, descriptors=True, safe_private=True)
    for dates in ("shift", "remove", "keep")
]


def option(**chosen) -> Deidentifier:
    return Deidentifier(KEY, Deidentification(**chosen))


def test_nothing_of_the_person_is_in_any_byte() -> None:
    done = ENGINE.file(encoded(person()))
    assert b"zq" not in done.data.lower()
    for received in (STUDY, SOP, "19560731", "20200229"):
        assert received.encode() not in done.data
    assert done.data[:128] == bytes(128)
    assert done.searched > 5


def test_everything_that_is_no_identity_is_kept_and_pixels_are_bit_identical() -> None:
    before, after = person(), decoded(ENGINE.file(encoded(person())).data)
    assert after.PixelData == before.PixelData
    for keyword in ("Modality", "ImageType", "BodyPartExamined", "Manufacturer", "ImagePositionPatient", "PixelSpacing", "Rows"):
        assert after[keyword].value == before[keyword].value
    assert (after.PatientSex, after.PatientWeight, after.PatientAge) == ("F", 71.5, "090Y")
    assert after.StudyTime == "101112"
    assert after.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_a_text_that_holds_the_persons_name_is_emptied_and_another_is_not() -> None:
    data = person()
    assert decoded(ENGINE.file(encoded(data)).data).ConvolutionKernel == ""
    data.ConvolutionKernel = "B30f"
    assert decoded(ENGINE.file(encoded(data)).data).ConvolutionKernel == "B30f"


def test_the_marks_that_the_standard_asks_for_are_written() -> None:
    done = ENGINE.file(encoded(person()), pixels_cleaned=True, burned_in="NO")
    after = decoded(done.data)
    assert after.PatientIdentityRemoved == "YES"
    assert [item.CodeValue for item in after.DeidentificationMethodCodeSequence] == ["113100", "113101", "113107", "113108"]
    assert tuple(done.codes) == ("113100", "113101", "113107", "113108")
    assert after.LongitudinalTemporalInformationModified == "MODIFIED"
    assert after.DeidentificationMethod.endswith(f" {KEY.key_id}")
    (equipment,) = after.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109104"
    assert equipment.ContributionDescription == KEY.seal(done.patient, KEY.uid(STUDY), KEY.uid(SOP))
    assert after.SpecificCharacterSet == "ISO_IR 192"
    assert after.BurnedInAnnotation == "NO"
    assert after.PatientID == str(after.PatientName) == done.patient == KEY.patient("ZQ4711")
    assert "SourceApplicationEntityTitle" not in after.file_meta
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID == KEY.uid(SOP) == done.sop_uid


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_byte_order_and_vr_encoding_is_cleaned(syntax: str) -> None:
    data = person()
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
    after = decoded(ENGINE.file(encoded(data, syntax)).data)
    assert b"zq" not in str(after).lower().encode()
    assert after.PixelData == data.PixelData
    assert after.file_meta.TransferSyntaxUID == syntax


@pytest.mark.parametrize("levels", [1, 2, 30, 64])
def test_sequences_are_cleaned_to_the_bottom(levels: int) -> None:
    written = ENGINE.file(encoded(nested(levels))).data
    assert b"zq" not in written.lower()
    assert SOP.encode() not in written
    inner = decoded(written).ReferencedImageSequence[0]
    for _ in range(levels - 1):
        inner = inner.ConceptCodeSequence[0]
    assert inner.ReferencedSOPInstanceUID == KEY.uid(SOP)
    assert inner.PatientName == ""
    assert "SpecificCharacterSet" not in inner


def test_deeper_nesting_is_refused_and_not_recursed_into() -> None:
    with pytest.raises(InputRejected) as caught:
        ENGINE.file(encoded(nested(65)))
    assert caught.value.code == "DCM_DEPTH"


def test_equal_input_key_and_options_give_equal_bytes() -> None:
    received = encoded(person())
    assert ENGINE.file(received).data == Deidentifier(KEY).file(received).data
    assert ENGINE.file(received).data != Deidentifier(OTHER).file(received).data


def test_a_file_that_was_done_is_recognised_and_stays_as_it_is() -> None:
    once = ENGINE.file(encoded(person()))
    again = ENGINE.file(once.data)
    assert again.again
    assert again.data == once.data
    assert again.patient == once.patient


def test_only_the_key_makes_a_seal_that_is_believed() -> None:
    once = ENGINE.file(encoded(person())).data
    elements = Elements()
    walk(once, elements)
    assert already(elements, KEY)
    assert not already(elements, OTHER)
    assert not already(elements, Identity("keep"))
    forged = decoded(once)
    forged.PatientID = forged.PatientName = "ZQ4711"
    elements = Elements()
    walk(encoded(forged), elements)
    assert not already(elements, KEY)
    assert b"ZQ4711" not in ENGINE.file(encoded(forged)).data


def test_what_was_put_into_a_sealed_file_afterwards_is_removed() -> None:
    opened = decoded(ENGINE.file(encoded(person())).data)
    opened.ReferringPhysicianName, opened.PatientComments = "Zqarzt", "Zqmustermann"
    assert b"zq" not in ENGINE.file(encoded(opened)).data.lower()


@settings(max_examples=20)
@given(st.text("ABCDEFGHIJ0123456789", min_size=4, max_size=12), st.dates(), st.dates())
def test_a_patients_files_share_pseudonym_and_shift_in_every_batch(patient: str, first, second) -> None:
    if min(first.year, second.year) < 1900:
        first, second = first.replace(year=1950, day=1), second.replace(year=1990, day=1)
    done = []
    for day in (first, second):
        data = person(patient)
        data.StudyDate = day.strftime("%Y%m%d")
        done.append(Deidentifier(KEY).file(encoded(data)))
    assert done[0].patient == done[1].patient == KEY.patient(patient)
    moved = [np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in (decoded(one.data).StudyDate for one in done)]
    assert (moved[1] - moved[0]).astype(int) == (second - first).days
    assert Deidentifier(OTHER).file(encoded(person(patient))).patient != done[0].patient


def test_dates_that_were_kept_are_moved_later_and_moved_ones_never_come_back() -> None:
    kept = option(dates="keep").file(encoded(person()))
    moved = ENGINE.file(kept.data)
    assert decoded(kept.data).StudyDate == "20200229"
    assert moved.data == ENGINE.file(encoded(person())).data
    back = decoded(option(dates="keep").file(moved.data).data)
    assert back.StudyDate == decoded(moved.data).StudyDate
    assert back.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "113107" in [item.CodeValue for item in back.DeidentificationMethodCodeSequence]


def test_another_day_moved_onto_the_date_of_birth_does_not_refuse_the_file() -> None:
    data = person()
    data.PatientBirthDate = decoded(ENGINE.file(encoded(data)).data).StudyDate
    assert ENGINE.file(encoded(data)).patient == KEY.patient("ZQ4711")


def test_a_name_where_a_class_uid_belongs_is_refused() -> None:
    data = person()
    received = encoded(data)
    spoilt = received.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.ZQMUSTERMANN^ERIKA.2.2")
    assert spoilt != received
    with pytest.raises(InputRejected) as caught:
        ENGINE.file(spoilt)
    assert caught.value.code == "DCM_UID"
    assert "ZQ" not in str(caught.value)


def test_the_issuer_tells_two_patients_with_one_number_apart() -> None:
    data = person()
    data.IssuerOfPatientID = "ZQNORD"
    assert ENGINE.file(encoded(data)).patient == KEY.patient("ZQ4711", "ZQNORD") != KEY.patient("ZQ4711")


def test_patients_without_a_number_do_not_become_one() -> None:
    first, second = person(""), person("")
    second.StudyInstanceUID = STUDY + ".77"
    assert ENGINE.file(encoded(first)).patient != ENGINE.file(encoded(second)).patient
    del first.StudyInstanceUID, first.SeriesInstanceUID, first.FrameOfReferenceUID
    with pytest.raises(InputRejected) as caught:
        ENGINE.file(encoded(first))
    assert caught.value.code == "PHI_PATIENT"


@pytest.mark.parametrize(
    ("chosen", "keyword", "value"),
    [
        ({"dates": "keep"}, "StudyDate", "20200229"),
        ({"dates": "remove"}, "StudyDate", ""),
        ({"dates": "remove"}, "SeriesDate", None),
        ({"dates": "remove"}, "StudyTime", ""),
        ({"device": True}, "StationName", "ZQCT1"),
        ({"institution": True}, "InstitutionName", "Zqklinik Nord"),
        ({"patient_characteristics": False}, "PatientSex", ""),
        ({"patient_characteristics": False}, "PatientWeight", None),
        ({"descriptors": True}, "SeriesDescription", "Thorax axial"),
        ({"descriptors": True}, "StudyDescription", "CT HEAD"),
        ({}, "StudyDescription", None),
        ({}, "StationName", None),
        ({}, "InstitutionName", None),
        ({}, "PatientBirthDate", ""),
        ({}, "AccessionNumber", ""),
    ],
)
def test_an_option_changes_what_it_says(chosen: dict, keyword: str, value: str | None) -> None:
    assert decoded(option(**chosen).file(encoded(person())).data).get(keyword) == value


def test_options_are_written_as_codes() -> None:
    everything = Deidentification(dates="keep", device=True, institution=True, descriptors=True, safe_private=True)
    codes = [code for code, _ in codes_of(everything)]
    assert codes == ["113100", "113105", "113106", "113108", "113109", "113111", "113112"]
    assert [code for code, _ in codes_of(Deidentification(dates="remove", patient_characteristics=False))] == ["113100"]


def test_safe_private_elements_stay_only_by_creator_element_and_form() -> None:
    data = person()
    safe = data.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    safe.add_new(0x0C, "IS", "1000")
    safe.add_new(0x0D, "CS", "Zqmustermann")
    safe.add_new(0x55, "LO", "Zqmustermann")
    kept = [int(e.tag) for e in decoded(option(safe_private=True).file(encoded(data)).data) if e.tag.is_private]
    assert kept == [0x00190011, 0x0019110C]
    assert not [e for e in decoded(ENGINE.file(encoded(data)).data) if e.tag.is_private]


def test_a_safe_private_number_that_is_the_patients_own_is_removed_and_not_only_found() -> None:
    data = person()
    data.PatientID = "73194711"
    block = data.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", ["73194711", "0"])
    block.add_new(0x6F, "DS", "3")
    after = decoded(option(safe_private=True).file(encoded(data)).data)
    assert [int(e.tag) for e in after if e.tag.is_private] == [0x00430010, 0x0043106F]


def test_a_safe_private_binary_number_stays_only_where_the_file_says_that_it_is_one() -> None:
    data = person()
    block = data.private_block(0x0045, "GEMS_HELIOS_01", create=True)
    block.add_new(0x01, "SS", 64)
    block.add_new(0x02, "OB", b"ab")
    after = decoded(option(safe_private=True).file(encoded(data)).data)
    assert [int(e.tag) for e in after if e.tag.is_private] == [0x00450010, 0x00451001]


def test_with_the_option_device_names_stay_network_names_are_cleaned_and_dates_do_as_all_dates() -> None:
    data = person()
    data.GantryID, data.StationAETitle, data.DateOfLastCalibration = "G7", "AXIAL ZQHOSP", "20200229"
    data.SourceOfPreviousValues, data.SecondaryCaptureDeviceID = "PACS7", "CAMERA"
    after = decoded(option(device=True, institution=True).file(encoded(data)).data)
    assert (after.GantryID, after.SecondaryCaptureDeviceID, after.SourceOfPreviousValues) == ("G7", "CAMERA", "PACS7")
    assert after.StationAETitle == "AXIAL"
    assert after.DateOfLastCalibration == after.StudyDate != "20200229"
    plain = decoded(ENGINE.file(encoded(data)).data)
    assert not {"GantryID", "StationAETitle", "SecondaryCaptureDeviceID"} & set(plain.dir())
    assert plain.SourceOfPreviousValues == ""  # action Z


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müllerin^Jörg"),
        ("ISO_IR 144", "Люксембург^Роза"),
        ("ISO_IR 126", "Διονυσιος^Αλφα"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("ISO_IR 192", "Mu\u0308ller^Rene\u0301"),
    ],
)
def test_names_in_any_character_set_are_found_in_other_texts(charset: str | list[str], name: str) -> None:
    data = person(name=name)
    data.SpecificCharacterSet = charset
    data.ConvolutionKernel = name.replace("^", " ").split("=")[-1][:16]
    data.Manufacturer = "Größe" if charset == "ISO_IR 100" else "ACME"
    done = ENGINE.file(encoded(data))
    after = decoded(done.data)
    assert after.ConvolutionKernel == ""
    assert after.Manufacturer == data.Manufacturer
    assert after.SpecificCharacterSet == "ISO_IR 192"
    assert not any(part.encode() in done.data for part in name.replace("=", "^").split("^"))


def test_text_hidden_under_another_kind_of_value_does_not_stay() -> None:
    data = person()
    data.add_new(0x00181160, "OB", b"Zqneighbour!")  # FilterType, a CS
    data.add_new(0x00189004, "UN", b"Zqneighbour!")
    data.add_new(0x00187FFE, "LO", "Zqneighbour")  # no attribute of the standard
    data.add_new(0x00200060, "ST", "Zqneighbour")
    done = ENGINE.file(encoded(data))
    assert b"zqneighbour" not in done.data.lower()


def test_what_would_be_left_refuses_the_file() -> None:
    data = person()
    data.add_new(0x00282000, "OB", b"made by Zqmustermann ")  # ICCProfile: binary that nobody parses
    with pytest.raises(InputRejected) as caught:
        ENGINE.file(encoded(data))
    assert caught.value.code == "PHI_RESIDUAL"
    assert "zq" not in str(caught.value).lower()


def test_documents_are_refused_and_report_text_becomes_a_dummy() -> None:
    document = person()
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    with pytest.raises(InputRejected) as caught:
        ENGINE.file(encoded(document))
    assert caught.value.code == "PHI_DOCUMENT"
    report = person()
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    line = Dataset()
    line.TextValue = "Zqmustermann is ill"
    report.ContentSequence = Sequence([line])
    after = decoded(ENGINE.file(encoded(report)).data)
    assert [item.TextValue for item in after.ContentSequence] == ["REMOVED"]


def test_uids_of_classes_and_of_the_standard_stay() -> None:
    data = nested(1)
    data.ReferencedImageSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.ReferencedImageSequence[0].ConcatenationUID = "1.2.3.4.5.6.7.8.9.10"
    after = decoded(ENGINE.file(encoded(data)).data)
    assert after.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert after.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert after.ReferencedImageSequence[0].ConcatenationUID == KEY.uid("1.2.3.4.5.6.7.8.9.10")


def test_actions_name_attributes_and_rules_and_no_values() -> None:
    done = ENGINE.file(encoded(person()))
    said = " ".join(str(one) for one in done.actions).lower()
    assert "zq" not in said
    assert {("00081030", "removed", "profile"), ("00080020", "shifted", "dates"), ("00100020", "pseudonym", "patient")} <= {
        (one.tag, one.what, one.because) for one in done.actions
    }
    assert "mustermann" not in repr(done)


def test_names_that_are_kept_cannot_be_deidentified() -> None:
    with pytest.raises(UsageError, match="pseudonym"):
        Deidentifier(Identity("keep"))


def test_the_documentations_list_is_the_tools_own(repository) -> None:
    text = (repository / "docs" / "de-identification.md").read_text()
    listed = text.split("<!-- rules -->")[1].split("<!-- end of rules -->")[0].strip().splitlines()
    assert listed == [f"- **{one.rule}**: {one.says}" for one in ENGINE.explain()]


def test_the_documentations_codes_are_those_that_are_written(repository) -> None:
    text = (repository / "docs" / "de-identification.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| 1131" in line]
    written = {code for o in EVERY_OPTION for code, _ in codes_of(o, pixels=True)}
    assert {row.split("|")[2].strip() for row in rows} == written


def test_damaged_files_are_refused_by_name_and_nothing_else_is_raised() -> None:
    """Seeded mutations of the header, explicit and implicit VR."""
    draw = np.random.default_rng(7)
    received = [encoded(nested(3)), encoded(nested(3), ImplicitVRLittleEndian)]
    codes, said = [], ""
    for number in range(300):
        spoilt = bytearray(received[number % 2])
        for at in draw.integers(132, 1800, 4):
            spoilt[at] = draw.integers(256)
        try:
            ENGINE.file(bytes(spoilt))
        except InputRejected as problem:
            codes.append(problem.code)
            said += str(problem).lower()
    assert 100 < len(codes) < 290
    assert "zq" not in said
    assert all(code.startswith(("DCM_", "PHI_")) for code in codes)
