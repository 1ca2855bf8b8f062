"""Claims about windows: every voxel is seen, and what does not depend on its neighbours is not changed by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import IntegrityError, UsageError
from bedside.data.patches import Example, PatchSampler
from bedside.engines.windows import AxisWindows, WindowGrid, window_corners
from bedside.engines.wrap import MirrorAverage, SlidingWindow

shapes = st.tuples(*[st.integers(1, 14)] * 3)
patches = st.tuples(*[st.integers(1, 9)] * 3)
overlaps = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9])


def affine_map(windows):
    """(B, 1, I, J, K) to two channels that depend on their own voxel only."""
    return np.concatenate([2.0 * windows + 1.0, -windows], axis=1)


class Recorder:
    """A forward that keeps what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, windows):
        self.calls.append(windows.copy())
        return windows


def volume(shape, *, seed=0, channels=1):
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


@given(shape=shapes, patch=patches, overlap=overlaps, batch=st.integers(1, 5))
@settings(max_examples=60)
def test_a_pointwise_network_gives_the_same_with_and_without_windows(shape, patch, overlap, batch):
    array = volume(shape)
    output = SlidingWindow(affine_map, patch, overlap, batch=batch)(array)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, affine_map(array[None])[0], rtol=1e-5, atol=1e-5)


@given(shape=shapes, patch=patches, overlap=overlaps)
@settings(max_examples=100)
def test_windows_cover_every_voxel_and_keep_the_overlap(shape, patch, overlap):
    size = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    corners = window_corners(size, patch, overlap)
    seen = np.zeros(size, dtype=int)
    for corner in corners:
        assert all(start >= 0 and start + p <= n for start, p, n in zip(corner, patch, size, strict=True))
        seen[tuple(slice(start, start + p) for start, p in zip(corner, patch, strict=True))] += 1
    assert seen.min() >= 1
    for axis in range(3):
        starts = sorted({corner[axis] for corner in corners})
        steps = np.diff(starts)
        assert all(step <= max(1, int(patch[axis] * (1 - overlap))) + 1 for step in steps)
        assert (starts[0], starts[-1]) == (0, size[axis] - patch[axis])
    assert len(set(corners)) == len(corners)


def test_no_more_windows_are_computed_than_the_overlap_needs():
    assert len(window_corners((16, 16, 16), (16, 16, 16), 0.5)) == 1
    assert len(window_corners((24, 16, 16), (16, 16, 16), 0.5)) == 2
    assert len(window_corners((25, 16, 16), (16, 16, 16), 0.5)) == 3


def test_what_one_window_covers_is_one_plain_pass():
    seen = Recorder()
    array = volume((7, 8, 5))
    output = SlidingWindow(seen, (8, 8, 8), 0.5)(array)
    assert len(seen.calls) == 1
    assert output.tobytes() == array.tobytes()


def test_a_small_volume_is_padded_exactly_as_in_training():
    seen = Recorder()
    array = volume((5, 8, 6))
    SlidingWindow(seen, (8, 8, 9), 0.5)(array)
    label = np.zeros((5, 8, 6), dtype=np.uint8)
    example = Example(array, label, np.zeros((0, 3), dtype=np.int32))
    drawn, _ = PatchSampler([example], (8, 8, 9), batch=1, foreground=0.0, seed=0).draw(0)
    np.testing.assert_array_equal(seen.calls[0], drawn.numpy())


def test_each_window_is_activated_before_the_average():
    def position(windows):
        return np.broadcast_to(windows.mean(axis=(1, 2, 3, 4), keepdims=True), windows.shape).astype(np.float32)

    array = np.zeros((1, 4, 1, 1), dtype=np.float32)
    array[0, :, 0, 0] = (0.0, 0.0, 4.0, 4.0)
    squared = SlidingWindow(position, (2, 1, 1), 0.5, activate=np.square)(array)[0, :, 0, 0]
    # windows (0, 0), (0, 4), (4, 4) have means 0, 2, 4; inner voxels see two windows with equal weight
    np.testing.assert_allclose(squared, [0.0, (0 + 4) / 2, (4 + 16) / 2, 16.0], rtol=1e-6)


