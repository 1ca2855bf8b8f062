"""Files whose structure is sound and whose values lie: sizes, types, numbers, geometry, series, classes (D5, D6)."""

import struct

import numpy as np

from .corpus import EITHER, SOUND, Specimen, alone, among
from .dicom_bytes import PIXELS, ROOT, ct_slice, element, fragments, item, text, uid

GEOMETRY = ("DCM_GEOMETRY",)
NOT_NUMBERS = ("nan", "inf", "-inf", "1e999", "-1e999", "abc", "", "1,5", "0x10", "1_0", "\u0661", "--1", "1e", "1 2", "1\n")
OTHER_CLASSES = {
    "ultrasound": "1.2.840.10008.5.1.4.1.1.6.1",
    "secondary capture": "1.2.840.10008.5.1.4.1.1.7",
    "structured report": "1.2.840.10008.5.1.4.1.1.88.22",
    "segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "encapsulated PDF": "1.2.840.10008.5.1.4.1.1.104.1",
    "encapsulated STL": "1.2.840.10008.5.1.4.1.1.104.3",
    "radiotherapy dose": "1.2.840.10008.5.1.4.1.1.481.2",
    "digital X-ray": "1.2.840.10008.5.1.4.1.1.1.1",
    "waveform": "1.2.840.10008.5.1.4.1.1.9.1.1",
    "presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
    "DICOMDIR": "1.2.840.10008.1.3.10",
    "video endoscopy": "1.2.840.10008.5.1.4.1.1.77.1.1.1",
    "raw data": "1.2.840.10008.5.1.4.1.1.66",
}


def us(value):
    return struct.pack("<H", value)


def sizes():
    sound = ct_slice(1)
    for name, changes in {
        "65535 rows": {0x00280010: 65535},
        "65535 columns": {0x00280011: 65535},
        "65535 by 65535": {0x00280010: 65535, 0x00280011: 65535},
        "32768 by 32768": {0x00280010: 32768, 0x00280011: 32768},
        "no rows": {0x00280010: 0},
        "no columns": {0x00280011: 0},
        "one row too many": {0x00280010: 9},
        "one row too few": {0x00280010: 7},
        "0 bits": {0x00280100: 0},
        "1 bit": {0x00280100: 1},
        "7 bits": {0x00280100: 7},
        "12 bits allocated": {0x00280100: 12},
        "32 bits": {0x00280100: 32},
        "64 bits": {0x00280100: 64},
        "65535 bits": {0x00280100: 65535},
        "0 bits stored": {0x00280101: 0},
        "17 bits stored": {0x00280101: 17},
        "high bit 31": {0x00280102: 31},
        "3 samples": {0x00280002: 3},
        "0 samples": {0x00280002: 0},
        "65535 samples": {0x00280002: 65535},
        "pixel representation 2": {0x00280103: 2},
    }.items():
        changed = sound
        for tag, value in changes.items():
            changed = changed.put(tag, "US", us(value))
        yield among("D5 sizes", name, changed.bytes())


def sizes_of_another_type():
    sound = ct_slice(1)
    big = struct.pack("<I", 0x10008)
    for vr, value in {
        "UL": big, "SL": big, "FL": struct.pack("<f", 8.0), "FD": struct.pack("<d", 8.0), "IS": b"8 ", "DS": b"8.", "LO": b"8 ",
        "OB": us(8), "UN": big, "AT": big, "OW": us(8), "SV": struct.pack("<q", 8), "UV": struct.pack("<Q", 1 << 40),
    }.items():  # fmt: skip
        for tag, name in ((0x00280010, "Rows"), (0x00280011, "Columns")):
            yield among(
                "D5 Rows and Columns of another type", f"{name} as {vr}", sound.put(tag, vr, value).bytes(), codes=GEOMETRY
            )
    for tag, name in ((0x00280010, "Rows"), (0x00280011, "Columns")):  # UN holds what implicit VR would (PS3.5 6.2.2)
        yield among("D5 Rows and Columns of VR UN", name, sound.put(tag, "UN", us(8)).bytes(), expect=SOUND)
        yield among("D5 Rows and Columns of VR UN", f"{name}, none", sound.put(tag, "UN", us(0)).bytes(), codes=GEOMETRY)
    for count in (0, 1, 3, 4):
        yield among("D5 Rows and Columns of another type", f"{count} bytes", sound.put(0x00280010, "US", b"\x08" * count).bytes())


