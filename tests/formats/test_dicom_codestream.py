import struct

import pytest
from pydicom.encaps import encapsulate

from bedside.core.errors import InputRejected
from bedside.formats.dicom_codestream import check_frame, join_fragments

RLE, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"


def check(stream, syntax):
    check_frame(encapsulate([stream]), syntax, 8, 6, bits_allocated=16)


def rle(count, *offsets, length=100):
    return struct.pack("<16I", count, *offsets, *[0] * (15 - len(offsets))).ljust(length, b"\0")


def jpeg2000(*, width=6, height=8, components=1, tile=6, bits=12, end=b"\xff\xd9"):
    size = struct.pack(">8IH", width, height, 0, 0, tile, tile, 0, 0, components) + bytes([bits - 1, 1, 1])
    return b"\xff\x4f\xff\x51" + struct.pack(">HH", len(size) + 4, 0) + size + b"data" + end


def test_sound_frames_pass():
    check(rle(2, 64, 80), RLE)
    check(jpeg2000(), J2K)


@pytest.mark.parametrize(
    ("stream", "syntax", "code"),
    [
        (rle(2, 64, 80)[:60], RLE, "DCM_TRUNCATED"),
        (rle(1, 64, 80), RLE, "DCM_GEOMETRY"),
        (rle(15, 64, 80), RLE, "DCM_GEOMETRY"),
        (rle(2, 60, 80), RLE, "DCM_GEOMETRY"),
        (rle(2, 64, 64), RLE, "DCM_GEOMETRY"),
        (rle(2, 64, 4000), RLE, "DCM_GEOMETRY"),
        (jpeg2000(width=65535), J2K, "DCM_GEOMETRY"),
        (jpeg2000(height=9), J2K, "DCM_GEOMETRY"),
        (jpeg2000(components=3), J2K, "DCM_GEOMETRY"),
        (jpeg2000(bits=17), J2K, "DCM_GEOMETRY"),
        (jpeg2000(tile=0), J2K, "DCM_GEOMETRY"),
        (jpeg2000(end=b""), J2K, "DCM_TRUNCATED"),
        (b"\xff\xd8" + bytes(60), J2K, "DCM_DECODE"),
        (jpeg2000()[:40], J2K, "DCM_DECODE"),
    ],
)
def test_a_stream_that_contradicts_its_header_never_reaches_the_decoder(stream, syntax, code):
    with pytest.raises(InputRejected) as caught:
        check(stream, syntax)
    assert caught.value.code == code


def test_fragments_are_joined_without_the_offset_table():
    assert join_fragments(encapsulate([b"abcdef"], fragments_per_frame=3)) == b"abcdef"


def test_pixel_data_without_a_fragment_is_truncated():
    with pytest.raises(InputRejected) as caught:
        join_fragments(struct.pack("<HHI", 0xFFFE, 0xE000, 0))
    assert caught.value.code == "DCM_TRUNCATED"
