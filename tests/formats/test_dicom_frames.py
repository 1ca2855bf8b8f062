"""Claims about multi-frame images: each frame lies where its own functional groups say."""

import struct

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate_extended, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from bedside.core.digest import digest_file
from bedside.core.errors import IntegrityError
from bedside.core.volume import Volume
from bedside.formats.dicom import look, read_folder
from bedside.formats.dicom_write import Plane, SeriesIdentity, planes_of
from bedside.formats.dicom_write_frames import write_frames

from .reading import IDENTITY, codes, only
from .unknown import PIXEL_DATA, as_unknown

MR = SeriesIdentity.of("P1", "1", modality="MR")
SIZE = (36, 32, 5)


@pytest.fixture
def frames(tmp_path, numbered, plain_affine):
    """Write one enhanced file; `edit(dataset)` may change it."""

    def write(*, edit=None, planes=None, syntax=ExplicitVRLittleEndian, identity=IDENTITY, shuffled=False):
        planes = list(planes or planes_of(numbered(plain_affine(), SIZE)))
        if shuffled:
            planes = [planes[index] for index in (3, 0, 4, 1, 2)]
        (path,) = write_frames(tmp_path / "f", planes, identity=identity, syntax=syntax)
        if edit is not None:
            dataset = pydicom.dcmread(path)
            edit(dataset)
            dataset.save_as(path)
        return path.parent

    return write


@pytest.mark.parametrize("identity", [IDENTITY, MR])
def test_frames_in_any_order_lie_where_they_say(frames, numbered, plain_affine, place_error_mm, identity):
    found = only(frames(shuffled=True, identity=identity))
    assert place_error_mm(numbered(plain_affine(), SIZE), found.volume) < 1e-9
    assert (found.modality, len(found.files), found.notes) == (identity.modality, 1, ())


def test_a_look_holds_one_slice_per_frame(frames):
    path = frames() / "frames.dcm"
    seen = look(path)
    assert [one.header.frame for one in seen.slices] == [0, 1, 2, 3, 4]
    assert {(one.path, one.digest, one.header.frames) for one in seen.slices} == {(path, digest_file(path), 5)}
    assert len({id(one.header.facts) for one in seen.slices}) == 1


def test_implicit_vr_with_sequences_of_known_length_is_read_the_same(frames, numbered, plain_affine, place_error_mm):
    folder = frames()
    dataset = pydicom.dcmread(folder / "frames.dcm")
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(folder / "frames.dcm", dataset, implicit_vr=True, little_endian=True, force_encoding=True)
    assert place_error_mm(numbered(plain_affine(), SIZE), only(folder).volume) < 1e-9


def test_each_frame_has_its_own_rescale(frames, numbered, plain_affine):
    def edit(dataset):
        for group in dataset.SharedFunctionalGroupsSequence:
            if "PixelValueTransformationSequence" in group:
                del group.PixelValueTransformationSequence
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1 + number, -10 * number, "HU"
            frame.PixelValueTransformationSequence = [item]

    array = only(frames(edit=edit)).volume.array
    assert np.array_equal(array, numbered(plain_affine(), SIZE).array * np.arange(1, 6) - 10 * np.arange(5))


def test_what_the_frames_say_goes_before_what_they_share(frames):
    def edit(dataset):
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            item = Dataset()
            item.PixelSpacing, item.SliceThickness = [3, 2], 1
            frame.PixelMeasuresSequence = [item]

    assert only(frames(edit=edit)).volume.spacing_mm == pytest.approx((2, 3, 2.5))


@pytest.mark.parametrize("edit", ["one fewer", "count", "none"])
def test_frames_and_their_groups_that_contradict_each_other_are_refused(frames, edit):
    def change(dataset):
        if edit == "one fewer":
            dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:-1]
        elif edit == "count":
            dataset.NumberOfFrames = 4
        else:
            del dataset.PerFrameFunctionalGroupsSequence

    assert codes(frames(edit=change)) == {"DCM_MULTIFRAME"}


def test_pixel_data_of_another_number_of_frames_is_refused(frames):
    def edit(dataset):
        dataset.PixelData = dataset.PixelData[: -2 * 36 * 32]

    assert codes(frames(edit=edit)) == {"DCM_TRUNCATED"}


def test_a_frame_without_a_place_is_refused(frames):
    def edit(dataset):
        del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence

    assert codes(frames(edit=edit)) == {"DCM_GEOMETRY"}


def in_fragments(dataset, *, table, fragments=2):
    """Every compressed frame in several fragments, with or without a table of where frames start."""
    streams = list(generate_frames(dataset.PixelData, number_of_frames=5))
    if table == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(streams)
    else:
        dataset.PixelData = pydicom.encaps.encapsulate(streams, fragments_per_frame=fragments, has_bot=table == "basic")
    dataset["PixelData"].is_undefined_length = True


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("table", ["basic", "extended"])
def test_compressed_frames_are_found_by_either_offset_table(frames, numbered, plain_affine, place_error_mm, syntax, table):
    folder = frames(syntax=syntax, edit=lambda dataset: in_fragments(dataset, table=table))
    assert place_error_mm(numbered(plain_affine(), SIZE), only(folder).volume) < 1e-9


