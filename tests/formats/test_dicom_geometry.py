import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.contract import Contract
from bedside.core.errors import InputRejected
from bedside.core.volume import Volume
from bedside.formats.dicom_geometry import stack

AXIAL = np.array([[1.0, 0, 0], [0, 1.0, 0]])


def along_z(*places):
    return np.array([[0.0, 0.0, place] for place in places])


def code_of(positions):
    with pytest.raises(InputRejected) as caught:
        stack(positions, AXIAL, (1.0, 1.0))
    return caught.value.code


def test_the_affine_of_an_axial_stack_is_the_one_done_by_hand():
    result = stack(along_z(14, 10, 12), AXIAL, (3.0, 0.5))
    assert result.order == (1, 2, 0)
    assert result.affine.tolist() == [[-0.5, 0, 0, 0], [0, -3, 0, 0], [0, 0, 2, 10], [0, 0, 0, 1]]


@given(st.permutations(range(6)))
def test_the_order_of_receipt_does_not_matter(order):
    places = np.arange(6)[list(order)] * 1.5
    result = stack(along_z(*places), AXIAL, (1.0, 1.0))
    assert [places[index] for index in result.order] == sorted(places)


@pytest.mark.parametrize(
    ("places", "code"),
    [
        ((0,), "SERIES_ONE_SLICE"),
        ((0, 1), "SERIES_TWO_SLICES"),
        ((0, 0), "SERIES_DUPLICATE_POSITION"),
        ((0, 1, 1.0005), "SERIES_DUPLICATE_POSITION"),
        ((0, 1, 3), "SERIES_MISSING_SLICE"),
        ((0, 1, 3, 4, 6, 7), "SERIES_MISSING_SLICE"),
        ((0, 1, 2.5), "SERIES_IRREGULAR"),
        ((0, 1, 2.3, 3.3), "SERIES_JITTER"),
        ((0, 1.9, 4, 6.1, 8), "SERIES_JITTER"),
        ((0, 5, 10, 15, 25, 35), "SERIES_TWO_INCREMENTS"),
        ((0, 5, 10, 15, 25), "SERIES_MISSING_SLICE"),
        ((0, 2, 4, 5.5, 7, 8.5), "SERIES_TWO_INCREMENTS"),
        ((0, 0.3, 0.66, 0.9), "SERIES_IRREGULAR"),
        ((0, 0.1, 0.2, 5), "SERIES_MISSING_SLICE"),
    ],
)
def test_a_pile_that_is_no_volume_is_named(places, code):
    assert code_of(along_z(*places)) == code


CT = Contract(modality="CT", spacing_mm=(0.1, 10), labels={"background": 0, "bone": 1})


@pytest.mark.parametrize("sideways_mm", [0.1, 0.0999, 0.3, 0.7])
@given(st.floats(-3, 3), st.integers(4, 400), st.sampled_from([0.5, 0.625, 1.0, 3.0]))
def test_a_stack_that_is_not_tilted_is_not_sheared_for_the_contract_either(sideways_mm, angle, count, step_mm):
    """Positions are often written to a tenth of a millimetre, so that a lean lies just on the limit."""
    along_mm = np.linspace(0, sideways_mm, count)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    positions = np.stack([0 * along_mm, along_mm, step_mm * np.arange(count)], axis=1) @ turn.T
    result = stack(positions, AXIAL @ turn.T, (1.0, 1.0))
    if not result.tilted:
        assert CT.check_axes(Volume(result.affine, (1, 512, 512, count), lambda: np.zeros(0))) == ()


@given(st.lists(st.floats(-0.04, 0.04), min_size=5, max_size=40))
def test_accepted_slices_lie_where_the_affine_says_within_the_tolerance(noise):
    positions = along_z(*(np.arange(len(noise)) * 1.0 + np.array(noise)))
    result = stack(positions, AXIAL, (1.0, 1.0))
    said = (result.affine @ np.array([[0, 0, k, 1] for k in range(len(noise))], dtype=float).T)[2]
    assert np.abs(said - positions[list(result.order), 2]).max() <= 0.1
