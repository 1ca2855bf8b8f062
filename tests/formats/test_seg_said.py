"""A segmentation says what its segments are, by whom and which label map they were made, of whom and of which slices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from bedside.formats.seg import Kind, write_seg

from .segmented import KINDS, MAKER, NAMES, TERMS, a_mask, affine_of, series


def test_segments_carry_codes_and_one_without_a_term_says_what_kind_of_thing_it_is(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, terms=TERMS, maker=MAKER)
    data = dcmread(tmp_path / "seg.dcm")
    said = [
        (int(s.SegmentNumber), s.SegmentLabel, s.SegmentedPropertyTypeCodeSequence[0].CodeValue) for s in data.SegmentSequence
    ]
    assert said == [(1, "femur", "71341001"), (2, "pelvis", "91723000"), (3, "sacrum", "91723000")]
    assert data.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == MAKER.model


def test_every_code_of_a_segment_stands_in_the_standards_dictionary_with_its_meaning(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER)
    known = {(c.scheme_designator, c.value, c.meaning) for scheme in (codes.SCT, codes.DCM) for c in scheme.concepts.values()}
    for segment in dcmread(tmp_path / "seg.dcm").SegmentSequence:
        family = segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmFamilyCodeSequence
        for (code,) in (segment.SegmentedPropertyCategoryCodeSequence, segment.SegmentedPropertyTypeCodeSequence, family):
            assert (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning) in known


@pytest.mark.parametrize("kind", KINDS)
def test_every_segment_names_the_label_map_by_its_whole_digest(tmp_path: Path, kind: Kind) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER, kind=kind)
    data = dcmread(tmp_path / "seg.dcm")
    said = [str(segment.get("SegmentDescription")) for segment in data.SegmentSequence if int(segment.SegmentNumber)]
    assert said == [f"label map {MAKER.labels}"] * len(NAMES)
    assert max(map(len, said)) <= 1024  # ST (PS3.5 6.2)
    assert data.ContentDescription == f"label map {MAKER.labels[:12]}"


def test_what_is_said_otherwise_of_the_same_mask_has_another_uid(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    mask = a_mask(found.volume.shape[1:])
    ways = [
        {"maker": MAKER},
        {"maker": replace(MAKER, labels="ef" * 32)},
        {"maker": MAKER, "terms": TERMS},
        {"maker": MAKER, "structures": {**NAMES, 3: "os sacrum"}},
    ]
    uids = {write_seg(tmp_path / "seg.dcm", mask, found, **{"structures": NAMES, **way}) for way in ways}
    assert len(uids) == len(ways)


def test_a_segmentation_carries_the_identity_of_its_source_and_names_its_slices(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)), patient="PSEUDO-7")
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER)
    data, source = dcmread(tmp_path / "seg.dcm"), dcmread(found.files[0])
    assert data.PatientID == "PSEUDO-7"
    assert data.StudyInstanceUID == source.StudyInstanceUID
    assert data.FrameOfReferenceUID == source.FrameOfReferenceUID
    named = {item.ReferencedSOPInstanceUID for item in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == {dcmread(path).SOPInstanceUID for path in found.files}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_the_same_mask_of_the_same_series_gives_the_same_bytes_and_another_one_another_uid(tmp_path: Path, kind: str) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    mask = a_mask(found.volume.shape[1:])
    names = ("a", "b", "c")
    uids = [
        write_seg(tmp_path / name, m, found, structures=NAMES, maker=MAKER, kind=kind)
        for name, m in zip(names, (mask, mask, np.flip(mask)), strict=True)
    ]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert uids[0] == uids[1] != uids[2]
    assert dcmread(tmp_path / "a").SOPInstanceUID == uids[0]


def test_every_segment_has_a_colour_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    names = {number: f"bone {number}" for number in range(1, 26)}
    mask = np.zeros(found.volume.shape[1:], dtype=np.uint8)
    mask.flat[:25] = range(1, 26)
    write_seg(tmp_path / "many.dcm", mask, found, structures=names, maker=MAKER)
    write_seg(tmp_path / "few.dcm", np.minimum(mask, 3), found, structures=NAMES, maker=MAKER)
    many, few = (
        [tuple(segment.RecommendedDisplayCIELabValue) for segment in dcmread(tmp_path / name).SegmentSequence]
        for name in ("many.dcm", "few.dcm")
    )
    assert many[:3] == few
    apart = [np.hypot(*(np.subtract(a, b)[1:] / 257.0)) for i, a in enumerate(many) for b in many[:i]]
    assert min(apart) > 5.0
