"""A proof that cannot fail proves nothing: each of these readers is wrong in one way, and is found out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from bedside.cli.app import application
from bedside.cli.prove_view import refuse_wrong
from bedside.core.errors import GateRefused
from bedside.core.volume import Volume
from bedside.ingest.prove import OURS, Proof, Readout, Row, ours, prove
from bedside.ingest.prove_cases import proof_cases

CASES = {(case.group, case.name): case for case in proof_cases()}


def judged(reader, group: str, name: str) -> Row:
    return prove([CASES[group, name]], readers={"wrong": reader}).rows[0]


def by_number(folder: Path) -> Readout:
    """Slices in the order of InstanceNumber, the mistake of many scripts."""
    return stacked(folder, key=lambda one: (one.InstanceNumber, one.SOPInstanceUID))


def by_height(folder: Path) -> Readout:
    """Slices in the order of their last coordinate, whatever lies between them."""
    return stacked(folder, key=lambda one: float(one.ImagePositionPatient[2]))


def stacked(folder: Path, key) -> Readout:
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=key)
    first, last = slices[0], slices[-1]
    directions = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * float(first.PixelSpacing[1])
    affine[:3, 1] = directions[1] * float(first.PixelSpacing[0])
    start, end = (np.array(one.ImagePositionPatient, float) for one in (first, last))
    affine[:3, 2] = (end - start) / (len(slices) - 1)
    affine[:3, 3] = start
    array = np.stack([one.pixel_array.T for one in slices], axis=-1)
    return Readout((Volume.of(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine),))


def spoiled(change):
    """Our reading with one thing wrong in every volume."""

    def read(folder: Path) -> Readout:
        readout = ours(folder)
        return replace(readout, volumes=tuple(change(volume) for volume in readout.volumes))

    return read


def half_a_voxel_off(volume: Volume) -> Volume:
    corner = volume.affine.copy()
    corner[:3, 3] -= volume.affine[:3, :3] @ [0.5, 0.5, 0.5]
    return Volume.of(volume.array, corner)


def upright(volume: Volume) -> Volume:
    """As if no gantry ever leaned: the values of the scanner's grid with a perpendicular third axis."""
    affine = volume.affine.copy()
    affine[:3, 1] = [0.0, -np.linalg.norm(affine[:3, 1]), 0.0]
    return Volume.of(volume.array, affine)


def numbers_off_by(amount: int):
    """As if a decoder rounded otherwise: every number of the volume is too high."""
    return lambda volume: Volume.of(volume.array[0] + amount, volume.affine)


LOSSY = [case for case in proof_cases() if case.within is not None]


@pytest.mark.parametrize("case", LOSSY, ids=lambda case: case.name)
def test_numbers_of_lossy_files_that_are_too_far_from_the_written_ones_are_found_out(case):
    right, wrong = (
        prove([case], readers={"any": reader}).rows[0] for reader in (ours, spoiled(numbers_off_by(2 * case.within + 1)))
    )
    assert right.passed
    assert right.verdict == f"under half a voxel, numbers within {case.within}"
    assert right.decoder
    assert not wrong.passed


