"""The same contract refuses the same scan everywhere, by name and with the numbers."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.case import Case
from bedside.core.clinical import Column
from bedside.core.contract import Contract, snap_note
from bedside.core.errors import InputRejected
from bedside.core.volume import Volume

CT = Contract(
    modality="CT",
    spacing_mm=(0.5, 3),
    value_range=(-1024, 3071),
    unit="HU",
    labels={"background": 0, "femur": 5, "pelvis": 7},
    max_voxels=1000,
)


def image(values: np.ndarray | None = None, spacing: tuple[float, float, float] = (1, 1, 2)) -> Volume:
    array = np.arange(6 * 7 * 8).reshape(6, 7, 8).astype(np.float32) if values is None else values
    return Volume.of(array, np.diag([*spacing, 1]))


def code_of(volume: Volume) -> str:
    with pytest.raises(InputRejected) as caught:
        CT.check_image(volume)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.sentence
    return caught.value.code


def test_a_good_image_passes_at_the_limits() -> None:
    CT.check_image(image())
    CT.check_image(image(spacing=(0.5, 3, 3)))


@pytest.mark.parametrize(
    ("place", "code"), [(np.nan, "NOT_FINITE"), (np.inf, "NOT_FINITE"), (-1025, "VALUE_RANGE"), (3072, "VALUE_RANGE")]
)
def test_one_bad_voxel_is_enough(place: float, code: str) -> None:
    values = np.array(image().array[0])
    values[3, 3, 3] = place
    assert code_of(image(values)) == code


def test_shape_spacing_and_constant_images_are_named() -> None:
    assert code_of(image(np.zeros((6, 7, 8)))) == "CONSTANT"
    assert code_of(image(spacing=(0.49, 1, 1))) == "SPACING"
    assert code_of(image(spacing=(1, 1, 3.01))) == "SPACING"
    assert code_of(image(np.arange(3 * 9 * 9).reshape(3, 9, 9))) == "EXTENT"
    assert code_of(image(np.arange(1100.0).reshape(10, 10, 11))) == "EXTENT"


def leaning(degrees: float, axes: tuple[int, int] = (0, 1), shape: tuple[int, int, int] = (10, 10, 9)) -> Volume:
    """An image of 1 mm voxels whose second axis of the two leans towards the first."""
    affine = np.eye(4)
    first, second = axes
    affine[[first, second], second] = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return Volume.of(np.arange(np.prod(shape)).reshape(shape).astype(np.float32), affine)


@pytest.mark.parametrize("axes", list(permutations(range(3), 2)))
def test_axes_that_are_not_perpendicular_are_refused_unless_the_contract_declares_them(axes: tuple[int, int]) -> None:
    with pytest.raises(InputRejected, match=r"up to 26\.6 degrees") as caught:
        CT.check_image(leaning(np.degrees(np.arctan(0.5)), axes))
    assert caught.value.code == "SHEAR"
    declared = CT.model_copy(update={"sheared": True})
    declared.check_image(leaning(30, axes))
    assert declared.check_axes(leaning(30, axes)) == ("SHEARED",)
    assert declared.check_axes(image()) == CT.check_axes(image()) == ()


def test_a_lean_that_rounding_makes_is_no_shear() -> None:
    wide = CT.model_copy(update={"max_voxels": 1 << 20})
    assert wide.check_axes(leaning(0.09, shape=(100, 100, 9))) == ()
    with pytest.raises(InputRejected):
        wide.check_axes(leaning(0.11, shape=(100, 100, 9)))
    assert CT.check_axes(leaning(0.6)) == (), "less than 0.1 mm at the far end"
    with pytest.raises(InputRejected):
        CT.check_axes(leaning(0.7))
    assert CT.check_axes(leaning(80, shape=(10, 1, 9))) == (), "one voxel wide: nothing leans"


@given(
    st.permutations(range(3)), st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=3)
)
def test_no_turn_and_no_mirror_is_a_shear(order: list[int], signs: list[int], angles: list[float]) -> None:
    turned = np.eye(4)
    for angle, (a, b) in zip(angles, ((0, 1), (1, 2), (0, 2)), strict=False):
        turn = np.eye(4)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turned = turned @ turn
    turned[:3, :3] = turned[:3, order] * signs * (0.5, 1.0, 3.0)
    assert CT.check_axes(Volume.of(np.zeros((200, 200, 200), np.uint8), turned)) == ()


def test_the_extent_is_decided_without_reading_the_voxels() -> None:
    def never() -> np.ndarray:
        raise AssertionError("the voxels were read")

    with pytest.raises(InputRejected):
        CT.check_image(Volume(np.eye(4), (1, 2000, 2000, 2000), never))


def label_code(label: Volume) -> str:
    with pytest.raises(InputRejected) as caught:
        CT.check_label(image(), label)
    return caught.value.code


def test_a_mask_of_another_shape_place_or_code_is_refused() -> None:
    mask = np.zeros((6, 7, 8), dtype=np.uint8)
    mask[2, 2, 2] = 5
    assert CT.check_label(image(), image(mask)) == 0
    assert label_code(image(mask[:-1])) == "LABEL_SHAPE"
    assert label_code(Volume.of(np.stack([mask, mask]), np.diag([1, 1, 2, 1.0]))) == "LABEL_SHAPE"
    shifted = np.diag([1, 1, 2, 1.0])
    shifted[0, 3] = 0.11
    assert label_code(Volume.of(mask, shifted)) == "LABEL_GEOMETRY"
    for value in (1, 255):
        wrong = mask.copy()
        wrong[0, 0, 0] = value
        assert label_code(image(wrong)) == "LABEL_VALUES"
    assert label_code(image(mask + 0.5)) == "LABEL_VALUES"


def test_a_mask_a_tenth_of_a_millimetre_away_passes_and_says_how_far() -> None:
    shifted = np.diag([1, 1, 2, 1.0])
    shifted[0, 3] = 0.09
    assert CT.check_label(image(), Volume.of(np.zeros((6, 7, 8)), shifted)) == pytest.approx(0.09)


def test_a_case_without_an_image_is_refused() -> None:
    with pytest.raises(InputRejected, match="no image"):
        CT.check(Case("c", "p", {}))


@pytest.mark.parametrize(
    "change",
    [
        {"spacing_mm": (3, 3)},
        {"spacing_mm": (0, 3)},
        {"spacing_mm": (-1, 3)},
        {"spacing_mm": (1, float("inf"))},
        {"value_range": (5, 1)},
        {"labels": {"background": 0}},
        {"labels": {"background": 0, "a": 0}},
        {"labels": {"background": 0, "a": -1}},
        {"modality": "US"},
        {"colour": "red"},
    ],
)
def test_limits_that_make_no_sense_are_refused_when_written(change: dict) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Contract.model_validate({**CT.model_dump(), **change})


def test_the_field_of_view_is_measured_in_the_patients_axes() -> None:
    wide = CT.model_copy(update={"min_extent_mm": (6.0, 7.0, 16.0)})
    wide.check_image(image())  # 6 x 7 x 8 voxels of 1 x 1 x 2 mm
    turned = np.zeros((4, 4))
    turned[2, 0], turned[0, 1], turned[1, 2], turned[3, 3] = 2, 1, 1, 1  # the first voxel axis runs to the head
    wide.check_image(Volume.of(np.arange(8 * 6 * 7.0).reshape(8, 6, 7), turned))
    for smallest in ((6.1, 7.0, 16.0), 6.1):
        with pytest.raises(InputRejected) as caught:
            CT.model_copy(update={"min_extent_mm": smallest}).check_image(image())
        assert caught.value.code == "EXTENT"


def test_numbers_that_are_no_hounsfield_units_are_refused_unless_the_check_is_off() -> None:
    stored = np.full((10, 10, 9), 20)
    stored[2:6, 2:6, 2:6] = 2000
    assert code_of(image(stored)) == "HU_CALIBRATION"
    CT.model_copy(update={"hu_check": False}).check_image(image(stored))
    CT.model_copy(update={"unit": "arbitrary"}).check_image(image(stored))


HIPS = CT.model_copy(update={"body_part": ("HIP", "T SPINE"), "plane": "axial"})


def test_a_header_that_names_another_body_part_or_plane_is_refused_by_name() -> None:
    assert HIPS.check_acquisition({"body_part": "hip", "plane": "axial"}) == ()
    assert HIPS.check_acquisition({"body_part": "TSPINE", "plane": "axial"}) == ()
    for acquisition, code in (
        ({"body_part": "chest", "plane": "axial"}, "BODY_PART"),
        ({"body_part": "hip", "plane": "oblique"}, "PLANE"),
    ):
        with pytest.raises(InputRejected) as caught:
            HIPS.check_acquisition(acquisition)
        assert caught.value.code == code
        assert "chest" not in caught.value.sentence
    with pytest.raises(InputRejected, match="body part"):
        HIPS.check(Case("c", "p", {"image": image()}, acquisition={"body_part": "head"}))


def test_a_silent_header_passes_and_is_noted() -> None:
    assert HIPS.check_acquisition({}) == ("BODY_PART_UNKNOWN", "PLANE_UNKNOWN")
    assert CT.check_acquisition({"body_part": "head"}) == ()


def test_one_body_part_may_be_written_without_a_list() -> None:
    assert Contract.model_validate({**CT.model_dump(), "body_part": "HIP"}).body_part == ("HIP",)


def test_a_snap_is_written_down_with_its_millimetres_and_an_equal_grid_is_not() -> None:
    assert snap_note(0.0432) == "SNAPPED 0.043 mm"
    assert snap_note(0.0) is None


def test_a_contract_of_an_earlier_version_loads_unchanged() -> None:
    old = '{"modality":"CT","spacing_mm":[0.5,3.0],"labels":[["background",0],["femur",5]],"value_range":null,"unit":"HU",'
    contract = Contract.model_validate_json(old + '"min_extent_voxels":4,"max_voxels":1000}')
    assert (contract.body_part, contract.plane, contract.clinical, contract.terms) == (None, "any", {}, {})
    assert not contract.sheared


@pytest.mark.parametrize(
    "column",
    [
        {"kind": "number", "range": [5, 1]},
        {"kind": "text", "range": [1, 5]},
        {"kind": "category"},
        {"kind": "flag", "categories": ["yes"]},
        {"kind": "colour"},
    ],
)
def test_a_column_that_makes_no_sense_is_refused(column: dict) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Column.model_validate(column)


def test_missing_codes_are_words_even_where_yaml_reads_numbers() -> None:
    column = Column.model_validate({"kind": "number", "missing": [-9, "NA"]})
    assert [column.is_missing(cell) for cell in ("-9", " na ", "", "9", "-99")] == [True, True, True, False, False]


def test_voxels_that_nobody_annotated_have_a_code_of_their_own() -> None:
    sparse = CT.model_copy(update={"unannotated": 9})
    mask = np.zeros(image().shape[1:], np.uint8)
    mask[2, 2, 2] = 9
    sparse.check_label(image(), image(mask))
    assert label_code(image(mask)) == "LABEL_VALUES"
    with pytest.raises(ValueError, match="that of a structure"):
        Contract.model_validate({**CT.model_dump(), "unannotated": 5})
