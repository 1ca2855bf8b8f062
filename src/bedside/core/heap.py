"""Memory that is used again: the C library's heap (glibc), and how often Python looks for cycles of garbage.

By itself glibc maps every piece above 32 MB anew and gives what lies free at the end of its heap back, so that each step of a
training and each window of a prediction pays for the same pages again: tens of thousands of page faults a step, and up to a fifth
of its time. What is computed is the same to the bit.
"""

import ctypes
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of malloc.h."""
_KEEP = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
"""Where glibc's own rule ends for a process that frees large pieces (mallopt(3))."""
_FEW = {_MMAP_THRESHOLD: 8 << 20, _TRIM_THRESHOLD: 32 << 20}
_COLLECT_AFTER = 20_000
"""New objects after which cycles among them are looked for. Python's own 700 suits programs whose objects go; here most of them
stay, or go without a cycle, and are looked through in vain."""
_MOST_OF_OLDER = 32 << 20
"""Older libraries refuse a higher threshold."""
_LIBRARY = ctypes.CDLL(None)
_lock = Lock()
_users = 0
_after = _USUAL
"""What is set when nobody keeps the heap any more."""
_patient = 0
_before = gc.get_threshold()
"""Of those who let cycles wait for a while, and what was set before the first of them."""


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep what is freed meanwhile for what comes next; afterwards it goes back. It may be nested, also in several threads."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set(_after)
                give_back()


def keep_small_pieces() -> None:
    """Keep pieces of the size of one file or one slice, from now on; what is as large as a volume goes back."""
    global _after
    with _lock:
        _after = _FEW
        if not _users:
            _set(_after)


def collect_seldom() -> None:
    """Look for cycles of garbage less often from now on; where somebody wants none to be looked for, that stays so."""
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, _COLLECT_AFTER) if first else 0, *others)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for cycles of garbage less often meanwhile. It may be nested, also in several threads."""
    global _patient, _before
    with _lock:
        _patient += 1
        if _patient == 1:
            _before = gc.get_threshold()
            collect_seldom()
    try:
        yield
    finally:
        with _lock:
            _patient -= 1
            if not _patient:
                gc.set_threshold(*_before)


def give_back() -> None:
    """Let the system have what lies free in the heap, where the library can (malloc_trim(3))."""
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(options: Mapping[int, int]) -> None:
    """Tell the library, where it has such options; elsewhere it is as slow as it was."""
    tell = getattr(_LIBRARY, "mallopt", None)
    if tell is not None:
        for option, value in options.items():
            if not tell(option, value) and option == _MMAP_THRESHOLD:
                tell(option, _MOST_OF_OLDER)
