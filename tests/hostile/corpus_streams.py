"""Compressed pixels whose code streams lie, for every syntax that is read (D9), and the encapsulation around them."""

import functools
import struct
import tempfile
from pathlib import Path

import numpy as np

from .corpus import EITHER, SOUND, Specimen
from .dicom_bytes import EXPLICIT, PIXELS, RLE, UNDEFINED, ct_slice, fragments, item

SIZE = 32
J2K_LOSSLESS, J2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
HTJ2K = "1.2.840.10008.1.2.4.201"
JLS, JLS_NEAR = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
JPEG, JPEG_12, JPEG_LOSSLESS, JPEG_SV1 = (f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 57, 70))
EIGHT_BITS = (JPEG, JPEG_12)
NAMES = {
    RLE: "RLE", J2K_LOSSLESS: "JPEG 2000 lossless", J2K: "JPEG 2000", HTJ2K: "HTJ2K", JLS: "JPEG-LS", JLS_NEAR: "JPEG-LS near",
    JPEG: "JPEG baseline", JPEG_12: "JPEG extended", JPEG_LOSSLESS: "JPEG lossless", JPEG_SV1: "JPEG lossless SV1",
}  # fmt: skip


def pixels(number, *, bits=16):
    """(32, 32) smooth values with some noise, so that every coder has something to do."""
    rng = np.random.default_rng(number)
    top = 4000 if bits == 16 else 250
    plane = np.add.outer(np.arange(SIZE), np.arange(SIZE)) * top // (2 * SIZE) + rng.integers(0, 5, (SIZE, SIZE))
    return plane.astype(f"<u{bits // 8}")


def rle(plane):
    """PS3.5 annex G: one segment per byte plane, literal runs only, most significant byte first."""
    planes = plane.astype(f">u{plane.itemsize}").view(np.uint8).reshape(-1, plane.itemsize).T
    segments = [b"".join(bytes([len(row) - 1]) + bytes(row) for row in one.reshape(-1, SIZE)) for one in planes]
    offsets = [64 + sum(map(len, segments[:index])) for index in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


def _by_gdcm(plane, syntax, number):
    import gdcm

    kinds = {JPEG: gdcm.TransferSyntax.JPEGBaselineProcess1, JPEG_12: gdcm.TransferSyntax.JPEGExtendedProcess2_4}
    kinds |= {JPEG_LOSSLESS: gdcm.TransferSyntax.JPEGLosslessProcess14, JPEG_SV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1}
    from pydicom import dcmread

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"
        path.write_bytes(framed(number, EXPLICIT, plane.tobytes(), plane.itemsize * 8))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        value = dcmread(path).PixelData
    start = 8 + struct.unpack_from("<I", value, 4)[0]
    return value[start + 8 : start + 8 + struct.unpack_from("<I", value, start + 4)[0]]


@functools.cache
def stream(syntax, number=1):
    """One slice's code stream."""
    if syntax == RLE:
        return rle(pixels(number))
    if syntax in {JLS, JLS_NEAR}:
        import jpeg_ls

        return bytes(jpeg_ls.encode_array(pixels(number), lossy_error=0 if syntax == JLS else 2))
    if syntax == HTJ2K:
        from bedside.formats.dicom_write_htj2k import SHAPE, codestream

        return codestream(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)[:, :, number].T)
    if syntax in {J2K_LOSSLESS, J2K}:
        import openjpeg

        return bytes(openjpeg.encode(pixels(number), photometric_interpretation=2))
    return _by_gdcm(pixels(number, bits=8 if syntax in EIGHT_BITS else 16), syntax, number)


def framed(number, syntax, value, bits=16):
    """A slice of 32 by 32 pixels (HTJ2K: by 36, signed) with this pixel data, as bytes."""
    kept = syntax == HTJ2K
    stored = bits if bits == 8 or kept else 12
    one = ct_slice(number, series="2", size=SIZE, syntax=syntax)
    for tag, content in (
        (0x00280011, SIZE + 4 * kept),
        (0x00280100, bits),
        (0x00280101, stored),
        (0x00280102, stored - 1),
        (0x00280103, int(kept)),
    ):
        one = one.put(tag, "US", struct.pack("<H", content))
    if syntax == EXPLICIT:
        return one.put(PIXELS, "OW", value).bytes()
    return one.put(PIXELS, "OB", value, length=UNDEFINED).bytes()


def _specimen(family, name, syntax, value, **kwargs):
    bits = 8 if syntax in EIGHT_BITS else 16
    sound = [(f"{letter}.dcm", framed(n, syntax, fragments(stream(syntax, n)), bits)) for n, letter in ((0, "a"), (2, "c"))]
    return Specimen(family, name, (sound[0], ("m.dcm", framed(1, syntax, value, bits)), sound[1]), **kwargs)


def _marker(data, marker):
    return data.find(bytes(marker))


def _patched(data, at, value):
    return data[:at] + value + data[at + len(value) :] if at >= 0 else data[::-1]


