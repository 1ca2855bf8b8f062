"""Claims about series that hold several volumes, and about what is set aside from them."""

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pydicom
import pytest

from bedside.core.volume import Volume
from bedside.formats.dicom import assemble, look, read_folder
from bedside.formats.dicom_write import SeriesIdentity, planes_of, write_planes

from .reading import IDENTITY, codes, only

MR = SeriesIdentity.of("P1", "1", modality="MR")


def copies(folder, volume, edits, *, identity=MR, order=None):
    """One series with one volume per edit: the same places, values 100 apart, each file changed by `edit(dataset, k)`."""
    planes, changes = [], []
    for number, edit in enumerate(edits):
        for k, plane in enumerate(planes_of(Volume.of(volume.array[0] + np.int16(100 * number), volume.affine))):
            planes.append(plane)
            changes.append((edit, k, number))
    count = volume.shape[3]
    for path, (edit, k, number) in zip(write_planes(folder, planes, identity=identity), changes, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = number * count + k + 1 if order is None else order(number, k)
        edit(dataset, k)
        dataset.save_as(path)
    return folder


def with_(**values):
    def edit(dataset, _):
        for name, value in values.items():
            setattr(dataset, name, value)

    return edit


def first_values(reading):
    return [int(found.volume.array.min()) for found in reading.found]


@pytest.mark.parametrize(
    ("edits", "by", "order"),
    [
        ([with_(EchoTime=e) for e in (12.5, 4, 30)], "ECHO", [100, 0, 200]),
        ([with_(EchoNumbers=e) for e in (2, 1)], "ECHO", [100, 0]),
        ([with_(TemporalPositionIdentifier=t) for t in (1, 2, 10)], "TEMPORAL_POSITION", [0, 100, 200]),
        ([with_(AcquisitionNumber=t) for t in (9, 10)], "ACQUISITION", [0, 100]),
        ([with_(TriggerTime=t) for t in (0, 100, 40)], "TRIGGER", [0, 200, 100]),
        ([with_(AcquisitionTime=t) for t in ("100001", "095959")], "ACQUISITION_TIME", [100, 0]),
        ([with_(DiffusionBValue=b) for b in (0.0, 1000.0)], "DIFFUSION", [0, 100]),
        ([with_(DiffusionBValue=9.0, DiffusionGradientOrientation=g) for g in ([1.0, 0, 0], [0, 1.0, 0])], "DIFFUSION", [0, 100]),
        ([with_(ImageType=["ORIGINAL", "PRIMARY", kind, "ND"]) for kind in "MP"], "IMAGE_TYPE", [0, 100]),
        ([with_(ImageType=["ORIGINAL", "PRIMARY", "DIXON", kind]) for kind in ("WATER", "FAT")], "IMAGE_TYPE", [0, 100]),
        ([with_(), with_(), with_()], "NUMBER", [0, 100, 200]),
    ],
)
def test_a_series_with_several_images_of_each_place_becomes_volumes_in_their_own_order(
    tmp_path, numbered, plain_affine, place_error_mm, edits, by, order
):
    written = numbered(plain_affine())
    reading = read_folder(copies(tmp_path / "s", written, edits))
    assert reading.refused == ()
    assert first_values(reading) == order
    for found, offset in zip(reading.found, order, strict=True):
        shifted = Volume.of(found.volume.array[0] - np.int16(offset), found.volume.affine)
        assert place_error_mm(written, shifted) < 1e-9
        assert found.notes == (f"SPLIT_BY_{by}",)
    assert [found.name for found in reading.found] == [f"{MR.series_uid}#{n}" for n in range(1, len(order) + 1)]
    assert len({found.source for found in reading.found}) == len(order)


def test_two_marks_at_once_divide_a_series_that_neither_divides_alone(tmp_path, numbered, plain_affine):
    edits = [with_(EchoTime=e, ImageType=["ORIGINAL", "PRIMARY", kind]) for kind in "MP" for e in (5, 10)]
    reading = read_folder(copies(tmp_path / "s", numbered(plain_affine()), edits))
    assert first_values(reading) == [0, 100, 200, 300]
    assert {found.notes for found in reading.found} == {("SPLIT_BY_IMAGE_TYPE_AND_ECHO",)}


def test_numbers_that_stay_at_each_place_divide_too(tmp_path, numbered, plain_affine):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_()] * 3, order=lambda number, k: 3 * k + number + 1)
    assert first_values(read_folder(folder)) == [0, 100, 200]


@pytest.mark.parametrize("order", [lambda n, k: 1, lambda n, k: (7 * (5 * n + k)) % 11])
def test_numbers_without_a_regular_round_divide_nothing(tmp_path, numbered, plain_affine, order):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_()] * 2, order=order)
    assert codes(folder) == {"SERIES_DUPLICATE_POSITION"}


def test_a_mark_that_cuts_unequal_stacks_divides_nothing(tmp_path, numbered, plain_affine):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_(EchoTime=5), with_(EchoTime=9)])
    sorted(folder.iterdir())[-1].unlink()
    reading = read_folder(folder)
    assert {refused.code for refused in reading.refused} == {"SERIES_DUPLICATE_POSITION"}
    assert sum(len(refused.files) for refused in reading.refused) == 9


def test_the_same_slice_missing_at_every_time_is_seen_at_every_time(tmp_path, numbered, plain_affine):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_(EchoTime=5), with_(EchoTime=9)])
    for index in (2, 7):
        (folder / f"slice-{index:04d}.dcm").unlink()
    reading = read_folder(folder)
    assert [(one.code, len(one.files)) for one in reading.refused] == [("SERIES_MISSING_SLICE", 4)] * 2


