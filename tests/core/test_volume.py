"""Geometry is turned and never invented: every voxel keeps its place in the world."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.errors import InputRejected
from bedside.core.volume import Reorientation, Volume, farthest_corner_mm

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    total = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        total = total @ turn
    return total


def world_positions(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape[1:]), indexing="ij"), axis=-1).reshape(-1, 3)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def encoded(affine: np.ndarray, shape: tuple[int, int, int] = (4, 5, 6)) -> Volume:
    """A volume whose three channels are the true world position of each voxel."""
    empty = Volume.of(np.zeros((3, *shape)), affine)
    return Volume.of(world_positions(empty).T.reshape(3, *shape), affine)


def oriented(order: tuple[int, ...], signs: tuple[int, ...], tilt: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    affine = np.eye(4)
    matrix = np.zeros((3, 3))
    for axis, (world, sign, spacing) in enumerate(zip(order, signs, (0.7, 1.3, 2.9), strict=True)):
        matrix[world, axis] = sign * spacing
    affine[:3, :3] = rotation(tilt) @ matrix
    affine[:3, 3] = [11.0, -22.0, 33.0]
    return affine


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_each_of_48_orientations_turns_to_ras_and_back_without_moving_a_voxel(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    volume = encoded(oriented(order, signs))
    turned = volume.canonical()
    cosines = turned.affine[:3, :3] / np.linalg.norm(turned.affine[:3, :3], axis=0)
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turned.array.reshape(3, -1).T, world_positions(turned), atol=1e-9)
    np.testing.assert_array_equal(Reorientation.of(volume).undo(turned.array), volume.array)
    assert turned.canonical().shape == turned.shape


@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_an_oblique_volume_keeps_its_place_and_comes_back(
    orientation: tuple[tuple[int, ...], tuple[int, ...]], tilt: tuple[float, float, float]
) -> None:
    volume = encoded(oriented(*orientation, tilt))
    turned = volume.canonical()
    np.testing.assert_allclose(turned.array.reshape(3, -1).T, world_positions(turned), atol=1e-9)
    np.testing.assert_array_equal(Reorientation.of(volume).undo(turned.array), volume.array)
    cosines = turned.affine[:3, :3] / np.linalg.norm(turned.affine[:3, :3], axis=0)
    best = max(sum(abs(cosines[w, a]) for w, a in enumerate(p)) for p in permutations(range(3)))
    assert np.trace(cosines) == pytest.approx(best)


def test_spacing_is_the_length_of_the_steps_and_survives_the_turn() -> None:
    volume = encoded(oriented((2, 0, 1), (-1, 1, -1), (0.2, 0.1, -0.3)))
    assert volume.spacing_mm == pytest.approx((0.7, 1.3, 2.9))
    assert sorted(volume.canonical().spacing_mm) == pytest.approx([0.7, 1.3, 2.9])


def test_the_farthest_corner_is_zero_on_the_same_grid_and_the_shift_on_a_shifted_one() -> None:
    first = encoded(np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = [3, 0, 4]
    assert farthest_corner_mm(first, first) == 0
    assert farthest_corner_mm(first, encoded(shifted)) == pytest.approx(5)


def test_a_turned_grid_is_far_away_although_its_affine_differs_in_two_numbers() -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 3
    assert farthest_corner_mm(encoded(np.eye(4)), encoded(flipped)) == pytest.approx(3)


def test_noise_of_a_header_is_not_a_difference() -> None:
    assert farthest_corner_mm(encoded(np.eye(4)), encoded(np.eye(4) + np.diag([1e-7, 1e-7, 1e-7, 0]))) < 1e-5


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 1, 0, 1]),
        np.diag([1.0, 1, np.nan, 1]),
        np.eye(3),
        np.diag([1.0, 1, 1, 2]),
        np.full((4, 4), np.inf),
    ],
)
def test_an_affine_that_is_no_place_in_the_world_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(InputRejected) as caught:
        Volume.of(np.zeros((2, 2, 2)), affine)
    assert caught.value.code == "AFFINE"


def test_bytes_that_do_not_fit_the_header_are_refused_when_read() -> None:
    volume = Volume(np.eye(4), (1, 2, 2, 2), lambda: np.zeros((1, 2, 2, 3)))
    with pytest.raises(InputRejected, match="header"):
        _ = volume.array
    with pytest.raises(InputRejected):
        Volume.of(np.zeros((2, 2)), np.eye(4))


def test_an_array_is_read_once_and_only_when_looked_at() -> None:
    reads: list[int] = []

    def load() -> np.ndarray:
        reads.append(1)
        return np.zeros((1, 2, 2, 2))

    volume = Volume(np.eye(4), (1, 2, 2, 2), load)
    turned = volume.canonical()
    assert reads == []
    assert turned.array is turned.array
    assert volume.array is volume.array
    assert len(reads) == 1


def test_the_affine_cannot_be_changed_and_the_callers_stays_writable() -> None:
    mine = np.eye(4)
    volume = Volume.of(np.zeros((2, 2, 2)), mine)
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2
    mine[0, 0] = 2
    assert volume.affine[0, 0] == 1
