"""Claims about the heap: what is freed is used again while it is kept, and goes back afterwards."""

import ctypes
import gc
import platform
import resource
from ctypes import c_size_t, c_void_p
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bedside.core import heap
from bedside.core.heap import give_back, kept_heap, seldom_collecting
from bedside.engines.memory import resident_bytes

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NO HEAP WAS MEASURED: this C library is not glibc")
BYTES = 48 << 20
"""Above what glibc keeps by itself."""


def page_faults(rounds):
    """Of so many large pieces, each freed before the next is made."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes, library.free.argtypes = c_void_p, [c_size_t], [c_void_p]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        piece = library.malloc(BYTES)
        ctypes.memset(piece, 1, BYTES)
        library.free(piece)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@on_glibc
def test_pages_are_fetched_once_while_the_heap_is_kept():
    give_back()
    each_time = page_faults(4)
    with kept_heap():
        page_faults(1)
        assert page_faults(4) < each_time / 10
    assert page_faults(4) > each_time / 2


@on_glibc
def test_inner_users_leave_the_heap_as_the_outer_one_wants_it_and_the_last_gives_all_back():
    give_back()
    each_time = page_faults(4)
    give_back()
    before = resident_bytes()
    with kept_heap():
        with kept_heap():
            page_faults(1)
        assert page_faults(4) < each_time / 10
        assert resident_bytes() - before > BYTES // 2
    assert resident_bytes() - before < BYTES // 2


def test_what_a_worker_keeps_is_set_again_after_a_wider_keeping(monkeypatch):
    told = []
    monkeypatch.setattr(heap, "_LIBRARY", SimpleNamespace(mallopt=lambda *option: told.append(option) or 1))
    monkeypatch.setattr(heap, "_after", heap._USUAL)
    heap.keep_small_pieces()
    with kept_heap():
        pass
    few, keep = list(heap._FEW.items()), list(heap._KEEP.items())
    assert told == [*few, *keep, *few]


def test_a_library_that_refuses_a_high_threshold_is_told_the_highest_it_takes(monkeypatch):
    told = []
    monkeypatch.setattr(
        heap, "_LIBRARY", SimpleNamespace(mallopt=lambda option, value: told.append((option, value)) or value <= 32 << 20)
    )
    heap._set({heap._MMAP_THRESHOLD: 1 << 30})
    assert told == [(heap._MMAP_THRESHOLD, 1 << 30), (heap._MMAP_THRESHOLD, 32 << 20)]


@on_glibc
def test_an_error_inside_is_raised_and_ends_the_keeping():
    each_time = page_faults(4)
    with pytest.raises(ValueError, match="inside"), kept_heap():
        raise ValueError("inside")
    assert page_faults(4) > each_time / 2


def test_cycles_wait_until_the_last_of_several_is_done():
    before = gc.get_threshold()
    gc.set_threshold(700, 11, 12)
    try:
        with seldom_collecting():
            with seldom_collecting():
                assert gc.get_threshold() == (20_000, 11, 12)
            assert gc.get_threshold() == (20_000, 11, 12)
        assert gc.get_threshold() == (700, 11, 12)
        gc.set_threshold(0)
        with seldom_collecting():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_what_is_computed_is_the_same_to_the_bit():
    torch.manual_seed(0)
    net, image = torch.nn.Conv3d(1, 16, 3, padding=1), torch.randn(1, 1, 88, 88, 88)

    def step():
        net.zero_grad()
        net(image).square().mean().backward()
        return net.weight.grad.numpy().tobytes()

    plain = step()
    with kept_heap():
        assert {step() for _ in range(3)} == {plain}
    assert np.frombuffer(plain, np.float32).any()
