"""dcmqi (DCMTK and ITK; nothing of pydicom's) reads our segmentations voxel by voxel, and we read those that it writes."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from bedside.formats.found import Found
from bedside.formats.seg import Kind, read_seg, write_seg

from .segmented import KINDS, MAKER, NAMES, a_mask, affine_of, rotation, series

STRAIGHT, OBLIQUE = np.eye(3), rotation(37.0, np.array((1, 2, 3)))


def dcmqi(program: str, *arguments: str) -> str:
    """Run one of its programs; what it said."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def seen_by_dcmqi(seg: Path, found: Found, out: Path) -> np.ndarray:
    """The labels that dcmqi finds, on the grid of the series."""
    out.mkdir()
    dcmqi("segimage2itkimage", "--inputDICOM", str(seg), "--outputDirectory", str(out), "-t", "nifti", "--mergeSegments")
    image = nibabel.load(next(out.glob("*.nii.gz")))
    labels = np.asarray(image.dataobj)
    points = np.argwhere(labels > 0)
    places = np.linalg.inv(found.volume.affine) @ image.affine @ np.c_[points, np.ones(len(points))].T
    assert np.abs(places - np.rint(places)).max() < 1e-3
    mask = np.zeros(found.volume.shape[1:], dtype=np.uint8)
    mask[tuple(np.rint(places[:3]).astype(int))] = labels[tuple(points.T)]
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("directions", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_dcmqi_sees_the_same_voxels_in_the_same_places(tmp_path: Path, kind: Kind, directions: np.ndarray) -> None:
    found = series(tmp_path / "s", affine_of(directions))
    mask = a_mask(found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER, kind=kind)
    np.testing.assert_array_equal(seen_by_dcmqi(tmp_path / "seg.dcm", found, tmp_path / "out"), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_dcmqi_misses_nothing_that_a_segmentation_should_say(tmp_path: Path, kind: Kind) -> None:
    """It warns of an attribute that is not there, and of a segment without a colour."""
    found = series(tmp_path / "s", affine_of(STRAIGHT))
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER, kind=kind)
    (tmp_path / "out").mkdir()
    said = dcmqi("segimage2itkimage", "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(tmp_path / "out"))
    assert "absent" not in said
    assert "CIELab" not in said


@pytest.mark.parametrize("directions", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_what_dcmqi_writes_is_read_voxel_by_voxel(tmp_path: Path, directions: np.ndarray) -> None:
    found = series(tmp_path / "s", affine_of(directions))
    mask = a_mask(found.volume.shape[1:]).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, found.volume.affine), tmp_path / "mask.nii.gz")
    (tmp_path / "said.json").write_text(json.dumps(described()))
    dcmqi(
        "itkimage2segimage",
        *("--inputImageList", str(tmp_path / "mask.nii.gz"), "--inputDICOMDirectory", str(tmp_path / "s")),
        *("--outputDICOM", str(tmp_path / "seg.dcm"), "--inputMetadata", str(tmp_path / "said.json")),
    )
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


def described() -> dict[str, object]:
    """What dcmqi wants to know of the segments."""
    bone = {"CodeValue": "272673000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Bone"}
    kind = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": name,
            "SegmentDescription": name,
            "SegmentAlgorithmType": "SEMIAUTOMATIC",
            "SegmentAlgorithmName": "by hand",
            "SegmentedPropertyCategoryCodeSequence": kind,
            "SegmentedPropertyTypeCodeSequence": bone,
            "recommendedDisplayRGBValue": [200, 40 * number, 20],
        }
        for number, name in NAMES.items()
    ]
    return {
        "ContentCreatorName": "Reader",
        "ContentLabel": "SEGMENTATION",
        "ContentDescription": "bones",
        "SeriesDescription": "bones",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "BodyPartExamined": "",
        "segmentAttributes": [segments],
    }