def bedside(*arguments: str) -> str:
    done = CliRunner().invoke(application(), ["ingest", "--prove", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_row_of_the_table_is_as_expected_in_a_minute():
    proof = Proof.model_validate_json(bedside("--json"))
    assert [f"{row.group}: {row.case}: {row.verdict}" for row in proof.rows if not row.passed] == []
    assert proof.passed
    assert proof.seconds < 60
    assert len(proof.rows) == len(CASES) == len(proof_cases())
    assert sum(row.group == "orientation" for row in proof.rows) == 48
    assert all(row.error_mm < 0.0005 for row in proof.rows if row.expected == "exact")
    assert all(row.decoder for row in proof.rows if row.error_mm is not None)
    assert {row.verdict for row in proof.rows if row.error_mm is None} == {
        f"refused SERIES_{code}"
        for code in (
            *("MISSING_SLICE", "DUPLICATE_POSITION", "JITTER", "TWO_INCREMENTS", "IRREGULAR", "ONE_SLICE", "TWO_SLICES"),
        )
    }


def test_the_forty_eight_orientations_are_forty_eight_different_grids():
    grids = {
        tuple(np.round(np.concatenate([case.planes[0].directions.ravel(), case.planes[-1].position_mm]), 6))
        for case in CASES.values()
        if case.group == "orientation"
    }
    assert len(grids) == 48


def test_a_reader_that_orders_by_instance_number_fails():
    row = judged(by_number, "numbers", "shuffled")
    assert (row.passed, row.verdict) == (False, "misplaced")
    assert row.error_mm > 2.5
    assert judged(by_number, "oblique", "once").passed


def test_a_reader_that_reads_over_a_gap_fails_and_is_told_how_far_off_it_is():
    row = judged(by_height, "slices", "one missing")
    assert not row.passed
    assert "read, though it is no volume" in row.verdict
    assert 0.3 < row.error_mm < 2.5


@pytest.mark.parametrize("name", ["RAS", "LPS", "SRP"])
def test_a_reader_that_is_half_a_voxel_off_fails(name):
    row = judged(spoiled(half_a_voxel_off), "orientation", name)
    assert not row.passed
    assert row.error_mm == pytest.approx(np.linalg.norm([0.35, 0.55, 1.25]), abs=1e-6)


@pytest.mark.parametrize(("group", "name"), [("gantry tilt", "20 degrees"), ("transfer syntax", "JPEG baseline, 8 bit")])
def test_a_reader_that_is_half_a_voxel_off_fails_where_places_are_told_by_ramps(group, name):
    row = judged(spoiled(half_a_voxel_off), group, name)
    assert (row.passed, row.verdict) == (False, "misplaced")


def test_a_reader_that_knows_no_tilt_fails():
    def read(folder: Path) -> Readout:
        (volume,) = by_height(folder).volumes
        return Readout((upright(volume),))

    row = judged(read, "gantry tilt", "20 degrees")
    assert not row.passed
    assert row.error_mm > 5
    assert judged(by_height, "gantry tilt", "20 degrees").passed  # a leaning affine is true too


def test_a_reader_that_mirrors_fails():
    row = judged(spoiled(lambda volume: Volume.of(volume.array[:, ::-1], volume.affine)), "oblique", "twice")
    assert (row.passed, row.verdict) == (False, "misplaced")


def test_a_reader_that_loses_the_last_slice_fails():
    row = judged(spoiled(lambda volume: Volume.of(volume.array[..., :-1], volume.affine)), "oblique", "twice")
    assert (row.passed, row.error_mm < 0.0005) == (False, True)
    assert row.verdict == f"{36 * 32} voxels lost"


def test_a_reader_that_changes_values_fails():
    row = judged(spoiled(lambda volume: Volume.of(volume.array + 0.25, volume.affine)), "oblique", "twice")
    assert not row.passed
    assert "values that nobody wrote" in row.verdict


def test_a_reader_that_mixes_times_fails_though_every_voxel_is_in_its_place():
    def read(folder: Path) -> Readout:
        readout = ours(folder)
        first, second, *rest = (np.array(volume.array) for volume in readout.volumes)
        first[..., 2], second[..., 2] = second[..., 2].copy(), first[..., 2].copy()
        affine = readout.volumes[0].affine
        return replace(readout, volumes=tuple(Volume.of(array, affine) for array in (first, second, *rest)))

    row = judged(read, "4-D", "by temporal position")
    assert (row.passed, row.verdict, row.error_mm < 0.0005) == (False, "2 volumes of mixed origin", True)


@pytest.mark.parametrize("refused", [(), ("SERIES_IRREGULAR",), ("SERIES_IRREGULAR", "SERIES_MISSING_SLICE")])
def test_refusing_for_another_reason_or_for_none_is_no_proof(refused):
    assert not judged(lambda _: Readout(refused=refused), "slices", "one missing").passed
    assert not judged(lambda _: Readout(refused=refused), "oblique", "once").passed


def test_a_volume_beside_a_refusal_is_no_proof():
    row = judged(lambda folder: replace(ours(folder), refused=("SERIES_MIXED_GRID",)), "oblique", "once")
    assert (row.passed, row.verdict) == (False, "SERIES_MIXED_GRID beside a volume")


def test_a_failed_row_is_exit_5_and_named():
    proof = prove([CASES["numbers", "shuffled"]], readers={"wrong": by_number})
    with pytest.raises(GateRefused, match=r"1 of 1 cases failed: numbers \(shuffled\)") as caught:
        refuse_wrong(proof)
    assert caught.value.exit_code == 5


def test_several_readers_are_judged_on_the_same_files_and_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    proof = prove([CASES["numbers", "shuffled"]], readers={**OURS, "wrong": by_number})
    assert [(row.reader, row.passed) for row in proof.rows] == [("bedside", True), ("wrong", False)]
    assert list(tmp_path.iterdir()) == []


def test_what_if_names_the_cases_and_proves_nothing():
    assert sum(json.loads(bedside("--what-if", "--json"))["cases"].values()) == len(CASES)