def test_a_damaged_file_refuses_every_volume_it_could_belong_to(tmp_path, numbered, plain_affine):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_(EchoTime=5), with_(EchoTime=9)])
    last = folder / "slice-0010.dcm"
    last.write_bytes(last.read_bytes()[:-3])
    assert codes(folder) == {"DCM_TRUNCATED", "SERIES_INCOMPLETE"}


def second(tmp_path, volume, **identity):
    """Another stack of files under the same series, by its instance numbers' offset."""
    write_planes(tmp_path / "b", planes_of(volume), identity=SeriesIdentity.of("P1", "1", **identity))
    for path in sorted((tmp_path / "b").iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.9"
        dataset.InstanceNumber += 100
        dataset.save_as(path)


def test_two_sound_stacks_of_different_grids_are_two_volumes(tmp_path, numbered, plain_affine, place_error_mm):
    fine, coarse = numbered(plain_affine()), numbered(plain_affine((1.5, 1.5, 4.0)), (5, 4, 4))
    write_planes(tmp_path / "a", planes_of(fine), identity=SeriesIdentity.of("P1", "1"))
    second(tmp_path, coarse)
    reading = read_folder(tmp_path)
    assert reading.refused == ()
    assert {found.notes for found in reading.found} == {("SPLIT_BY_GRID",)}
    for written, found in zip((fine, coarse), reading.found, strict=True):
        assert place_error_mm(written, found.volume) < 1e-9


def test_a_part_that_is_no_volume_is_refused_by_its_own_name_and_the_others_go_on(tmp_path, numbered, plain_affine):
    write_planes(tmp_path / "a", planes_of(numbered(plain_affine())), identity=SeriesIdentity.of("P1", "1"))
    second(tmp_path, numbered(plain_affine((1.5, 1.5, 4.0)), (5, 4, 5)))
    sorted((tmp_path / "b").iterdir())[2].unlink()
    reading = read_folder(tmp_path)
    assert len(reading.found) == 1
    assert [(one.code, len(one.files)) for one in reading.refused] == [("SERIES_MISSING_SLICE", 4)]
    assert reading.found[0].name == IDENTITY.series_uid


def test_two_patients_in_one_series_refuse_all_of_it(tmp_path, numbered, plain_affine):
    def named(patient, issuer):
        return with_(EchoTime=5, PatientID=patient, IssuerOfPatientID=issuer)

    for number, (patient, issuer) in enumerate([("P2", "A"), ("P1", "B")]):
        folder = copies(tmp_path / str(number), numbered(plain_affine()), [named("P1", "A"), named(patient, issuer)])
        assert codes(folder) == {"SERIES_MIXED_SUBJECT"}


# --- what is set aside

ASIDE = {
    "1.2.840.10008.5.1.4.1.1.88.22": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.88.67": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.104.1": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.11.1": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.481.3": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.66.4": "DCM_NOT_AN_IMAGE",
    "1.2.840.10008.5.1.4.1.1.7": "DCM_SECONDARY_CAPTURE",
    "1.2.840.10008.5.1.4.1.1.7.4": "DCM_SECONDARY_CAPTURE",
    "1.2.840.10008.1.3.10": "DCM_DIRECTORY",
    "1.2.840.10008.5.1.4.1.1.128": "DCM_MODALITY",
}


@pytest.mark.parametrize("sop_class", ASIDE)
def test_each_kind_of_object_that_is_no_scan_has_its_own_name_and_leaves_the_series_whole(series, sop_class):
    folder = series(edit=lambda dataset, index: index == 4 and setattr(dataset, "SOPClassUID", sop_class))
    reading = read_folder(folder)
    assert next(one.code for one in reading.refused) == ASIDE[sop_class]
    assert len(reading.found) == (0 if ASIDE[sop_class] == "DCM_MODALITY" else 1)


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]},
        {"SeriesDescription": "Dose Report"},
        {"SeriesDescription": "Patient Protocol"},
    ],
)
def test_a_picture_of_a_dose_report_is_named(series, values):
    assert codes(series(edit=with_(**values))) == {"DCM_DOSE_SCREEN"}


def test_reformats_among_originals_of_an_mr_are_set_aside_and_other_derived_images_are_not(series):
    for kind, files in ((["DERIVED", "SECONDARY", "MPR"], 4), (["DERIVED", "PRIMARY", "ADC"], 5)):
        folder = series(
            kind[2], modality="MR", edit=lambda data, index, kind=kind: index == 4 and setattr(data, "ImageType", kind)
        )
        reading = read_folder(folder)
        assert len(reading.found[0].files) == files
        assert {one.code for one in reading.refused} <= {"DCM_REFORMAT"}


def test_a_wholly_derived_series_says_so(series):
    assert only(series(edit=with_(ImageType=["DERIVED", "SECONDARY", "AXIAL"]))).notes == ("DERIVED",)


# --- how it travels


def sent(thing):
    """The thing as another process gets it."""
    return ForkingPickler.loads(bytes(ForkingPickler.dumps(thing)))


def test_looks_found_volumes_and_refusals_travel_between_processes(tmp_path, numbered, plain_affine):
    folder = copies(tmp_path / "s", numbered(plain_affine()), [with_(EchoTime=5), with_(EchoTime=9)])
    (folder / "broken").write_bytes(b"nothing")
    looks = [look(path) for path in sorted(folder.iterdir())]
    travelled = assemble([sent(one) for one in looks])
    reading = read_folder(folder)
    assert [one.source for one in travelled.found] == [one.source for one in reading.found]
    assert [one.code for one in travelled.refused] == ["DCM_NOT_DICOM"]
    for one, other in zip(travelled.found, reading.found, strict=True):
        assert np.array_equal(sent(one.volume).array, other.volume.array)
