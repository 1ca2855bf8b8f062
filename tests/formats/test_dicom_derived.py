"""Claims about images computed from others: reformats and projections are set aside, plain derived reconstructions are not."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bedside.formats.dicom import read_folder
from bedside.formats.dicom_kinds import derivation
from bedside.formats.dicom_write import SeriesIdentity, planes_of
from bedside.formats.dicom_write_frames import write_frames

from .reading import IDENTITY

MR = SeriesIdentity.of("P1", "1", modality="MR")
REFORMATS = [
    "DERIVED\\SECONDARY\\MPR",
    "DERIVED\\SECONDARY\\AXIAL\\CT_SOM5 MPR",
    "DERIVED\\SECONDARY\\MPR\\CSA MPR\\\\CSAPARALLEL",
    "DERIVED\\SECONDARY\\OTHER\\CSA 3D EDITOR",
    "DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE",
    "DERIVED\\PRIMARY\\AXIAL\\AVERAGE",
    "DERIVED\\PRIMARY\\PROJECTION IMAGE\\M\\FFE",
    "DERIVED\\SECONDARY\\MIP",
    "DERIVED\\PRIMARY\\MIP_SAG",
    "DERIVED\\SECONDARY\\MAX_IP",
    "DERIVED\\SECONDARY\\MIN IP",
    "DERIVED\\PRIMARY\\M\\ND\\MNIP",
    "DERIVED\\SECONDARY\\MINIP",
    "DERIVED\\SECONDARY\\3D",
    "DERIVED\\SECONDARY\\VRT",
    "DERIVED\\SECONDARY\\VOLUME RENDERING",
    "DERIVED\\SECONDARY\\CURVED MPR",
]
PLAIN = [
    "DERIVED\\PRIMARY\\AXIAL",
    "DERIVED\\SECONDARY\\AXIAL",
    "DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 SPI",
    "DERIVED\\PRIMARY\\M\\ND\\NORM\\DIS3D",
    "DERIVED\\PRIMARY\\DIFFUSION\\ADC",
    "DERIVED\\PRIMARY\\VOLUME\\NONE",
    "DERIVED\\SECONDARY\\OTHER",
    "DERIVED",
]


def typed(kind, only=None):
    """An edit that writes an ImageType into every slice, or into one."""

    def edit(dataset, index):
        if only is None or index == only:
            dataset.ImageType = kind.split("\\")

    return edit


def refusals(reading):
    return [(one.code, len(one.files)) for one in reading.refused]


@pytest.mark.parametrize("kind", REFORMATS)
def test_a_series_of_reformats_or_projections_is_set_aside_and_can_be_kept_with_its_note(series, kind):
    folder = series(edit=typed(kind))
    reading = read_folder(folder)
    assert (len(reading.found), refusals(reading)) == (0, [("DCM_REFORMAT", 5)])
    assert "source.keep_reformats" in reading.refused[0].sentence
    (found,) = read_folder(folder, keep_reformats=True).found
    assert (found.notes, len(found.files)) == (("DERIVED",), 5)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("kind", PLAIN)
def test_a_derived_series_that_is_no_reformat_is_a_volume_that_says_so(series, kind, modality):
    reading = read_folder(series(edit=typed(kind), modality=modality))
    assert ([one.notes for one in reading.found], refusals(reading)) == ([("DERIVED",)], [])


def test_an_original_is_no_reformat_whatever_its_other_values_say(series):
    (found,) = read_folder(series(edit=typed("ORIGINAL\\PRIMARY\\MPR"), modality="MR")).found
    assert found.notes == ()


def test_the_words_of_values_1_and_2_make_no_reformat():
    assert derivation(("DERIVED", "MPR", "AXIAL")) == "derived"
    assert derivation(("ORIGINAL", "PRIMARY", "AXIAL"), "MPR") == ""


@pytest.mark.parametrize(("keep", "code"), [(False, "DCM_REFORMAT"), (True, "DCM_DERIVED")])
def test_a_reformat_among_originals_is_set_aside_either_way(series, keep, code):
    reading = read_folder(series(edit=typed("DERIVED\\SECONDARY\\MPR", only=4)), keep_reformats=keep)
    assert [len(one.files) for one in reading.found] == [4]
    assert refusals(reading) == [(code, 1)]


def test_a_reformat_among_plain_derived_images_leaves_them_a_volume(series):
    def edit(dataset, index):
        dataset.ImageType = ["DERIVED", "SECONDARY", "MIP" if index == 4 else "AXIAL"]

    reading = read_folder(series(edit=edit))
    assert ([(one.notes, len(one.files)) for one in reading.found], refusals(reading)) == (
        [(("DERIVED",), 4)],
        [("DCM_REFORMAT", 1)],
    )


# --- enhanced multi-frame images, whose frames say it themselves (PS3.3 C.8.16.1, C.8.16.2)


def framed(folder, numbered, plain_affine, edit, identity=IDENTITY):
    (path,) = write_frames(folder / "f", list(planes_of(numbered(plain_affine(), (36, 32, 5)))), identity=identity)
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path.parent


def frame_type(kind, technique, *, frames=None):
    """An edit that gives frames a Frame Type, and a Volume Based Calculation Technique."""

    def edit(dataset):
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            item.FrameType = (kind if frames is None or number in frames else "ORIGINAL\\PRIMARY\\VOLUME\\NONE").split("\\")
            item.VolumeBasedCalculationTechnique = technique if frames is None or number in frames else "NONE"
            frame.CTImageFrameTypeSequence = [item]

    return edit


@pytest.mark.parametrize("technique", ["MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "MPR", "CURVED_MPR"])
def test_frames_say_by_their_calculation_technique_that_they_are_reformats(tmp_path, numbered, plain_affine, technique):
    folder = framed(tmp_path, numbered, plain_affine, frame_type("DERIVED\\PRIMARY\\VOLUME\\NONE", technique))
    assert refusals(read_folder(folder)) == [("DCM_REFORMAT", 1)]
    assert read_folder(folder, keep_reformats=True).found[0].notes == ("DERIVED",)


@pytest.mark.parametrize("technique", ["NONE", "MIXED"])
def test_derived_frames_without_a_technique_are_a_volume(tmp_path, numbered, plain_affine, technique):
    folder = framed(tmp_path, numbered, plain_affine, frame_type("DERIVED\\PRIMARY\\VOLUME\\NONE", technique))
    assert [one.notes for one in read_folder(folder).found] == [("DERIVED",)]


def test_reformatted_frames_among_originals_leave_their_file_one_place_and_a_note(tmp_path, numbered, plain_affine):
    edit = frame_type("DERIVED\\PRIMARY\\VOLUME\\NONE", "MPR", frames={4})
    reading = read_folder(framed(tmp_path, numbered, plain_affine, edit))
    (found,) = reading.found
    assert (found.notes, reading.refused) == (("PARTLY_DCM_REFORMAT",), ())
    assert np.array_equal(found.volume.array, numbered(plain_affine(), (36, 32, 5)).array[..., :4])


def test_a_file_whose_original_frames_are_no_volume_is_refused_once(tmp_path, numbered, plain_affine):
    edit = frame_type("DERIVED\\PRIMARY\\VOLUME\\NONE", "MPR", frames={1, 2, 3, 4})
    reading = read_folder(framed(tmp_path, numbered, plain_affine, edit))
    assert (reading.found, len({path for one in reading.refused for path in one.files})) == ((), 1)
    assert sum(len(one.files) for one in reading.refused) == 1
