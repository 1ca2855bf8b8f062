"""The C library's heap (glibc): whether memory that was freed waits for the next piece of its size, or goes back to the system.

By itself glibc maps every piece above 32 MB anew and gives what lies free at the end of its heap back, so that each step of a
training and each window of a prediction pays for the same pages again: with activations of 33 MB half of a convolution's time was
spent in page faults. What is computed is the same to the bit.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of malloc.h."""
_KEEP = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 << 20}
_USUAL = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
"""Where glibc's own rule ends for a process that frees large pieces (mallopt(3))."""
_FEW = {_MMAP_THRESHOLD: 8 << 20, _TRIM_THRESHOLD: 32 << 20}
_MOST_OF_OLDER = 32 << 20
"""Older libraries refuse a higher threshold."""
_LIBRARY = ctypes.CDLL(None)
_lock = Lock()
_users = 0
_after = _USUAL
"""What is set when nobody keeps the heap any more."""


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
