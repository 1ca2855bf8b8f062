"""A quality report says what a dataset is made of, puts outliers first, and finds scans on both sides of the split."""

import json
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bedside.core.dataset import CaseRecord
from bedside.core.volume import Volume
from bedside.data.rank_marks import rank_marks
from bedside.ingest.leaks import find_leaks
from bedside.ingest.pipeline import ingest
from bedside.ingest.quality import CaseQuality, groups, measure_quality, outliers
from bedside.ingest.quality_report import write_quality


def scan(seed: int) -> np.ndarray:
    """A (28, 30, 26) scan with detail and noise of its own."""
    chance = np.random.default_rng(seed)
    detail = sum(gaussian_filter(chance.standard_normal((28, 30, 26)), sigma) * sigma**1.5 for sigma in (1, 2, 3))
    return np.rint(300 * detail + chance.normal(0, 10, detail.shape)).astype(np.int16)


@pytest.fixture
def cohort(received):
    """Ten patients; the ninth is a crop of the first, mirrored and of other intensities, and the last is much brighter."""
    mask = np.zeros((28, 30, 26), np.uint16)
    mask[8:20, 8:20, 8:20] = 7
    for number in range(8):
        received.add(f"p{number}", number, image=scan(number), mask=mask)
    crop = (0.8 * scan(0)[3:, :-4, 2:][::-1] + 40).astype(np.int16)
    received.add("p8", 8, image=crop, mask=mask[3:, :-4, 2:][::-1])
    return received.add("p9", 9, image=(60 * scan(9).astype(np.int32)).astype(np.int32), mask=mask)


@pytest.fixture
def report(cohort, configure):
    dataset = ingest(configure(), cohort.root)
    return measure_quality(dataset), dataset


def test_one_scan_under_two_patients_is_the_only_pair_found(report) -> None:
    found, dataset = report
    (leak,) = found.leaks
    assert {leak.first, leak.second} == {"p0", "p8"}
    assert (leak.kind, leak.same_patient, leak.flips) == ("near_identical", False, "right-left")
    sides = {case.patient: side for case, side in zip(dataset.manifest.cases, (m.side for m in found.measured), strict=True)}
    assert leak.sides == (sides[leak.first], sides[leak.second])
    expected = "" if len(set(leak.sides)) == 1 else "test" if "test" in leak.sides else "folds"
    assert leak.crosses == expected


def test_the_odd_case_is_the_first_outlier(report) -> None:
    found, _ = report
    assert found.outliers[0].case == "p9"
    assert [abs(one.z) for one in found.outliers] == sorted((abs(one.z) for one in found.outliers), reverse=True)
    assert {one.number for one in found.outliers if one.case == "p9"} >= {"p01", "p99"}


def test_label_volumes_and_extents_are_in_real_units(report) -> None:
    found, _ = report
    numbers = next(case.numbers for case in found.measured if case.case == "p1")
    assert numbers["volume_bone_ml"] == pytest.approx(12**3 * 3.0 / 1000)  # voxels of 1 x 1.5 x 2 mm
    assert numbers["volume_marrow_ml"] == 0
    assert numbers["extent_front_back_mm"] == pytest.approx(45.0)
    assert found.spacings == {"1 x 1.5 x 2": 10}


def test_the_html_opens_offline_and_shows_no_case_of_the_locked_split(report) -> None:
    found, dataset = report
    path = write_quality(found, dataset)
    html = path.read_text()
    assert path.name == f"quality-{dataset.digest[:12]}.html"
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    shown = set(re.findall(r'alt="Three planes of (\S+)"', html))
    assert shown == {case.case for case in found.measured if case.side != "test"}
    assert html.index('id="outliers"') < html.index('id="leaks"') < html.index('id="groups"')
    assert json.loads(path.with_suffix(".json").read_text())["dataset"] == dataset.digest
    assert write_quality(found, dataset).read_text() == html


def test_measuring_writes_no_reading_of_the_locked_split(report, configure, events) -> None:
    assert events(configure(), "test_split_read") == []


def test_identical_voxels_under_two_patients_are_called_identical(received, configure) -> None:
    for number in range(5):
        received.add(f"p{number}", number)
    dataset = ingest(configure(), received.root)
    first, second, *rest = dataset.manifest.cases
    image = second.volumes["image"].model_copy(update={"file": first.volumes["image"].file})
    twin = second.model_copy(update={"volumes": {**second.volumes, "image": image}})
    manifest = dataset.manifest.model_copy(update={"cases": (first, twin, *rest)})
    (leak,) = find_leaks(manifest, {})
    assert (leak.kind, leak.first, leak.second, leak.similarity) == ("identical", first.id, second.id, 1.0)


def test_a_part_of_a_scan_under_another_patient_is_listed(received, configure) -> None:
    for number in range(5):
        received.add(f"p{number}", number)
    first, second, *_ = (manifest := ingest(configure(), received.root).manifest).cases
    whole = np.random.default_rng(0).normal(size=(40, 40, 20)).astype(np.float32)
    parts = {first.id: whole, second.id: np.ascontiguousarray(whole[:, 4:36, 12:])}
    marks = {name: rank_marks(Volume.of(part, np.eye(4))) for name, part in parts.items()}
    (leak,) = find_leaks(manifest, {}, marks)
    assert (leak.kind, leak.first, leak.second) == ("near_identical", first.id, second.id)
    assert leak.similarity == pytest.approx(1)


def case(number: int, **facts: object) -> CaseRecord:
    return CaseRecord(id=f"c{number}", patient=f"p{number // 2}", volumes={}, acquisition=facts, scanner="A" if number else "B")


def test_groups_count_cases_and_patients_and_small_ones_can_be_kept_back() -> None:
    cases = [case(number, sex="f" if number < 5 else "m", age_years=34 + number) for number in range(6)]
    found = groups(cases, 0)
    assert [(g.value, g.cases, g.patients) for g in found["sex"]] == [("f", 5, 3), ("m", 1, 1)]
    assert [(g.value, g.cases) for g in found["age_years"]] == [("30 to 39", 6)]
    assert "kernel" not in found
    (large, small) = groups(cases, 5)["sex"]
    assert (large.cases, small.cases, small.patients, small.suppressed) == (5, 0, 0, True)


def measured(values: list[float]) -> list[CaseQuality]:
    return [
        CaseQuality(case=f"c{n}", side="test", numbers={"p50": value}, edges=(0, 1), histogram=())
        for n, value in enumerate(values)
    ]


def test_an_outlier_needs_eight_cases_and_equal_values_have_none() -> None:
    assert outliers(measured([1.0] * 6 + [99.0])) == ()
    assert outliers(measured([1.0] * 20)) == ()
    (one,) = outliers(measured([1.0] * 19 + [1.2]))
    assert (one.case, one.value, one.median) == ("c19", 1.2, 1.0)