def frames():
    sound = ct_slice(1)
    for value in (
        "0",
        "-1",
        "2",
        "3",
        "100000",
        "999999999",
        "99999999999999999999",
        "1e5",
        "abc",
        "1\\2",
        "0x1",
        "nan",
        "2147483648",
    ):
        yield among("D5 NumberOfFrames", repr(value), sound.put(0x00280008, "IS", text(value)).bytes())
    for value in ("", "1", " 1 ", "+1", "01"):
        yield among("D5 NumberOfFrames", repr(value), sound.put(0x00280008, "IS", text(value)).bytes(), expect=EITHER)


def colours():
    sound = ct_slice(1)
    for value in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "ARGB", "HSV", "CMYK", "MONOCHROME3", "", "../../x", "X" * 300):
        yield among("D5 colour", repr(value[:20]), sound.put(0x00280004, "CS", text(value)).bytes(), codes=GEOMETRY)
    palette = sound.put(0x00280004, "CS", text("PALETTE COLOR"))
    for first, count in ((0, 256), (0, 0), (65535, 1), (300, 16)):
        table = palette
        for tag in (0x00281101, 0x00281102, 0x00281103):
            table = table.put(tag, "US", struct.pack("<3H", count, first, 16)).put(tag + 0x100, "OW", bytes(2))
        yield among("D5 colour", f"palette of {count} from {first}", table.bytes(), codes=GEOMETRY)


def _lying(family, tag, vr, values, **kwargs):
    for value in values:
        yield among(family, repr(value[:24]), ct_slice(1).put(tag, vr, text(value)).bytes(), **kwargs)


def spacings():
    pairs = (
        "0\\0",
        "-1\\1",
        "1\\-1",
        "0\\1",
        "-0\\1",
        "1",
        "1\\1\\1",
        "1e-400\\1",
        "1e300\\1",
        *(f"{one}\\1" for one in NOT_NUMBERS),
    )
    return _lying("D6 PixelSpacing", 0x00280030, "DS", pairs)


def positions():
    values = ("0\\0", "0\\0\\0\\0", "0 0 0", *(f"0\\0\\{one}" for one in NOT_NUMBERS), "1e300\\0\\0")
    return _lying("D6 ImagePositionPatient", 0x00200032, "DS", values)


def orientations():
    values = (
        "0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "2\\0\\0\\0\\1\\0", "1\\0\\0\\0.5\\1\\0", "1\\0\\0\\0\\1",
        "1\\0\\0\\0\\1\\0\\0",
        "1\\0\\0\\0\\0\\0", "0.7\\0.7\\0\\0\\1\\0", *(f"1\\0\\0\\0\\1\\{one}" for one in NOT_NUMBERS[:12]),
    )  # fmt: skip
    return _lying("D6 ImageOrientationPatient", 0x00200037, "DS", values)


def rescales():
    yield from _lying("D6 RescaleSlope", 0x00281053, "DS", ("0", "1\\1", "1e308\\", *NOT_NUMBERS))
    yield from _lying("D6 RescaleIntercept", 0x00281052, "DS", ("1\\1", "1e400", *NOT_NUMBERS[:10]))
    yield from _lying("D6 RescaleType", 0x00281054, "LO", ("OD", "US", "US2", "hu", "\u00ff"), expect=EITHER)
    for value in ("1e38", "1e-38", "3.4e38", "1e300", "-1", "1e8"):
        yield among("D6 RescaleSlope", f"{value}, finite", ct_slice(1).put(0x00281053, "DS", text(value)).bytes(), expect=EITHER)
    table = element(0x00283002, "US", struct.pack("<3H", 0, 0, 16)) + element(0x00283006, "OW", b"")
    yield among("D6 RescaleType", "lookup table", ct_slice(1).put(0x00283000, "SQ", item(table)).bytes())


