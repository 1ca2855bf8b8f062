"""Claims about what a series says of its patient and its picture, and about how little memory that takes."""

import gc
import tracemalloc

import numpy as np
import pydicom
import pytest

from bedside.core.dataset import ACQUISITION
from bedside.core.identity import Identity
from bedside.core.volume import Volume
from bedside.formats.dicom import Look, assemble, look, read_folder
from bedside.formats.dicom_facts import plane_of
from bedside.formats.dicom_pixels import Slice
from bedside.formats.dicom_write import planes_of, write_planes

from .reading import IDENTITY, only


def with_(**values):
    def edit(dataset, _):
        for name, value in values.items():
            setattr(dataset, name, value)

    return edit


def facts(series, **values):
    name = values.pop("name", "s")
    return only(series(name, edit=with_(**values), manufacturer="ACME^Imaging", model="Ray 1")).acquisition


def test_what_is_known_of_a_picture_is_told_in_the_dataset_s_own_words(series):
    said = facts(
        series,
        BodyPartExamined="ABDOMEN",
        ConvolutionKernel="H31s",
        KVP=120,
        SliceThickness=2.5,
        PatientSex="F",
        PatientAge="067Y",
        ContrastBolusAgent="Iohexol",
        MagneticFieldStrength=1.5,
        EchoTime=4.5,
        RepetitionTime=2000,
        InstitutionName="General Hospital",
    )
    assert said == {
        "body_part": "abdomen",
        "manufacturer": "acme imaging",
        "model": "ray 1",
        "kernel": "h31s",
        "kvp": 120.0,
        "slice_thickness_mm": 2.5,
        "plane": "axial",
        "sex": "female",
        "age_years": 67.0,
        "contrast_agent": "yes",
        "field_strength_t": 1.5,
        "echo_time_ms": 4.5,
        "repetition_time_ms": 2000.0,
    }
    assert set(said) <= set(ACQUISITION)


def test_a_fact_that_slices_disagree_in_is_left_out(series):
    def edit(dataset, index):
        dataset.KVP, dataset.PatientSex = 100 + 20 * (index % 2), "M"

    said = only(series(edit=edit)).acquisition
    assert "kvp" not in said
    assert said["sex"] == "male"


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "018M"}, 1),
        ({"PatientAge": "006W"}, 0),
        ({"PatientAge": "101Y"}, 90),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200614"}, 69),
        ({"PatientBirthDate": "19000101", "StudyDate": "20200614"}, 90),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200614"}, None),
        ({"PatientBirthDate": "19500615"}, None),
        ({"PatientAge": ""}, None),
    ],
)
def test_ages_are_whole_years_and_stop_at_90(series, values, age):
    assert facts(series, **values).get("age_years") == age


def test_the_institution_is_told_only_as_a_keyed_stand_in(series):
    folder = series(edit=with_(InstitutionName="General Hospital"))
    (plain,) = read_folder(folder).found
    (keyed,) = read_folder(folder, identity=Identity("pseudonym", b"k" * 32)).found
    (other,) = read_folder(folder, identity=Identity("pseudonym", b"o" * 32)).found
    assert "institution" not in plain.acquisition
    assert len({keyed.acquisition["institution"], other.acquisition["institution"], "General Hospital"}) == 3


@pytest.mark.parametrize(
    ("normal", "plane"),
    [
        ((0, 0, 1), "axial"),
        ((0, -1, 0), "coronal"),
        ((1, 0, 0), "sagittal"),
        ((0.1, 0.3, 0.95), "axial"),
        ((0, 0.7, 0.7), "oblique"),
    ],
)
def test_the_plane_is_the_one_whose_normal_is_near(normal, plane):
    assert plane_of(normal) == plane


# --- free text that names somebody

_FREE = ["ConvolutionKernel", "BodyPartExamined", "ManufacturerModelName", "Manufacturer"]


def _read_labels(series, **values):
    """The labels of a series whose header has these values, beside what a patient's header has."""
    edit = with_(PatientName="Quillfeather^Bartholomäus", PatientBirthDate="19500615", AccessionNumber="AC-77123", **values)

    def charset(dataset, index):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        edit(dataset, index)

    found = only(series("named", edit=charset, patient_id="HX4711", manufacturer="ACME", model="Ray 1"))
    return {**found.acquisition, "scanner": found.scanner}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("keyword", _FREE)
