import struct

import pytest
from pydicom.encaps import encapsulate

from bedside.core.errors import InputRejected
from bedside.formats.dicom_codestream import check_frame, join_fragments

RLE, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"


JPEG = {name: f"1.2.840.10008.1.2.4.{name}" for name in (50, 51, 57, 70, 80, 81)}


def fragments(stream, count=1):
    """The items of one frame, without the offset table in front of them."""
    return encapsulate([stream], fragments_per_frame=count, has_bot=False)[8:]


def check(stream, syntax, bits=16):
    check_frame(fragments(stream), syntax, 8, 6, bits_allocated=bits)


def jpeg(marker=0xC3, *, rows=8, columns=6, components=1, precision=12, end=b"\xff\xd9"):
    frame = struct.pack(">BHHB", precision, rows, columns, components) + b"\1\x11\0" * components
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"text"
    return b"\xff\xd8" + comment + bytes([0xFF, marker]) + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\0\2data" + end


def rle(count, *offsets, length=100):
    return struct.pack("<16I", count, *offsets, *[0] * (15 - len(offsets))).ljust(length, b"\0")


def jpeg2000(*, width=6, height=8, components=1, tile=6, bits=12, end=b"\xff\xd9"):
    size = struct.pack(">8IH", width, height, 0, 0, tile, tile, 0, 0, components) + bytes([bits - 1, 1, 1])
    return b"\xff\x4f\xff\x51" + struct.pack(">HH", len(size) + 4, 0) + size + b"data" + end


def test_sound_frames_pass():
    check(rle(2, 64, 80), RLE)
    check(jpeg2000(), J2K)
    check(jpeg(0xC0, precision=8), JPEG[50], bits=8)
    check(jpeg(0xC1), JPEG[51])
    check(jpeg(), JPEG[57])
    check(jpeg(end=b"\xff\xd9\0"), JPEG[70])
    check(jpeg(0xF7), JPEG[80])


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
        (jpeg(rows=9), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(rows=0), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(columns=60000), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(components=3), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(precision=17), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(precision=8), JPEG[70], "DCM_GEOMETRY"),
        (jpeg(0xC1, precision=16), JPEG[51], "DCM_GEOMETRY"),
        (jpeg(0xC0), JPEG[50], "DCM_GEOMETRY"),
        (jpeg(0xC0), JPEG[70], "DCM_DECODE"),
        (jpeg(0xC2), JPEG[51], "DCM_DECODE"),
        (jpeg(), JPEG[80], "DCM_DECODE"),
        (jpeg(0xF7, rows=65535), JPEG[81], "DCM_GEOMETRY"),
        (jpeg(end=b""), JPEG[57], "DCM_TRUNCATED"),
        (jpeg()[:14], JPEG[57], "DCM_DECODE"),
        (b"\xff\xd8" + b"\xff" * 60, JPEG[57], "DCM_DECODE"),
        (b"not a jpeg stream at all", JPEG[57], "DCM_DECODE"),
    ],
)
def test_a_stream_that_contradicts_its_header_never_reaches_the_decoder(stream, syntax, code):
    with pytest.raises(InputRejected) as caught:
        check(stream, syntax)
    assert caught.value.code == code


def test_fragments_of_one_frame_are_joined():
    assert join_fragments(fragments(b"abcdef", 3)) == b"abcdef"


def test_pixel_data_without_a_fragment_is_truncated():
    with pytest.raises(InputRejected) as caught:
        join_fragments(struct.pack("<HHI", 0xFFFE, 0xE000, 0))
    assert caught.value.code == "DCM_TRUNCATED"


@pytest.mark.parametrize(
    "spoilt", [b"\x7f\xda", b"\xff\xd5", b"\xff\xc4\0\1", b"\xff\xc4\xff\xff"], ids=["no marker", "alone", "short", "long"]
)
def test_segments_must_lead_to_a_scan_or_gdcm_ends_the_process(spoilt):
    stream = jpeg(0xC0, precision=8)
    at = stream.index(b"\xff\xda")
    with pytest.raises(InputRejected) as caught:
        check(stream[:at] + spoilt + stream[at + 2 :], JPEG[50], bits=8)
    assert caught.value.code == "DCM_DECODE"


def test_fill_bytes_between_segments_are_none_of_them():
    stream = jpeg(0xC0, precision=8)
    at = stream.index(b"\xff\xda")
    check(stream[:at] + b"\xff\xff" + stream[at:], JPEG[50], bits=8)