def _series(name, files, expect="refused", codes=()):
    named = tuple((f"{index}.dcm", one.bytes()) for index, one in enumerate(files))
    return Specimen("D6 series that do not fit together", name, named, expect, codes, mutant="1.dcm")


def stacks():
    def at(number, place, **put):
        one = ct_slice(number).put(0x00200032, "DS", text(place))
        for tag, (vr, value) in put.items():
            one = one.put(int(tag[1:], 16), vr, value)
        return one

    plain = [ct_slice(number) for number in range(6)]
    yield _series("a slice is missing", [*plain[:3], *plain[4:]])
    yield _series("two slices in one place", [*plain[:4], at(4, "-10.5\\20.25\\6")])
    yield _series("all in one place", [at(number, "0\\0\\0") for number in range(4)])
    yield _series("irregular", [at(number, f"0\\0\\{place}") for number, place in enumerate((0, 2, 5, 6, 11))])
    yield _series("a step aside", [*plain[:3], at(3, "-9\\20.25\\6")])
    yield _series("two frames of reference", [*plain[:2], plain[2].put(0x00200052, "UI", uid(f"{ROOT}.8"))])
    yield _series("two patients", [*plain[:2], plain[2].put(0x00100020, "LO", text("ZQ02"))])
    yield _series("two files of one UID", [*plain[:2], plain[2].put(0x00080018, "UI", plain[0].value(0x00080018))])
    yield _series("two sizes", [*plain[:2], ct_slice(2, size=16)])
    yield _series("two spacings", [*plain[:2], plain[2].put(0x00280030, "DS", text("0.5\\0.5"))])
    yield _series("two modalities", [*plain[:2], plain[2].put(0x00080060, "CS", text("MR"))])
    yield _series("one slice only", plain[1:2] + plain[1:2], "either")
    yield _series("far away", [at(number, f"0\\0\\{place}") for number, place in enumerate((0, 2, 900000000))])
    yield _series("a tenth of a micrometre apart", [at(number, f"0\\0\\{number * 1e-4}") for number in range(4)], "either")


def tilts():
    for degrees in (0.5, 1, 5, 10, 20, 30, 45, 60, 75, 89, -20, -89.9):
        step = 2 * np.tan(np.radians(degrees))
        files = [ct_slice(n).put(0x00200032, "DS", text(f"0\\{n * step:.9g}\\{2 * n}"[:40])) for n in range(5)]
        named = tuple((f"{index}.dcm", one.bytes()) for index, one in enumerate(files))
        yield Specimen("D6 tilted gantries", f"{degrees} degrees", named, EITHER, mutant="1.dcm")


def other_classes():
    for name, sop_class in OTHER_CLASSES.items():
        data = ct_slice(1).put(0x00080016, "UI", uid(sop_class)).put(0x00080060, "CS", text("OT")).bytes()
        yield alone("not a CT or MR slice", name, data)


def wrong_types():
    sound = ct_slice(1)
    for tag in (0x00080016, 0x00080060, 0x00200032, 0x00200037, 0x00280030, 0x00281053, PIXELS):
        for vr in ("US", "SQ", "UN", "??", "\0\0", "ab", "FD"):
            _, own, value, _ = next(one for one in sound.elements if one[0] == tag)
            if vr != own:
                yield among("D6 wrong type", f"{tag:08x} as {vr!r}", sound.put(tag, vr, value).bytes(), expect=EITHER)


def pixel_lengths():
    sound = ct_slice(1)
    pixels = sound.value(PIXELS)
    for size in (0, 2, 64, 126, 130, 144, 256, 1000):
        yield among("D5 pixel data of another length", f"{size} bytes", sound.put(PIXELS, "OW", (pixels * 10)[:size]).bytes())
    yield among(
        "D5 pixel data of another length", "encapsulated", sound.put(PIXELS, "OB", fragments(pixels), length=0xFFFFFFFF).bytes()
    )
    yield among("D5 pixel data of another length", "float", sound.without(PIXELS).put(0x7FE00008, "OF", pixels).bytes())
    yield among("D5 pixel data of another length", "double", sound.without(PIXELS).put(0x7FE00009, "OD", pixels).bytes())
    yield among(
        "D5 pixel data of another length",
        "by URL",
        sound.without(PIXELS).put(0x00287FE0, "UR", text("file:///etc/passwd")).bytes(),
    )


