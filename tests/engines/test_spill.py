"""Claims about open sums that wait on the disk: the same bits, bounded memory, and nothing left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import IntegrityError, ResourceError
from bedside.engines import spill
from bedside.engines.memory import Ceiling
from bedside.engines.predict import open_model
from bedside.engines.spill import SpilledFrontier, SumsFile, least_bytes
from bedside.engines.stream import Frontier
from bedside.engines.windows import WindowGrid
from bedside.engines.wrap import HELD_BYTES, SlidingWindow

shapes = st.tuples(*[st.integers(1, 16)] * 3)
patches = st.tuples(*[st.integers(1, 8)] * 3)
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.8])

ALONE = """
import os, signal, sys
import numpy as np
from bedside.engines import spill
from bedside.engines.wrap import SlidingWindow

channels, ends, seen = int(sys.argv[1]), sys.argv[2], []
scale = np.arange(channels, dtype=np.float32).reshape(-1, 1, 1, 1)
spill.JOINED_BYTES = 1 << 20


class Enough(Exception):
    pass


def forward(windows):
    seen.append(1)
    if len(seen) == 100 and ends == "killed":
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        sizes = [os.stat(link).st_size for link in links if os.path.islink(link) and os.environ["TMPDIR"] in os.readlink(link)]
        print(sum(sizes), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if len(seen) == 100:
        raise Enough
    return windows * scale


try:
    window = SlidingWindow(forward, (32, 32, 32), 0.5, most_held_bytes=1 << 20)
    window.stream(np.ones((1, 160, 160, 160), np.float32), lambda box, values: None)
except Enough:
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024)
"""
"""A process that says its peak after a slab of 81 windows and some of the next, or is killed there."""


def lopsided(channels):
    """A network whose every output voxel depends on its place in the window, with zeros of both signs."""

    def forward(windows):
        slope = np.cumsum(windows, axis=2, dtype=np.float32)
        found = np.concatenate([np.sin(slope * (number + 1)) for number in range(channels)], axis=1)
        found[np.abs(found) < 0.05] = -0.0
        return found

    return forward


def given_by(frontier, grid, outputs):
    """The boxes and values of a frontier, and the most bytes that it had in memory."""
    found, most = np.full((next(iter(outputs.values())).shape[0], *(axis.length for axis in grid.axes)), 9, np.float32), 0
    for numbers in grid:
        frontier.add(numbers, outputs[numbers].copy())
        most = max(most, getattr(frontier, "held_bytes", 0))
        for box, values in frontier.finished(numbers):
            most = max(most, getattr(frontier, "held_bytes", 0) + values.nbytes)
            assert (found[(slice(None), *box)] == 9).all()
            found[(slice(None), *box)] = values
    return found, most


@pytest.fixture
def tiny_pieces(monkeypatch):
    """One plane is read at once, so that small volumes are spilled too."""
    monkeypatch.setattr(spill, "JOINED_BYTES", 1)


@given(
    shape=shapes,
    patch=patches,
    overlap=overlaps,
    channels=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.3, 0.7]),
    joined_bytes=st.sampled_from([1, 200, 2000]),
)
@settings(max_examples=100)
def test_spilled_sums_have_the_bits_of_sums_in_memory_within_their_bound(shape, patch, overlap, channels, share, joined_bytes):
    size = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    grid, generator = WindowGrid.of(size, patch, overlap), np.random.default_rng(sum(shape))
    outputs = {numbers: generator.normal(size=(channels, *patch)).astype(np.float32).round(1) for numbers in grid}
    open_bytes = 4 * channels * grid.held_voxels
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "JOINED_BYTES", joined_bytes)
        most_bytes = max(int(share * open_bytes), least_bytes(grid, channels))
        with SpilledFrontier(grid, channels, most_bytes) as frontier:
            spilled, held_bytes = given_by(frontier, grid, outputs)
            file_bytes = frontier._file.size_bytes
            assert frontier.held_bytes == 0
    assert spilled.tobytes() == given_by(Frontier(grid), grid, outputs)[0].tobytes()
    assert held_bytes <= most_bytes
    assert file_bytes == 0 or most_bytes < 2 * open_bytes


@given(shape=shapes, patch=patches, overlap=overlaps, channels=st.integers(1, 4), batch=st.integers(1, 3))
@settings(max_examples=40)
def test_a_prediction_has_the_same_bits_whatever_may_be_held(shape, patch, overlap, channels, batch):
    array, found = np.random.default_rng(sum(shape)).normal(size=(1, *shape)).astype(np.float32), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spill, "JOINED_BYTES", 1)
        for most_held_bytes in (HELD_BYTES, 0):
            window = SlidingWindow(lopsided(channels), patch, overlap, batch=batch, most_held_bytes=most_held_bytes)
            average = np.full((channels, *shape), 9, np.float32)

            def take(box, values, average=average):
                average[(slice(None), *box)] = values

            window.stream(array, take)
            found.append(average)
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_array_equal(found[1], window(array))


@pytest.mark.usefixtures("tiny_pieces")
def test_where_a_row_of_windows_fits_each_sum_goes_to_the_disk_once():
    grid = WindowGrid.of((40, 40, 40), (8, 8, 8), 0.5)
    outputs, moved = {numbers: np.ones((2, 8, 8, 8), np.float32) for numbers in grid}, []
    with SpilledFrontier(grid, 2, 2 * 4 * 8 * 8 * 40 * 2) as frontier:
        write, frontier._file.put = frontier._file.put, lambda sums: (moved.append(4 * sums.numel()), write(sums))[1]
        given_by(frontier, grid, outputs)
        assert frontier._file.size_bytes <= 4 * 2 * grid.held_voxels
    assert 0 < sum(moved) <= 4 * 2 * 40**3


class TestBound:
    def test_few_classes_touch_no_disk(self, monkeypatch):
        monkeypatch.setattr(spill, "TemporaryFile", lambda **_: pytest.fail("a file was made"))
        SlidingWindow(lopsided(3), (4, 4, 4), 0.5).stream(np.ones((1, 9, 9, 9), np.float32), lambda box, values: None)

    def test_what_is_held_is_what_is_open_up_to_the_bound(self):
        window, shape = SlidingWindow(lopsided(1), (96, 96, 96), 0.5), (384, 384, 400)
        assert window.held_bytes(shape, 1) == 4 * window.grid(shape).held_voxels
        assert window.held_bytes(shape, 60) == window.held_bytes(shape, 120) == HELD_BYTES

    def test_a_ceiling_lowers_the_bound_but_never_below_what_is_needed_to_work(self):
        window, shape = SlidingWindow(lopsided(1), (96, 96, 96), 0.5), (384, 384, 400)
        least = least_bytes(window.grid(shape), 60)
        assert window.held_bytes(shape, 60, left_bytes=300_000_000) == 300_000_000
        assert window.held_bytes(shape, 60, left_bytes=-5.0) == least <= 2 * spill.JOINED_BYTES
        assert window.held_bytes(shape, 1, left_bytes=-5.0) == 4 * window.grid(shape).held_voxels

    @pytest.mark.usefixtures("tiny_pieces")
    def test_what_does_not_fit_below_a_ceiling_is_spilled_and_what_cannot_be_is_refused(self, monkeypatch):
        monkeypatch.setattr("bedside.engines.memory.resident_bytes", lambda: 100 * 10**6)
        window, array, taken = SlidingWindow(lopsided(2), (8, 8, 8), 0.5), np.ones((1, 24, 24, 24), np.float32), []
        open_bytes, least = window.held_bytes((24, 24, 24), 2), least_bytes(window.grid((24, 24, 24)), 2)
        made, known = [], spill.SumsFile
        monkeypatch.setattr(spill, "SumsFile", lambda: made.append(known()) or made[-1])
        for over_bytes, files in ((open_bytes, 0), (open_bytes - 1, 1), (least, 2)):
            window.stream(array, lambda box, values: taken.append(box), ceiling=Ceiling(100 + over_bytes / 1e6))
            assert len(made) == files
        assert made[0].size_bytes < made[1].size_bytes
        before = len(taken)
        with pytest.raises(ResourceError) as caught:
            window.stream(array, lambda box, values: taken.append(box), ceiling=Ceiling(100 + (least - 1) / 1e6))
        assert (caught.value.exit_code, caught.value.code, len(taken)) == (6, "MEMORY", before)

    @pytest.mark.usefixtures("tiny_pieces")
    def test_a_case_is_not_refused_for_sums_that_can_be_spilled(self, store_model, workspace, case, monkeypatch):
        predictor = open_model(store_model(workspace, patch=(8, 8, 8)))
        free = predictor(case)
        taken_bytes = 3 * 8**3 * 4 + case.image.array[0].size * 5
        sums_bytes = least_bytes(predictor.window.grid(case.image.shape[1:]), 3)
        assert sums_bytes < predictor.window.held_bytes(case.image.shape[1:], 3)
        for module in ("memory", "predict", "wrap"):
            monkeypatch.setattr(f"bedside.engines.{module}.resident_bytes", lambda: 0)
        held = open_model(predictor.model, memory_mb=(taken_bytes + sums_bytes) / 1e6)(case)
        assert held.value.tobytes() == free.value.tobytes()
        assert held.uncertainty.tobytes() == free.uncertainty.tobytes()
        with pytest.raises(ResourceError, match="of memory at its peak"):
            open_model(predictor.model, memory_mb=(taken_bytes + sums_bytes - 1) / 1e6)(case)


def alone(channels, ends, folder):
    """What a process of its own says, whose temporary files lie in a folder."""
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ALONE, str(channels), ends]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_with_four_times_the_classes_only_the_outputs_of_a_window_are_held_more(tmp_path):
    few, many = 30, 120
    peaks = [int(alone(channels, "stopped", tmp_path).stdout) for channels in (few, many)]
    output_bytes, open_bytes = 4 * (many - few) * 32**3, 4 * (many - few) * 16 * 160**2
    assert peaks[1] - peaks[0] < 4 * output_bytes < 0.4 * open_bytes


def test_a_kill_leaves_no_file(tmp_path):
    done = alone(40, "killed", tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert int(done.stdout) > 50 << 20  # it was there
    assert list(tmp_path.iterdir()) == []


class TestDisk:
    @pytest.mark.usefixtures("tiny_pieces")
    def test_a_full_disk_is_a_resource_error_and_leaves_nothing_open(self, limited_file_size, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        window = SlidingWindow(lopsided(4), (8, 8, 8), 0.5, most_held_bytes=0)
        opened = len(list(Path("/proc/self/fd").iterdir()))
        with limited_file_size(20_000), pytest.raises(ResourceError, match="The disk is full while open sums") as caught:
            window.stream(np.ones((1, 30, 30, 30), np.float32), lambda box, values: None)
        assert (caught.value.exit_code, caught.value.code) == (6, "DISK_FULL")
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
        assert list(tmp_path.iterdir()) == []

    def test_no_folder_for_temporary_files_is_a_resource_error(self, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(Path("/proc"))])
        with pytest.raises(ResourceError, match="set TMPDIR to a folder with room") as caught:
            SumsFile()
        assert caught.value.code == "DISK_FULL"

    def test_a_place_is_used_again_for_sums_of_the_same_size(self):
        file, first, second = SumsFile(), torch.rand(3, 4), torch.rand(4, 3)
        at = file.put(first)
        other = file.put(torch.rand(2))
        found = torch.empty(3, 4)
        file.take(at, found)
        assert torch.equal(found, first)
        assert (file.put(second), other, file.size_bytes) == (at, 48, 56)
        file.close()

    def test_sums_that_were_lost_are_never_taken_for_sums(self):
        file = SumsFile()
        at = file.put(torch.rand(3, 4))
        os.ftruncate(file._file.fileno(), 40)
        with pytest.raises(IntegrityError, match="shorter than what was written"):
            file.take(at, torch.empty(3, 4))
        file.close()