@pytest.mark.parametrize(
    "value",
    [
        "Quillfeather",
        "B30 QUILLFEATHER",
        "xquillfeather2",
        "hx4711",
        "born 19500615",
        "AC-77123",
        "Bartholomäus",
        "no. 123456",
        "x" * 65,
    ],
)
def test_a_label_that_names_the_patient_is_left_out(series, keyword, value):
    said = _read_labels(series, **{keyword: value})
    everything = " ".join(str(one) for one in said.values()).casefold()
    known = {"Bartholomäus": "bartholom", "born 19500615": "19500615", "no. 123456": "123456", "B30 QUILLFEATHER": "quill"}
    assert known.get(value, value.casefold()) not in everything
    missing = {
        "ConvolutionKernel": "kernel",
        "BodyPartExamined": "body_part",
        "ManufacturerModelName": "model",
        "Manufacturer": "manufacturer",
    }
    assert missing[keyword] not in said


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_labels_that_name_nobody_stay(series):
    said = _read_labels(series, ConvolutionKernel=["Hr40f", "3"], BodyPartExamined="CHEST", ManufacturerModelName="SOMATOM Force")
    assert (said["kernel"], said["body_part"], said["model"], said["manufacturer"]) == ("hr40f", "chest", "somatom force", "acme")
    assert said["scanner"] == "ACME SOMATOM Force"
    assert "kernel" not in _read_labels(series, ConvolutionKernel="a sentence of somebody")


# --- names in many character sets


@pytest.mark.parametrize(
    ("patient", "first", "second"),
    [
        ("Müller-7", "ISO_IR 100", "ISO_IR 192"),
        ("Журналист", "ISO_IR 144", "ISO_IR 192"),
        ("Διονυσιος", "ISO_IR 126", "ISO_IR 192"),
        ("王小东", "GB18030", "ISO_IR 192"),
        ("山田", "ISO 2022 IR 87", "ISO_IR 192"),
    ],
)
def test_one_id_in_two_character_sets_is_one_patient(series, patient, first, second):
    def written(name, character_set):
        def edit(dataset, _):
            dataset.SpecificCharacterSet = ["", character_set] if "2022" in character_set else character_set
            dataset.PatientID = patient

        return only(series(name, edit=edit))

    assert written("a", first).patient_id == written("b", second).patient_id == patient
    assert patient not in repr(written("c", first))


def test_composed_and_decomposed_letters_are_one_name(series):
    ids = {only(series(name, edit=with_(SpecificCharacterSet="ISO_IR 192", PatientID=form))).patient_id
           for name, form in (("a", "Mu\u0308ller"), ("b", "M\u00fcller"))}  # fmt: skip
    assert ids == {"Müller"}


@pytest.mark.parametrize("character_set", ["ISO_IR 6", "NONSENSE", "ISO 2022 IR 149", "", "GB18030"])
def test_bytes_that_are_no_text_of_the_character_set_are_still_an_id(series, character_set, capsys, caplog, recwarn):
    folder = series(edit=with_(PatientID="JOHN-1234"))
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SpecificCharacterSet = character_set
        dataset.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"JOHN-1234", b"J\xffHN-\xfe234"))
    capsys.readouterr(), caplog.clear(), recwarn.clear()
    assert only(folder).patient_id
    assert (capsys.readouterr(), caplog.records, list(recwarn)) == (("", ""), [], [])


def test_the_issuer_of_an_id_is_told_and_never_shown(series):
    found = only(series(edit=with_(IssuerOfPatientID="HOSPITAL-A")))
    assert found.issuer == "HOSPITAL-A"
    assert "HOSPITAL-A" not in repr(found)


# --- memory


def test_a_look_of_a_hundred_thousand_is_small(series):
    folder = series(edit=with_(BodyPartExamined="HEAD", PatientAge="045Y", KVP=120, AcquisitionTime="101112.123"))
    seen = look(sorted(folder.iterdir())[0])
    data = type(seen.slices[0].header)
    fields = data.__dataclass_fields__
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def one(number):
        """What a look is after it came from another process: nothing is shared with the one before, until it is assembled."""
        header = seen.slices[0].header
        values = {name: getattr(header, name) for name in fields}
        values |= {
            "sop_uid": f"1.2.3.{number}" * 4,
            "position_mm": (0.5 + number, 1.5 + number, 2.5 + number),
            "instance": number + 1000,
        }
        path = folder / f"{number:08d}.dcm"
        return Look(path, f"{number:064d}", (None, "1.2.3"), (Slice(path, f"{number:064d}", data(**values)),))

    looks = [one(number) for number in range(2000)]
    used = (tracemalloc.get_traced_memory()[0] - before) / len(looks)
    tracemalloc.stop()
    assert used < 1500


def test_equal_facts_are_one_object_after_assembly(series):
    folder = series()
    slices = [one for found in assemble(map(look, sorted(folder.iterdir()))).found for one in found.volume.load.args[0]]
    assert len({id(one.header.facts) for one in slices}) == 1
    assert len({id(one.header.marks) for one in slices}) == 1


@pytest.mark.parametrize("kind", ["classic", "rescaled", "tilted"])
def test_decoding_holds_less_than_three_times_the_volume(tmp_path, kind):
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    if kind == "tilted":
        affine[1, 2] = 0.2
    paths = write_planes(tmp_path / "s", planes_of(Volume.of(np.zeros((128, 128, 60), np.int16), affine)), identity=IDENTITY)
    if kind == "rescaled":
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
            dataset.save_as(path)
    volume = only(tmp_path / "s").volume
    gc.collect()
    tracemalloc.start()
    array = volume.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * array.nbytes
