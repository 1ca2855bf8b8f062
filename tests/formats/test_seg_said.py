"""A segmentation says what its segments are, by whom and which label map they were made, of whom and of which slices."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from bedside.formats.seg import write_seg

from .segmented import MAKER, NAMES, TERMS, a_mask, affine_of, series


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
