"""A received folder becomes masks, closed surfaces and segmentations; what is refused is counted; nothing of a header leaks."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pydicom import dcmread

import bedside as bs
from bedside.core.digest import digest_file
from bedside.core.errors import InputRejected, UsageError
from bedside.core.model import Model
from bedside.core.ports import InlineExecutor
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.data.surface import SurfaceSettings
from bedside.formats.dicom import read_folder
from bedside.formats.found import Reading
from bedside.formats.nifti import read_nifti, write_nifti
from bedside.formats.seg import read_seg
from bedside.predict.pipeline import RESULT, plan, predict
from bedside.predict.records import NOTES, PredictResult, PredictSettings

from .conftest import CANCELLOUS_HU, CORTICAL_HU, crop, store_threshold


@pytest.fixture(scope="module")
def done(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PredictResult, Model]:
    """Everything of both patients, in all formats."""
    study = tmp_path_factory.mktemp("study")
    model = store_threshold(Workspace(study))
    to = tmp_path_factory.mktemp("results")
    settings = PredictSettings(meshes=("stl", "ply", "obj"), surface=SurfaceSettings(faces=20_000))
    return to, predict(model, scans, to, settings=settings), model


def test_received_is_predicted_plus_refused_plus_duplicate(done: tuple) -> None:
    _, result, _ = done
    assert result.received == 2 * 16 + 2
    assert result.predicted_files + sum(one.files for one in result.refused) + result.duplicates == result.received
    assert len(result.cases) == 2
    assert result.duplicates == 1
    assert [one.files for one in result.refused] == [1]


def test_each_series_has_a_folder_with_everything_and_its_digests(done: tuple) -> None:
    to, result, model = done
    assert sorted(path.name for path in to.iterdir()) == sorted(case.case for case in result.cases)
    for case in result.cases:
        folder = to / case.case
        names = {path.name for path in folder.iterdir()}
        wanted = {f"{bone}.{kind}" for bone in ("cortical_bone", "cancellous_bone") for kind in ("stl", "ply", "obj")}
        assert names == wanted | {"mask.nii.gz", "segmentation.dcm", "preview.png", "report.html", RESULT}
        assert case.files == {name: digest_file(folder / name) for name in names - {"report.html", RESULT}}
        assert case.model == model.digest
        assert json.loads((folder / RESULT).read_text()) == json.loads(case.model_dump_json())


def test_the_mask_is_what_the_model_says_on_the_scans_own_grid(done: tuple, scans: Path) -> None:
    to, result, _ = done
    for found in read_folder(scans).found:
        mask = read_nifti(to / found.source[:16] / "mask.nii.gz").volume
        hu = found.volume.array[0].astype(np.float64)
        expected = np.where(hu > CORTICAL_HU, 1, np.where(hu > CANCELLOUS_HU, 2, 0))
        np.testing.assert_array_equal(mask.array[0], expected)
        np.testing.assert_allclose(mask.affine, found.volume.affine, atol=1e-4)
        case = next(case for case in result.cases if case.case == found.source[:16])
        assert case.voxels == {"cortical_bone": int((expected == 1).sum()), "cancellous_bone": int((expected == 2).sum())}


def test_the_segmentation_reads_back_as_the_mask(done: tuple, scans: Path) -> None:
    to, _, _ = done
    for found in read_folder(scans).found:
        mask = read_nifti(to / found.source[:16] / "mask.nii.gz").volume.array[0]
        np.testing.assert_array_equal(read_seg(to / found.source[:16] / "segmentation.dcm", found), mask)


def test_surfaces_are_closed_and_lie_in_lps_where_the_bone_is(done: tuple, scans: Path) -> None:
    to, result, _ = done
    for found in read_folder(scans).found:
        folder = to / found.source[:16]
        mask = read_nifti(folder / "mask.nii.gz").volume
        inside = np.argwhere(mask.array[0] == 1)
        ras = (found.volume.affine @ np.c_[inside, np.ones(len(inside))].T)[:3]
        reach = np.abs(found.volume.affine[:3, :3]).sum(axis=1)  # a voxel: half to its face, half for smoothing
        for kind in ("stl", "ply", "obj"):
            seen = trimesh.load_mesh(folder / f"cortical_bone.{kind}")
            assert seen.is_watertight
            assert seen.volume > 0
            lps = ras * np.array([[-1], [-1], [1]])
            assert (seen.bounds[0] >= lps.min(axis=1) - reach).all()
            assert (seen.bounds[1] <= lps.max(axis=1) + reach).all()
    checks = [check for case in result.cases for check in case.surfaces]
    assert len(checks) == 4
    assert all(check.watertight and check.outward and abs(check.volume_change) < 0.01 for check in checks)


def test_nothing_of_a_header_is_written_except_in_the_segmentation(done: tuple) -> None:
    to, result, model = done
    for path in to.rglob("*"):
        if path.is_file() and path.name != "segmentation.dcm":
            assert b"SECRET" not in path.read_bytes(), path.name
    assert {dcmread(path).PatientID for path in to.rglob("segmentation.dcm")} == {"SECRET-0", "SECRET-1"}
    assert b"SECRET" not in model.workspace.ledger.path.read_bytes()
    assert "SECRET" not in result.model_dump_json()


def test_the_ledger_says_what_was_predicted_from_what(done: tuple, scans: Path) -> None:
    to, result, model = done
    events = [event for event in model.workspace.ledger.events() if event.action == "predicted"]
    assert len(events) == 2
    for event, case in zip(events, result.cases, strict=True):
        assert event.inputs == {"model": model.digest, "source": case.source}
        assert event.outputs == {**case.files, RESULT: digest_file(to / case.case / RESULT)}
    assert model.workspace.ledger.verify().intact
    assert {event.inputs["source"] for event in events} == {found.source for found in read_folder(scans).found}


def test_again_gives_the_same_bytes_and_leaves_no_old_file(done: tuple, scans: Path, tmp_path: Path) -> None:
    to, result, model = done
    copy = tmp_path / "results"
    shutil.copytree(to, copy)
    one = scans / "series-0"
    again = predict(model, one, copy, settings=PredictSettings(meshes=("stl",), surface=SurfaceSettings(faces=20_000)))
    before = next(case for case in result.cases if case.case == again.cases[0].case)
    assert again.cases[0].files == {name: digest for name, digest in before.files.items() if not name.endswith((".ply", ".obj"))}
    assert not list((copy / before.case).glob("*.ply"))


def test_a_folder_that_is_no_earlier_result_is_left_alone(model: Model, scans: Path, tmp_path: Path) -> None:
    (found,) = read_folder(scans / "series-1").found
    taken = tmp_path / found.source[:16]
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError) as refused:
        predict(model, scans / "series-1", tmp_path)
    assert refused.value.code == "OUTPUT_TAKEN"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != "ledger.jsonl"].count("thesis.txt") == 1
    assert not list(tmp_path.glob(".predicting-*"))


def test_a_place_that_can_be_no_folder_is_refused_before_anything_is_computed(model: Model, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for step in (predict, plan):
        for place in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "below"):
            with pytest.raises(UsageError) as refused:
                step(model, scans / "series-1", place)
            assert refused.value.code == "OUTPUT_TAKEN"


def test_a_nifti_file_is_known_by_its_ending_in_capitals_too(model: Model, tmp_path: Path) -> None:
    image = crop(0)
    write_nifti(tmp_path / "scan.nii.gz", image.array[0], image.affine)
    capital = (tmp_path / "scan.nii.gz").rename(tmp_path / "SCAN.NII.GZ")
    assert len(predict(model, capital, tmp_path / "to", settings=PredictSettings(meshes=())).cases) == 1


def test_a_mask_that_somebody_corrected_is_not_replaced(model: Model, scans: Path, tmp_path: Path) -> None:
    quick = PredictSettings(meshes=(), seg=False)
    (case,) = predict(model, scans / "series-1", tmp_path, settings=quick).cases
    mask = tmp_path / case.case / "mask.nii.gz"
    corrected = mask.read_bytes() + b"by hand"
    mask.write_bytes(corrected)
    for beside in (False, True):
        with pytest.raises(UsageError) as refused:
            predict(model, scans / "series-1", tmp_path, settings=quick)
        assert refused.value.code == "OUTPUT_TAKEN"
        if not beside:
            assert mask.read_bytes() == corrected
            mask.write_bytes(corrected.removesuffix(b"by hand"))
            (tmp_path / case.case / "findings.txt").write_text("years of work")
    assert (tmp_path / case.case / "findings.txt").read_text() == "years of work"
    (tmp_path / case.case / "findings.txt").unlink()
    assert predict(model, scans / "series-1", tmp_path, settings=quick).cases[0].files == case.files


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_while_a_result_is_replaced_never_stands_in_the_way_of_the_next_run(
    model: Model, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    quick = PredictSettings(meshes=(), seg=False)
    to = tmp_path / "to"
    first = predict(model, scans / "series-1", to, settings=quick).cases[0]
    (to / ".predicting-killed" / "half").mkdir(parents=True)
    rename, rmtree = Path.rename, shutil.rmtree
    calls = []

    def renamed(path: Path, target: Path) -> Path:
        if first.case in {path.name, Path(target).name}:
            calls.append(path)
            if len(calls) == at:
                raise Killed
        return rename(path, target)

    def emptied(path: Path, **how: bool) -> None:
        if Path(path) == to / first.case:
            (to / first.case / RESULT).unlink()
            raise Killed
        rmtree(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", renamed)
        patched.setattr(shutil, "rmtree", emptied)
        with pytest.raises(Killed):
            predict(model, scans / "series-1", to, settings=quick)
    assert predict(model, scans / "series-1", to, settings=quick).cases[0].files == first.files
    assert [path.name for path in to.iterdir()] == [first.case]


def test_a_file_of_which_one_volume_is_predicted_and_another_refused_counts_once(
    model: Model, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = read_folder(scans / "series-1").found
    thin = Volume.of(np.zeros((1, 2, 2, 2), np.int16), np.eye(4))
    reading = Reading((found, replace(found, volume=thin)), (), ())
    monkeypatch.setattr(sys.modules[predict.__module__], "read_limited", lambda *_, **__: reading)
    quick = PredictSettings(meshes=(), seg=False)
    result = predict(model, scans, tmp_path / "to", settings=quick, executor=InlineExecutor())
    assert (len(result.cases), len(result.refused)) == (1, 1)
    assert result.received == result.predicted_files + sum(one.files for one in result.refused) + result.duplicates


def test_a_series_that_hides_its_body_part_is_predicted_with_a_note(workspace: Workspace, scans: Path, tmp_path: Path) -> None:
    picky = store_threshold(workspace, body_part=("FEMUR",))
    image = crop(0)
    write_nifti(tmp_path / "scan.nii.gz", image.array[0], image.affine)
    (case,) = predict(picky, tmp_path / "scan.nii.gz", tmp_path / "to", settings=PredictSettings(meshes=())).cases
    assert "BODY_PART_UNKNOWN" in case.notes


def test_a_nifti_file_gets_everything_but_a_segmentation_and_says_why(model: Model, tmp_path: Path) -> None:
    image = crop(0)
    write_nifti(tmp_path / "scan.nii.gz", image.array[0], image.affine)
    (case,) = predict(model, tmp_path / "scan.nii.gz", tmp_path / "to").cases
    assert case.notes == ("NO_SERIES",)
    assert case.seg_uid == ""
    assert "segmentation.dcm" not in case.files
    assert {"cortical_bone.stl", "cancellous_bone.stl", "mask.nii.gz", "preview.png"} == set(case.files)
    assert NOTES["NO_SERIES"] in (tmp_path / "to" / case.case / "report.html").read_text()


def test_a_scan_without_bone_gives_an_empty_mask_and_says_so(model: Model, tmp_path: Path) -> None:
    soft = np.random.default_rng(0).normal(40, 10, (20, 20, 20)).astype(np.int16)
    write_nifti(tmp_path / "scan.nii.gz", soft, np.diag([2.0, 2.0, 2.0, 1.0]))
    (case,) = predict(model, tmp_path / "scan.nii.gz", tmp_path / "to").cases
    assert case.notes == ("NOTHING_FOUND",)
    assert case.voxels == {"cortical_bone": 0, "cancellous_bone": 0}
    assert set(case.files) == {"mask.nii.gz"}


def test_a_case_outside_the_contract_is_refused_with_the_contracts_own_code(
    workspace: Workspace, scans: Path, tmp_path: Path
) -> None:
    narrow = store_threshold(workspace, spacing_mm=(0.5, 1.0))
    with pytest.raises(InputRejected) as refused:
        predict(narrow, scans / "series-0", tmp_path / "to")
    assert refused.value.code == "SPACING"
    other = store_threshold(workspace, modality="MR", unit="arbitrary")
    with pytest.raises(InputRejected) as another:
        predict(other, scans / "series-0", tmp_path / "to")
    assert another.value.code == "MODALITY"
    assert not (tmp_path / "to").exists()


def test_a_folder_without_series_is_refused_and_a_missing_one_is_wrong_use(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputRejected) as empty:
        predict(model, tmp_path / "in", tmp_path / "to")
    with pytest.raises(UsageError) as missing:
        predict(model, tmp_path / "nowhere", tmp_path / "to")
    assert (empty.value.code, missing.value.code) == ("NO_INPUT", "NO_INPUT")


def test_what_if_names_the_outputs_and_writes_nothing(model: Model, scans: Path, tmp_path: Path) -> None:
    planned = plan(model, scans, tmp_path / "to", settings=PredictSettings(meshes=("obj",), seg=False))
    assert planned.series == 2
    assert sum(planned.refused.values()) == 1
    assert planned.outputs == (
        "mask.nii.gz",
        "cortical_bone.obj",
        "cancellous_bone.obj",
        "preview.png",
        "report.html",
        RESULT,
    )
    assert not (tmp_path / "to").exists()
    assert not any(event.action == "predicted" for event in model.workspace.ledger.events())


def test_predict_is_a_public_name() -> None:
    assert bs.predict is predict


def test_the_result_of_another_model_is_replaced_only_when_that_is_said(
    model: Model, scans: Path, tmp_path: Path, workspace: Workspace
) -> None:
    quick = PredictSettings(meshes=(), seg=False)
    here = InlineExecutor()
    (first,) = predict(model, scans / "series-1", tmp_path / "to", settings=quick, executor=here).cases
    other = store_threshold(workspace, spacing_mm=(0.5, 7.0))
    with pytest.raises(UsageError) as refused:
        predict(other, scans / "series-1", tmp_path / "to", settings=quick, executor=here)
    assert refused.value.code == "OTHER_MODEL"
    assert json.loads((tmp_path / "to" / first.case / RESULT).read_text())["model"] == model.digest
    replacing = quick.model_copy(update={"replace": True})
    (second,) = predict(other, scans / "series-1", tmp_path / "to", settings=replacing, executor=here).cases
    assert second.model == other.digest
    assert (second.case, second.files) == (first.case, first.files)