def _mutated(syntax):
    """The same dozen lies for each coder, and those of its own header."""
    data = stream(syntax)
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, len(data), dtype=np.uint8).tobytes()
    middle = len(data) // 2
    yield "empty", b""
    yield "two bytes", data[:2]
    for share in (10, 50, 75):
        yield f"cut at {share} %", data[: len(data) * share // 100]
    yield "noise", noise
    yield "noise behind the head", data[: len(data) // 3] + noise[len(data) // 3 :]
    yield "zeros behind the head", data[: len(data) // 3] + bytes(len(data) - len(data) // 3)
    yield "ones behind the head", data[: len(data) // 3] + b"\xff" * (len(data) - len(data) // 3)
    yield "backwards", data[::-1]
    yield "halves swapped", data[middle:] + data[:middle]
    yield "of another coder", stream(J2K if syntax in {RLE, JLS, JPEG} else JLS)
    if syntax in {J2K_LOSSLESS, J2K, HTJ2K}:
        at = _marker(data, (0xFF, 0x51))
        for name, place, value in (
            ("65535 wide", 6, struct.pack(">I", 65535)), ("2**32-1 wide and high", 6, b"\xff" * 8), ("offset beyond",
            14, b"\0\0\xff\xff"),
            ("tiles of one pixel", 22, struct.pack(">2I", 1, 1)), ("no tile size", 22, bytes(8)), ("16384 components",
            38, b"\x40\0"),
            ("38 bits", 40, b"\x25"), ("no sampling step", 41, b"\0\0"), ("length 0", 2, b"\0\0"), ("length 65535",
            2, b"\xff\xff"),
        ):  # fmt: skip
            yield name, _patched(data, at + place if at >= 0 else -1, value)
        cod = _marker(data, (0xFF, 0x52))
        for name, place, value in (
            ("33 resolutions", 9, b"\x21"),
            ("code blocks of 2**17", 10, b"\x0f\x0f"),
            ("65535 layers", 6, b"\xff\xff"),
        ):
            yield name, _patched(data, cod + place if cod >= 0 else -1, value)
        return
    starts = [(0xFF, code) for code in (0xC0, 0xC1, 0xC3, 0xF7)]
    at = max((_marker(data, start) for start in starts), default=-1)
    if syntax != RLE:
        for name, place, value in (
            ("65535 by 65535", 5, b"\xff" * 4), ("0 by 0", 5, bytes(4)), ("one row more", 5, struct.pack(">H", SIZE + 1)),
            ("0 bits", 4, b"\0"),
            ("17 bits", 4, b"\x11"), ("255 components", 9, b"\xff"), ("no components", 9, b"\0"), ("sampling 15 by 15",
            11, b"\xff"),
            ("length 0", 2, b"\0\0"), ("length 65535", 2, b"\xff\xff"),
        ):  # fmt: skip
            yield name, _patched(data, at + place if at >= 0 else -1, value)
        return
    for name, value in (
        ("no segments", struct.pack("<I", 0)), ("one segment", struct.pack("<I", 1)), ("fifteen segments", struct.pack("<I",
        15)),
        ("2**31 segments", b"\0\0\0\x80"), ("offset beyond", struct.pack("<2I", 2, 1 << 30)), ("offset 0", struct.pack("<2I",
        2, 0)),
        ("offsets backwards", struct.pack("<3I", 2, 300, 64)), ("both segments in one", struct.pack("<3I", 2, 64, 64)),
    ):  # fmt: skip
        yield name, value + data[len(value) :]
    yield "runs that fill gigabytes", data[:64] + b"\x81\0" * 200_000
    yield "a run of 128", data[:64] + b"\x80" * (len(data) - 64)


def _family(syntax):
    def generate():
        family = f"D9 {NAMES[syntax]} streams"
        for name, data in _mutated(syntax):
            yield _specimen(family, name, syntax, fragments(data), expect=EITHER)

    return generate


def encapsulation():
    data = stream(RLE)
    plain = fragments(data)
    end = item(b"", tag=0xFFFEE0DD)
    for name, value, expect in (
        ("no offset table", item(data) + end, "refused"),
        ("no fragment", item(b"") + end, "refused"),
        ("never closed", plain[:-8], "refused"),
        ("closed by an item end", item(b"") + item(data) + item(b"", tag=0xFFFEE00D), "refused"),
        ("a fragment of undefined length", item(b"") + item(data, length=UNDEFINED) + end, "refused"),
        ("a fragment longer than the file", item(b"") + item(data, length=1 << 30) + end, "refused"),
        ("a fragment of odd length", item(b"") + item(data + b"\0" * (1 - len(data) % 2)) + end, EITHER),
        ("an element between", item(b"") + b"\x28\0\x10\0US\2\0\x08\0" + item(data) + end, "refused"),
        ("an offset table that points nowhere", fragments(data, table=struct.pack("<I", 1 << 30)), EITHER),
        ("an offset table of 3 bytes", fragments(data, table=b"abc"), EITHER),
        ("two frames for one", fragments(data, data), EITHER),
        ("ten thousand empty fragments", item(b"") + item(b"") * 10_000 + item(data) + end, EITHER),
        ("a million empty fragments", item(b"") + item(b"") * 1_000_000 + item(data) + end, EITHER),
        ("one fragment per byte", item(b"") + b"".join(item(data[n : n + 2]) for n in range(0, len(data), 2)) + end, EITHER),
    ):
        yield _specimen("D9 encapsulation", name, RLE, value, expect=expect)


def sound_streams():
    """The streams that the others are made from, so that a refusal above is for the lie and not for the coder."""
    for syntax, name in NAMES.items():
        yield _specimen("sound streams", name, syntax, fragments(stream(syntax)), expect=SOUND)


FAMILIES = (*(_family(syntax) for syntax in NAMES), encapsulation, sound_streams)