def test_one_fragment_per_frame_needs_no_table(frames, numbered, plain_affine, place_error_mm):
    folder = frames(syntax=RLELossless, edit=lambda dataset: in_fragments(dataset, table="none", fragments=1))
    assert place_error_mm(numbered(plain_affine(), SIZE), only(folder).volume) < 1e-9


def test_fragments_that_nobody_says_the_frames_of_are_refused(frames):
    folder = frames(syntax=RLELossless, edit=lambda dataset: in_fragments(dataset, table="none"))
    assert codes(folder) == {"DCM_FRAGMENTS"}


@pytest.mark.parametrize("change", ["beside", "twice", "beyond", "short"])
def test_an_offset_table_that_does_not_fit_the_fragments_is_refused(frames, change):
    folder = frames(syntax=RLELossless, edit=lambda dataset: in_fragments(dataset, table="basic", fragments=1))
    path = folder / "frames.dcm"
    data = bytearray(path.read_bytes())
    start = data.rindex(b"\xe0\x7f\x10\x00OB") + 20
    offset = int.from_bytes(data[start + 8 : start + 12], "little")
    value = {"beside": offset + 2, "twice": 0, "beyond": 1 << 31, "short": offset - 8}[change]
    data[start + 8 : start + 12] = value.to_bytes(4, "little")
    path.write_bytes(data)
    assert codes(folder) == {"DCM_FRAGMENTS"}


def timed(volume, times, mark):
    """The planes of a volume at several times, values 100 apart, place by place."""
    several = [planes_of(Volume.of(volume.array[0] + np.int16(100 * time), volume.affine)) for time in range(times)]
    return [
        Plane(
            plane.pixels,
            plane.position_mm,
            plane.directions,
            plane.spacing_mm,
            plane.thickness_mm,
            plane.number,
            {mark: time + 1},
        )
        for group in zip(*several, strict=True)
        for time, plane in enumerate(group)
    ]


@pytest.mark.parametrize(
    ("mark", "note"),
    [("TemporalPositionIdentifier", "SPLIT_BY_TEMPORAL_POSITION"), ("AcquisitionNumber", "SPLIT_BY_ACQUISITION")],
)
def test_times_in_one_file_are_several_volumes_with_sources_of_their_own(frames, numbered, plain_affine, mark, note):
    volume = numbered(plain_affine())
    reading = read_folder(frames(planes=timed(volume, 3, mark), identity=MR))
    assert reading.refused == ()
    assert [int(found.volume.array.min()) for found in reading.found] == [0, 100, 200]
    assert {found.notes for found in reading.found} == {(note,)}
    assert len({found.source for found in reading.found}) == 3
    assert len({found.files for found in reading.found}) == 1


@pytest.mark.parametrize("written", ["explicit", "implicit", "groups as UN", "everything as UN"])
@pytest.mark.parametrize("backwards", [False, True])
def test_sixty_times_are_in_order_whether_or_not_their_vr_is_written(frames, numbered, plain_affine, written, backwards):
    """Binary numbers whose bytes are those of digits must not be read as text."""
    planes = timed(numbered(plain_affine(), (16, 16, 3)), 60, "TemporalPositionIdentifier")
    folder = frames(planes=planes[::-1] if backwards else planes, identity=MR)
    path = folder / "frames.dcm"
    if written == "implicit":
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, force_encoding=True)
    elif written != "explicit":
        groups = {0x52009229, 0x52009230}
        keeps = [element.tag for element in pydicom.dcmread(path) if element.tag not in groups or element.tag == PIXEL_DATA]
        path.write_bytes(as_unknown(path.read_bytes(), **({"keeps": frozenset(keeps)} if "groups" in written else {})))
    found = read_folder(folder).found
    assert [int(one.volume.array.min()) for one in found] == [100 * time for time in range(60)]


def test_a_file_with_one_sound_volume_is_not_refused_for_the_other(frames, numbered, plain_affine):
    planes = [*planes_of(numbered(plain_affine())), *planes_of(numbered(plain_affine((0.7, 1.1, 9.0))))[:2]]
    turned = [
        Plane(p.pixels, p.position_mm, -p.directions[::-1] if n > 4 else p.directions, p.spacing_mm, p.thickness_mm, p.number)
        for n, p in enumerate(planes)
    ]
    reading = read_folder(frames(planes=turned))
    assert [found.notes for found in reading.found] == [("SPLIT_BY_ORIENTATION", "PARTLY_SERIES_TWO_SLICES")]
    assert reading.refused == ()


def test_a_file_of_frames_that_changes_before_it_is_decoded_is_an_integrity_error(frames):
    folder = frames()
    volume = only(folder).volume
    path = folder / "frames.dcm"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        _ = volume.array


def test_many_frames_beside_many_elements_are_refused_before_each_frame_looks_at_all_of_them(frames):
    def many(dataset):
        dataset.NumberOfFrames = 700
        dataset.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(700)]

    (path,) = frames(edit=many).iterdir()
    with path.open("ab") as stream:
        for number in range(100_000):
            stream.write(struct.pack("<HH2sHH", 0x7FE3 + 2 * (number >> 15), number & 0x7FFF, b"US", 2, 0))
    assert look(path).problem.code == "DCM_ELEMENTS"