def passengers():
    """Things beside the image that nobody asked for: they must not hurt, and the image is sound."""
    sound = ct_slice(1)
    family = "passengers beside a sound image"
    for name, (tag, vr, value) in {
        "overlay of the wrong length": (0x60003000, "OW", bytes(2)),
        "overlay of 65535 rows": (0x60000010, "US", us(65535)),
        "icon of 65535 by 65535": (0x00880200, "SQ", item(element(0x00280010, "US", us(65535)) + element(PIXELS, "OW", b""))),
        "a private executable": (0x00091010, "OB", b"MZ" + bytes(200)),
        "a private pickle": (0x00091010, "OB", b"\x80\x04cposix\nsystem\n(X\x04\0\0\0trueR."),
        "a document": (0x00420011, "OB", b"%PDF-1.7"),
        "a URL": (0x00081190, "UR", text("http://169.254.169.254/latest/meta-data")),
        "unknown character set": (0x00080005, "CS", text("ISO_IR 999")),
        "forty character sets": (0x00080005, "CS", text("\\".join(["ISO 2022 IR 87"] * 40))),
        "broken escape sequences": (0x00104000, "LT", b"\x1b$B\x1b(\x1b\x1b\x1b$"),
        "a private sequence": (0x00091010, "SQ", item(element(0x00091010, "SQ", item(b"")))),
        "a curve": (0x50003000, "OW", bytes(10)),
        "a text of 60 kB": (0x00104000, "LT", b"A" * 60000),
    }.items():
        yield among(family, name, sound.put(tag, vr, value).bytes(), expect=SOUND)


def philips_and_lookups():
    sound = ct_slice(1)
    family = "shapes of recorded faults in other readers"
    yield among(
        family,
        "PMSCT_RLE1",
        sound.put(0x07A10010, "LO", text("ELSCINT1")).put(0x07A11010, "CS", text("PMSCT_RLE1")).bytes(),
        expect=EITHER,
    )
    yield among(family, "private pixels", sound.without(PIXELS).put(0x07A1100A, "UN", bytes(50)).bytes())
    for name, rows, columns in (
        ("product is 2**32", 65536, 65536),
        ("product overflows to 64", 0x8000_0008, 8),
        ("minus one", 2**32 - 1, 1),
    ):
        big = sound.put(0x00280010, "UL", struct.pack("<I", rows)).put(0x00280011, "UL", struct.pack("<I", columns))
        yield among(family, f"UL sizes, {name}", big.bytes(), codes=GEOMETRY)
    for bits in (8, 16):
        table = (
            sound.put(0x00280004, "CS", text("PALETTE COLOR"))
            .put(0x00281201, "OW", b"")
            .put(0x00281101, "US", struct.pack("<3H", 0, 0, bits))
        )
        yield among(family, f"empty palette of {bits} bits", table.bytes(), codes=GEOMETRY)
    for frames in ("1", "2"):
        one = sound.put(0x00280002, "US", us(3)).put(0x00280006, "US", us(7)).put(0x00280008, "IS", text(frames))
        yield among(family, f"planar configuration 7, {frames} frames", one.bytes())
    for size in (0, 1, 3):
        yield among(
            family,
            f"window of {size} values",
            sound.put(0x00281050, "DS", text("\\".join(["nan"] * size))).bytes(),
            expect=EITHER,
        )
    yield among(family, "window width 0", sound.put(0x00281051, "DS", text("0")).bytes(), expect=EITHER)


FAMILIES = (
    sizes,
    sizes_of_another_type,
    frames,
    colours,
    spacings,
    positions,
    orientations,
    rescales,
    stacks,
    tilts,
    other_classes,
    wrong_types,
    pixel_lengths,
    passengers,
    philips_and_lookups,
)
