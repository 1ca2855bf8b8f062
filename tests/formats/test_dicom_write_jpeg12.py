"""The 12-bit JPEG writer against two independent readers of the standard: GDCM's decoder, and the marker segments."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.formats.dicom_codestream import jpeg_precision
from bedside.formats.dicom_gdcm import decode_jpeg
from bedside.formats.dicom_write_jpeg12 import extended_12

SYNTAX = "1.2.840.10008.1.2.4.51"


def read_back(stream, shape):
    return decode_jpeg(stream, SYNTAX, rows=shape[0], columns=shape[1], bits=(16, jpeg_precision(stream, SYNTAX)))


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint16, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 4095)))
def test_any_frame_comes_back_within_two_numbers(frame):
    stream = extended_12(frame)
    assert np.abs(read_back(stream, frame.shape).astype(int) - frame).max() <= 2


@pytest.mark.parametrize("value", [0, 1, 2047, 2048, 4095])
def test_one_value_everywhere_comes_back_as_it_was(value):
    frame = np.full((9, 17), value, np.uint16)
    np.testing.assert_array_equal(read_back(extended_12(frame), frame.shape), frame)


def test_the_stream_says_what_it_is():
    stream = extended_12(np.zeros((5, 7), np.uint16))
    assert jpeg_precision(stream, SYNTAX) == 12
    assert (stream[:2], stream[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    assert struct.unpack(">HH", stream[stream.index(b"\xff\xc1") + 5 :][:4]) == (5, 7)
