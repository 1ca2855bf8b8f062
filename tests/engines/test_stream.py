"""Claims about prediction in a stream: the bits of the full computation, in memory that does not hold the whole."""

import weakref
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.listening import Heard

from bedside.core.errors import ResourceError
from bedside.core.volume import Reorientation
from bedside.data.regrid import LinearAxis, Regrid
from bedside.engines import memory, wrap
from bedside.engines.memory import Ceiling, PeakWatch
from bedside.engines.predict import open_model
from bedside.engines.stream import Frontier
from bedside.engines.windows import SIGMA, AxisWindows, WindowGrid
from bedside.engines.wrap import MirrorAverage, SlidingWindow
from bedside.tasks.segmentation import Segmentation

shapes = st.tuples(*[st.integers(1, 14)] * 3)
patches = st.tuples(*[st.integers(1, 7)] * 3)
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.8])


def lopsided(channels):
    """A network whose every output voxel depends on its place in the window, and which knows left from right."""

    def forward(windows):
        slope = np.cumsum(windows, axis=2, dtype=np.float32)
        return np.concatenate([np.sin(slope * (number + 1)) for number in range(channels)], axis=1)

    return forward


def softmax(output):
    shifted = np.exp(output - output.max(axis=0))
    return shifted / shifted.sum(axis=0)


