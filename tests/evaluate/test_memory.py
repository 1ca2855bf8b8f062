"""The peak of one piece of work is not hidden by that of an earlier one."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from bedside.evaluate import memory
from bedside.evaluate.memory import peak_mb, reset_peak


def test_memory_of_a_process_is_more_than_nothing():
    assert peak_mb() > 5


def test_the_peak_counts_what_was_allocated_and_is_forgotten_after_a_reset():
    if not reset_peak():
        pytest.skip("NO PEAK WAS RESET: this system does not let a process do that (/proc/self/clear_refs)")
    before = peak_mb()
    with mmap.mmap(-1, 200_000_000) as block:
        np.frombuffer(block, np.uint8)[:] = 1  # pages of its own: what malloc gives may lie in a hole of the heap and stay there
        during = peak_mb()
    assert during - before > 190
    assert reset_peak()
    assert peak_mb() < during - 150


def test_a_system_without_the_files_still_gives_the_peak_of_the_process(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent" / "status")
    assert reset_peak() is False
    assert peak_mb() > 5