def test_the_middle_of_a_window_counts_more_than_its_rim():
    weight = AxisWindows(length=19, window=9, starts=(0, 5, 10)).weights[1]
    assert weight.dtype == np.float32
    assert weight.argmax() == 4
    assert weight[4] > 10 * weight[0]
    np.testing.assert_allclose(weight, weight[::-1], rtol=1e-6)


@given(shape=shapes, patch=patches, overlap=overlaps)
@settings(max_examples=60)
def test_the_weights_of_all_windows_add_up_to_one_at_every_voxel(shape, patch, overlap):
    size = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    grid, total = WindowGrid.of(size, patch, overlap), np.zeros(size, dtype=np.float32)
    for numbers in grid:
        total[grid.box(numbers)] += grid.weight(numbers)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_batches_of_windows_do_not_change_the_answer():
    array = volume((13, 11, 9), channels=2)
    single = SlidingWindow(lambda windows: windows[:, :1] * 3, (6, 5, 4), 0.5)(array)
    many = SlidingWindow(lambda windows: windows[:, :1] * 3, (6, 5, 4), 0.5, batch=4)(array)
    assert single.tobytes() == many.tobytes()


def test_the_input_is_not_written_to():
    array = volume((9, 9, 9))
    before = array.copy()
    array.setflags(write=False)
    SlidingWindow(affine_map, (4, 4, 4), 0.5)(array)
    np.testing.assert_array_equal(array, before)


def test_double_precision_stays_out():
    output = SlidingWindow(lambda windows: windows.astype(np.float64), (4, 4, 4), 0.5)(volume((6, 6, 6)).astype(np.float64))
    assert output.dtype == np.float32


@pytest.mark.parametrize("wrong", [lambda w: w[:, :, :-1], lambda w: w[0], lambda w: np.concatenate([w, w])])
def test_an_engine_that_loses_or_adds_voxels_is_found(wrong):
    with pytest.raises(IntegrityError, match="must stay the same"):
        SlidingWindow(wrong, (4, 4, 4), 0.5)(volume((6, 6, 6)))


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_an_overlap_that_is_no_fraction_is_wrong_use(overlap):
    with pytest.raises(UsageError):
        SlidingWindow(affine_map, (4, 4, 4), overlap)


def test_an_empty_window_or_batch_is_wrong_use():
    with pytest.raises(UsageError):
        SlidingWindow(affine_map, (4, 0, 4), 0.5)
    with pytest.raises(UsageError):
        SlidingWindow(affine_map, (4, 4, 4), 0.5, batch=0)


def lopsided(windows):
    return np.cumsum(windows, axis=2, dtype=np.float32)


def test_a_mirrored_window_gets_the_mirrored_answer_exactly():
    average, array = MirrorAverage(lopsided), volume((6, 5, 4))[None]
    np.testing.assert_array_equal(average(array[:, :, ::-1]), average(array)[:, :, ::-1])
    assert not np.array_equal(lopsided(array[:, :, ::-1]), lopsided(array)[:, :, ::-1])


def test_a_mirrored_volume_gets_the_mirrored_answer():
    window = SlidingWindow(MirrorAverage(lopsided), (4, 4, 4), 0.5)
    array = volume((10, 5, 4))
    np.testing.assert_allclose(window(array[:, ::-1].copy()), window(array)[:, ::-1], rtol=1e-5, atol=1e-5)


def test_mirroring_averages_what_was_activated():
    array = volume((4, 3, 2))[None]
    found = MirrorAverage(lopsided, activate=np.square)(array)
    turned = np.flip(np.square(lopsided(np.flip(array, 2))), 2)
    np.testing.assert_allclose(found, (np.square(lopsided(array)) + turned) / 2, rtol=1e-6)


def test_a_window_that_does_not_know_sides_is_not_changed_by_mirroring():
    array = volume((7, 5, 4), channels=2)[None]
    found = MirrorAverage(np.tanh)(array)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.tanh(array), rtol=1e-6)
