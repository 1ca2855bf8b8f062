"""The study of all bone in CT: a model of {background, bone} on a received series, and every file that comes of it."""

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import trimesh
from matplotlib.image import imread
from pydicom import dcmread

from bedside.core.config import load
from bedside.core.contract import Contract
from bedside.core.ports import InlineExecutor
from bedside.core.volume import Reorientation, Volume
from bedside.core.workspace import Workspace
from bedside.data.surface import SurfaceSettings
from bedside.formats.dicom import read_folder
from bedside.formats.nifti import read_nifti
from bedside.formats.seg import read_seg
from bedside.predict.pipeline import predict
from bedside.predict.records import PredictSettings

from .conftest import CANCELLOUS_HU, store_bone

QUICK = PredictSettings(meshes=("stl", "ply", "obj"), surface=SurfaceSettings(faces=60_000))


@pytest.fixture
def contract(repository: Path, tmp_path: Path) -> Contract:
    """Of the study that comes with bedside."""
    return load(repository / "studies" / "ct-bone.yaml", folder=tmp_path).study.contract


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_mask_and_segmentation_say_bone_in_snomed_and_name_the_whole_label_map(
    workspace: Workspace, contract: Contract, scans: Path, tmp_path: Path, kind: str
) -> None:
    settings = PredictSettings(meshes=(), seg_kind=kind)
    here = InlineExecutor()
    (case,) = predict(
        store_bone(workspace, contract), scans / "series-1", tmp_path / "to", settings=settings, executor=here
    ).cases
    named = f"label map {contract.label_map_digest}"
    assert case.label_map == contract.label_map_digest
    segments = dcmread(tmp_path / "to" / case.case / "segmentation.dcm").SegmentSequence
    (segment,) = [one for one in segments if int(one.SegmentNumber)]
    (code,), (category,) = segment.SegmentedPropertyTypeCodeSequence, segment.SegmentedPropertyCategoryCodeSequence
    assert (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning) == ("SCT", "272673000", "Bone")
    assert (category.CodingSchemeDesignator, category.CodeValue) == ("SCT", "91723000")
    assert segment.SegmentDescription == named
    mask = nibabel.load(tmp_path / "to" / case.case / "mask.nii.gz")
    assert mask.header["descrip"].item().decode() == named


def _bones(scans: Path, image: Volume) -> np.ndarray:
    """Where the labels of the DICOM series are bone, (I, J, K) on its grid."""
    with (scans / "labels_total.csv").open(newline="") as stream:
        codes = [int(row["value"]) for row in csv.DictReader(stream) if row["is_bone"] == "1"]
    labels = read_nifti(scans / "example_seg_dicom.nii.gz").volume.canonical()
    return np.isin(Reorientation.of(image).undo(labels.array)[0], codes)


@pytest.mark.real
def test_a_real_series_gives_a_mask_a_segmentation_closed_surfaces_and_a_picture_of_bone(
    workspace: Workspace, contract: Contract, tmp_path: Path, data_root: Path
) -> None:
    scans = data_root / "ct_bone_totalseg"
    (found,) = read_folder(scans / "example_ct_dicom").found
    model, here = store_bone(workspace, contract), InlineExecutor()
    (case,) = predict(model, scans / "example_ct_dicom", tmp_path / "to", settings=QUICK, executor=here).cases
    folder = tmp_path / "to" / case.case
    meshes = [f"bone.{kind}" for kind in QUICK.meshes]
    assert set(case.files) == {"mask.nii.gz", "segmentation.dcm", "preview.png", *meshes}

    mask = read_nifti(folder / "mask.nii.gz").volume
    np.testing.assert_allclose(mask.affine, found.volume.affine, atol=1e-4)
    np.testing.assert_array_equal(mask.array, found.volume.array > CANCELLOUS_HU)
    np.testing.assert_array_equal(read_seg(folder / "segmentation.dcm", found), mask.array[0])
    # another program's bones, which came with the scans: 0.67 of them are above the threshold, and 0.02 of all voxels
    labelled = _bones(scans, found.volume)
    assert mask.array[0][labelled].mean() > 0.6
    assert mask.array[0].mean() < 0.05

    for name in meshes:
        seen = trimesh.load_mesh(folder / name)
        assert seen.is_watertight, name
        assert seen.volume / 1000 == pytest.approx(case.mask_ml["bone"], rel=0.05), name
    picture = imread(folder / "preview.png")[..., :3]
    assert ((picture.max(axis=2) - picture.min(axis=2)) > 0.05).mean() > 0.01
