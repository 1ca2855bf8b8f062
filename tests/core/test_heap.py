"""Claims about the heap: what is freed is used again while it is kept, and goes back afterwards."""

import ctypes
import resource
import sys
from ctypes import c_size_t, c_void_p

import numpy as np
import pytest
import torch

from bedside.core import heap
from bedside.core.heap import give_back, kept_heap
from bedside.engines.memory import resident_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux" or not hasattr(heap._LIBRARY, "mallopt"), reason="glibc's options only")
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


def test_pages_are_fetched_once_while_the_heap_is_kept():
    give_back()
    each_time = page_faults(4)
    with kept_heap():
        page_faults(1)
        assert page_faults(4) < each_time / 10
    assert page_faults(4) > each_time / 2


def test_inner_users_leave_the_heap_as_the_outer_one_wants_it_and_the_last_gives_all_back():
    give_back()
    each_time, before = page_faults(4), resident_bytes()
    with kept_heap():
        with kept_heap():
            page_faults(1)
        assert page_faults(4) < each_time / 10
        assert resident_bytes() - before > BYTES // 2
    assert resident_bytes() - before < BYTES // 2


def test_an_error_inside_is_raised_and_ends_the_keeping():
    each_time = page_faults(4)
    with pytest.raises(ValueError, match="inside"), kept_heap():
        raise ValueError("inside")
    assert page_faults(4) > each_time / 2


def test_what_is_computed_is_the_same_to_the_bit():
    torch.manual_seed(0)
    net, image = torch.nn.Conv3d(2, 8, 3, padding=1), torch.randn(2, 2, 24, 24, 24)

    def step():
        net.zero_grad()
        net(image).square().mean().backward()
        return net.weight.grad.numpy().tobytes()

    plain = step()
    with kept_heap():
        assert {step() for _ in range(3)} == {plain}
    assert np.frombuffer(plain, np.float32).any()
