"""Grey frames of 12 bits as JPEG extended (ISO/IEC 10918-1, sequential DCT, SOF1), which no library here encodes; for phantoms.

The plainest stream that the standard allows: one component, a quantisation table of ones, and Huffman codes of one length each.
"""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

_BLOCK, _MIDDLE = 8, 2048
_ZIGZAG = sorted(
    ((row, column) for row in range(_BLOCK) for column in range(_BLOCK)),
    key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]),
)
_DC_BITS, _AC_BITS = 5, 8
_DC = bytes(range(16))
_END_OF_BLOCK, _SIXTEEN_ZEROS = 0x00, 0xF0
_AC = bytes([_END_OF_BLOCK, _SIXTEEN_ZEROS, *(run << 4 | size for run in range(16) for size in range(1, 15))])
"""Symbols, whose codes are their places here: 16 in 5 bits, 226 in 8, so that none is all ones (ISO/IEC 10918-1 C.2)."""
_BITS_OF = {symbol: f"{place:0{_AC_BITS}b}" for place, symbol in enumerate(_AC)}


def extended_12(frame: NDArray[np.generic]) -> bytes:
    """The stream of a frame (rows, columns) of numbers from 0 to 4095; its loss is that of rounding the coefficients."""
    rows, columns = frame.shape
    wide = np.pad(frame.astype(np.float64) - _MIDDLE, ((0, -rows % _BLOCK), (0, -columns % _BLOCK)), mode="edge")
    head = _segment(0xDB, b"\0" + bytes([1] * 64))
    head += _segment(0xC1, struct.pack(">BHHB", 12, rows, columns, 1) + b"\1\x11\0")
    head += _segment(0xC4, b"\0" + _counts(_DC_BITS, len(_DC)) + _DC) + _segment(
        0xC4, b"\x10" + _counts(_AC_BITS, len(_AC)) + _AC
    )
    head += _segment(0xDA, b"\1\1\0\0\x3f\0")
    bits = "".join(_scan(wide))
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _counts(bits: int, symbols: int) -> bytes:
    """How many codes of each length from 1 to 16 there are."""
    return bytes(symbols if length == bits else 0 for length in range(1, 17))


def _scan(wide: NDArray[np.float64]) -> Iterator[str]:
    """The bits of all blocks, row by row."""
    before = 0
    for top in range(0, wide.shape[0], _BLOCK):
        for left in range(0, wide.shape[1], _BLOCK):
            found = np.rint(dctn(wide[top : top + _BLOCK, left : left + _BLOCK], norm="ortho")).astype(int)
            first, *others = (int(found[at]) for at in _ZIGZAG)
            yield f"{_DC[_size(first - before)]:0{_DC_BITS}b}" + _digits(first - before)
            before = first
            yield from _alternating(others)


def _alternating(numbers: list[int]) -> Iterator[str]:
    """Runs of zeros and what follows them (F.1.2.2)."""
    last = max((place for place, number in enumerate(numbers) if number), default=-1)
    run = 0
    for number in numbers[: last + 1]:
        if number == 0:
            run += 1
            continue
        yield from (_BITS_OF[_SIXTEEN_ZEROS] for _ in range(run // 16))
        yield _BITS_OF[(run % 16) << 4 | _size(number)] + _digits(number)
        run = 0
    if last < len(numbers) - 1:
        yield _BITS_OF[_END_OF_BLOCK]


def _size(number: int) -> int:
    return abs(number).bit_length()


def _digits(number: int) -> str:
    """The number in as many bits as it needs; a negative one as its complement."""
    size = _size(number)
    return f"{number if number > 0 else number + (1 << size) - 1:0{size}b}" if size else ""