def whole_average(array, forward, patch, overlap):
    """The full computation, written down plainly: sums over the whole volume, window after window."""
    before = [max(0, p - n) // 2 for n, p in zip(array.shape[1:], patch, strict=True)]
    after = [max(0, p - n) - b for n, p, b in zip(array.shape[1:], patch, before, strict=True)]
    image = np.pad(array, [(0, 0), *zip(before, after, strict=True)], mode="edge")
    grid, total = WindowGrid.of(image.shape[1:], patch, overlap), None
    for numbers in grid:
        box = (slice(None), *grid.box(numbers))
        output = forward(image[box][None])[0]
        if total is None:
            total = np.zeros((len(output), *image.shape[1:]), dtype=np.float32)
        total[box] += output * grid.weight(numbers)
    cut = tuple(slice(b, b + n) for b, n in zip(before, array.shape[1:], strict=True))
    return total[(slice(None), *cut)]


def stretched(average, target, order):
    """The full interpolation, the second axis of the order first, then the third, then the first."""
    for axis in (order[1], order[2], order[0]):
        source = average.shape[axis + 1]
        if source == target[axis]:
            continue
        place = np.maximum((np.arange(target[axis]) + 0.5) * (source / target[axis]) - 0.5, 0)
        low = np.floor(place).astype(int).clip(max=source - 1)
        share = (place - low).astype(np.float32).reshape([-1 if at == axis + 1 else 1 for at in range(4)])
        above = np.take(average, (low + 1).clip(max=source - 1), axis + 1)
        average = np.take(average, low, axis + 1) * (np.float32(1) - share) + above * share
    return average


@given(
    shape=shapes,
    patch=patches,
    overlap=overlaps,
    channels=st.integers(2, 5),
    mirror=st.booleans(),
    target=st.none() | st.tuples(*[st.integers(1, 20)] * 3),
    batch=st.integers(1, 3),
)
@settings(max_examples=150)
def test_labels_and_probabilities_are_bit_for_bit_those_of_the_full_computation(
    shape, patch, overlap, channels, mirror, target, batch
):
    array = np.random.default_rng(sum(shape)).normal(size=(1, *shape)).astype(np.float32)
    wanted, task, forward = target or shape, Segmentation(), lopsided(channels)
    if mirror:
        window = SlidingWindow(MirrorAverage(forward, task.activate), patch, overlap, batch=batch)
    else:
        window = SlidingWindow(forward, patch, overlap, task.activate, batch=batch)

    def plainly(windows):
        straight = softmax(forward(windows)[0])
        if not mirror:
            return straight[None]
        turned = softmax(forward(windows[:, :, ::-1].copy())[0])[:, ::-1]
        return ((straight + turned) * np.float32(0.5))[None]

    label, doubt = np.full(wanted, 99, np.uint8), np.full(wanted, 9, np.float32)
    average, seen = np.zeros((channels, *wanted), np.float32), np.zeros(wanted, int)

    def take(box, values):
        label[box], doubt[box] = task.decode(values)
        average[(slice(None), *box)] = values
        seen[box] += 1

    order = window.grid(shape).order
    window.stream(array, Regrid(shape, wanted, order, take))
    expected = stretched(whole_average(array, plainly, patch, overlap), wanted, order)
    assert (seen == 1).all()
    np.testing.assert_array_equal(average, expected)
    np.testing.assert_array_equal(label, expected.argmax(axis=0))
    np.testing.assert_array_equal(doubt, np.clip(np.float32(1) - expected.max(axis=0), 0, 1))
    assert average.dtype == doubt.dtype == np.float32


@given(shape=shapes, patch=patches, overlap=overlaps)
@settings(max_examples=80)
def test_no_more_is_ever_held_than_was_predicted_and_at_the_peak_no_less(shape, patch, overlap):
    size = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    grid = WindowGrid.of(size, patch, overlap)
    frontier, most = Frontier(grid), 0
    for numbers in grid:
        frontier.add(numbers, np.ones((1, *patch), np.float32))
        most = max(most, frontier.held_voxels)
        for _ in frontier.finished(numbers):
            pass
    assert most == grid.held_voxels
    assert frontier.held_voxels == 0


@given(shape=shapes, patch=patches, overlap=overlaps)
@settings(max_examples=40)
def test_the_order_of_the_windows_is_one_that_holds_least(shape, patch, overlap):
    size = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    grid = WindowGrid.of(size, patch, overlap)
    assert grid.held_voxels <= min(WindowGrid(grid.axes, order).held_voxels for order in permutations((0, 1, 2)))
    assert len(list(grid)) == len(set(grid)) == grid.count


def test_a_longer_scan_is_not_held_longer():
    short, long = (WindowGrid.of((96, 96, length), (32, 32, 32), 0.5).held_voxels for length in (160, 1600))
    assert short == long < 96 * 96 * 32


def test_sixty_structures_of_a_large_scan_are_held_in_less_than_three_gigabytes():
    grid = WindowGrid.of((384, 384, 400), (96, 96, 96), 0.5)
    assert 60 * 4 * grid.held_voxels < 2.5e9 < 0.2 * (60 * 4 * 384 * 384 * 400)


def test_the_weights_are_those_of_a_gaussian_over_the_sum_of_all():
    axis = AxisWindows.of(40, 16, 0.5)
    bell = np.exp(-0.5 * ((np.arange(16) - 7.5) / (SIGMA * 16)) ** 2)
    total = np.zeros(40)
    for start in axis.starts:
        total[start : start + 16] += bell
    for start, weight in zip(axis.starts, axis.weights, strict=True):
        np.testing.assert_allclose(weight, bell / total[start : start + 16], rtol=1e-6)


@given(source=st.integers(1, 30), target=st.integers(1, 60))
def test_linear_interpolation_keeps_a_ramp_and_the_extent(source, target):
    axis = LinearAxis.of(source, target)
    ramp = (np.arange(source, dtype=np.float32) + 0.5)[None]
    found = axis.mix(ramp, 1, slice(0, target), first=0)[0]
    place = (np.arange(target) + 0.5) * source / target
    np.testing.assert_allclose(found, place.clip(0.5, source - 0.5), atol=1e-4)
    assert np.all(np.diff(axis.high) >= 0)
    parts = [axis.known(number, number + 1) for number in range(source)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(target))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("spacing", [None, (1.3, 0.6, 2.1)])
def test_an_answer_is_the_same_bytes_whether_or_not_the_average_is_kept(store_model, workspace, case, mirror, spacing):
    model = store_model(workspace, preprocessing={"spacing_mm": spacing}, patch=(8, 8, 8))
    predictor = open_model(model, mirror=mirror)
    alone, (beside, average) = predictor(case), predictor.answer(case)
    assert alone.value.tobytes() == beside.value.tobytes() == average.argmax(axis=0).astype(np.uint8).tobytes()
    assert alone.uncertainty.tobytes() == beside.uncertainty.tobytes()
    np.testing.assert_array_equal(alone.uncertainty, np.clip(np.float32(1) - average.max(axis=0), 0, 1))


def test_a_turned_scan_is_filled_in_its_own_axes(unet, case):
    predictor = open_model(unet)
    turn = Reorientation((2, 0, 1), (True, False, True))
    turned = type(case.image).of(np.ascontiguousarray(turn.apply(case.image.array)), turn.affine(case.image))
    found = predictor.answer(type(case)("turned", "patient-1", {"image": turned}))
    expected = predictor.answer(case)
    np.testing.assert_array_equal(turn.undo(found[1]), expected[1])
    np.testing.assert_array_equal(turn.undo(found[0].uncertainty[None])[0], expected[0].uncertainty)


@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_of_a_window_is_held_while_the_next_is_computed(batch):
    before = []

    def forward(windows):
        assert all(one() is None for one in before)
        output = np.repeat(windows, 3, axis=1)
        before.append(weakref.ref(output))
        return output

    taken = []
    SlidingWindow(forward, (4, 4, 4), 0.5, batch=batch).stream(
        np.ones((1, 9, 9, 9), np.float32), lambda box, values: taken.append(values.sum())
    )
    assert len(before) == -(-64 // batch)
    assert sum(taken) == pytest.approx(3 * 9**3)


@pytest.mark.parametrize(
    ("needed_mb", "allowed_mb", "small"), [(900, None, True), (2000, None, False), (900, 1000, False), (900, 2100, True)]
)
def test_memory_of_windows_is_kept_where_little_is_needed_and_much_is_allowed(needed_mb, allowed_mb, small):
    ceiling = None if allowed_mb is None else Ceiling(allowed_mb)
    assert wrap._is_small(int(needed_mb * 1e6), 300_000_000, ceiling) is small


def test_every_window_is_told(unet, case):
    told = Heard()
    predictor = open_model(unet, progress=told)
    predictor(case)
    count = predictor.window.grid((20, 12, 17)).count
    assert told.said[0] == ("windows", count)
    assert told.said[1:] == [(n, f"window {n} of {count}") for n in range(1, count + 1)]


class TestMemory:
    def test_what_cannot_fit_is_refused_before_a_window_is_computed(self, unet, case):
        told = Heard()
        with pytest.raises(ResourceError, match=r"needs about \d+ MB of memory at its peak and 8 MB are allowed") as caught:
            open_model(unet, memory_mb=8, progress=told)(case)
        assert (caught.value.exit_code, caught.value.code) == (6, "MEMORY")
        assert told.said == []

    def test_an_engine_that_needs_more_than_is_left_is_refused_after_its_first_window(self, monkeypatch):
        ran = []

        def forward(windows):
            ran.append(len(windows))
            return windows

        monkeypatch.setattr(memory, "resident_bytes", lambda: (100 + 50 * len(ran)) * 10**6)
        window = SlidingWindow(forward, (4, 4, 4), 0.5)
        array = np.zeros((1, 12, 12, 12), np.float32)
        taken = []
        with pytest.raises(ResourceError, match="about 150 MB of memory at its peak and 120 MB"):
            window.stream(array, lambda box, values: taken.append(box), ceiling=Ceiling(120))
        assert (ran, taken) == ([1], [])

    def test_what_fits_is_not_refused(self, unet, case):
        assert open_model(unet, memory_mb=1e6)(case).value.shape == case.image.shape[1:]

    def test_what_the_answer_will_hold_is_counted(self):
        window = SlidingWindow(lambda windows: windows, (4, 4, 4), 0.5)
        array = np.zeros((1, 12, 12, 12), np.float32)
        with pytest.raises(ResourceError):
            window.stream(array, lambda box, values: None, ceiling=Ceiling(100_000), later_bytes=100_001 * 10**6)

    def test_the_watch_sees_what_is_held_only_for_a_moment(self):
        with PeakWatch() as watch:
            before = watch.peak_bytes
            for _ in range(20):
                held = np.ones(40 << 20, dtype=np.uint8)
                held += 1
                del held
        assert 30 << 20 < watch.peak_bytes - before < 200 << 20

    def test_a_watch_that_is_not_wanted_does_nothing(self):
        with PeakWatch(wanted=False) as watch:
            pass
        assert watch.peak_bytes == 0


def test_more_than_256_structures_keep_their_numbers():
    output = np.zeros((300, 1, 1, 2), np.float32)
    output[299, 0, 0, 1] = 1
    found, _ = Segmentation().decode(output)
    assert found.tolist() == [[[0, 299]]]


def test_the_first_of_equal_structures_is_taken():
    found, doubt = Segmentation().decode(np.full((4, 2, 2, 2), 0.25, np.float32))
    assert not found.any()
    assert (doubt == 0.75).all()


def test_a_task_whose_decoding_looks_at_the_whole_volume_does_not_conform():
    from bedside.testing.tasks import _check_decoding

    def decode(output):
        value, uncertainty = Segmentation().decode(output)
        value[0] = value.max()
        return value, uncertainty

    task = SimpleNamespace(activate=Segmentation().activate, decode=decode)
    with pytest.raises(AssertionError, match="part of the volume"):
        _check_decoding(task, np.random.default_rng(0).normal(size=(3, 6, 7, 8)).astype(np.float32))
