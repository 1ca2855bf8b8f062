"""NIfTI files that lie: dimensions, affines, scales, offsets, extensions, compression (N1, N2, N3)."""

import gzip
import struct

import numpy as np

from .corpus import EITHER, SOUND, nifti
from .corpus_structure import bomb

NAN, INF = float("nan"), float("inf")
SHAPE = (4, 3, 2)


def header(**changes):
    """A sound NIfTI-1 header of a (4, 3, 2) int16 image as bytes; keywords replace fields."""
    fields = {
        "sizeof_hdr": 348, "dim": (3, *SHAPE, 1, 1, 1, 1), "datatype": 4, "bitpix": 16, "pixdim": (1.0, 1, 1.5, 2, 0, 0, 0, 0),
        "vox_offset": 352.0, "slope": 1.0, "inter": 0.0, "units": 2, "qform": 0, "sform": 1, "quatern": (0.0,) * 6,
        "srow": (1.0, 0, 0, -5, 0, 1.5, 0, 7, 0, 0, 2, 9), "magic": b"n+1\0", "descrip": b"",
    }  # fmt: skip
    fields.update(changes)
    raw = bytearray(348)
    for place, kind, name in (
        (0, "i", "sizeof_hdr"), (40, "8h", "dim"), (70, "h", "datatype"), (72, "h", "bitpix"), (76, "8f", "pixdim"),
        (108, "f", "vox_offset"), (112, "f", "slope"), (116, "f", "inter"), (123, "B", "units"), (148, "80s", "descrip"),
        (252, "h", "qform"), (254, "h", "sform"), (256, "6f", "quatern"), (280, "12f", "srow"), (344, "4s", "magic"),
    ):  # fmt: skip
        value = fields[name]
        struct.pack_into("<" + kind, raw, place, *(value if isinstance(value, tuple) else (value,)))
    return bytes(raw)


def image(extension=bytes(4), **changes):
    """A whole file."""
    return header(**changes) + extension + np.arange(24, dtype="<i2").tobytes()


def dimensions():
    for dim in (
        (3, 32767, 32767, 32767), (3, 1200, 1200, 1200), (3, -1, 3, 2), (3, 0, 3, 2), (0, 4, 3, 2), (9, 4, 3, 2), (-3, 4, 3, 2),
        (1, 4, 3, 2), (2, 4, 3, 2), (3, 5, 3, 2), (3, 4, 3, 1), (256, 4, 3, 2),
    ):  # fmt: skip
        codes = ("NII_DIM", "NII_TRUNCATED", "NII_LENGTH")
        yield nifti("N1 dimensions", str(dim), image(dim=(*dim, 1, 1, 1, 1)), codes=codes)
    for rest in ((2, 1, 1, 1), (1, 3, 1, 1), (0, 1, 1, 1), (-1, 1, 1, 1), (32767, 32767, 1, 1), (1, 1, 1, 32767)):
        yield nifti("N1 more than three axes", str(rest), image(dim=(7, *SHAPE, *rest)), codes=("NII_DIM", "NII_TRUNCATED"))
    for rank in (4, 5, 6, 7):
        yield nifti("N1 more than three axes", f"rank {rank}, all ones", image(dim=(rank, *SHAPE, 1, 1, 1, 1)), expect=SOUND)
    for steps in (2, 4096, 4097, 32767):
        codes = ("NII_DIM", "NII_TRUNCATED")
        yield nifti("N1 more than three axes", f"{steps} steps in time", image(dim=(4, *SHAPE, steps, 1, 1, 1)), codes=codes)
    for rest in ((-7, 5, 0, 9), (32767, -1, 3, 2)):
        yield nifti("N1 more than three axes", f"behind the rank {rest}", image(dim=(3, *SHAPE, *rest)), expect=SOUND)


def data_types():
    for code, bits in (
        (0, 0), (1, 1), (32, 64), (128, 24), (1536, 128), (1792, 128), (2048, 256), (2304, 32), (4, 8), (4, 0), (4, -16),
        (16, 16),
        (-4, 16), (32767, 16), (64, 32), (8, 16),
    ):  # fmt: skip
        yield nifti("N1 data types", f"{code} of {bits} bits", image(datatype=code, bitpix=bits))


def affines():
    rows = (1.0, 0, 0, -5, 0, 1.5, 0, 7, 0, 0, 2, 9)
    for name, srow in {
        "all zero": (0.0,) * 12, "NaN": (NAN, *rows[1:]), "infinite": (INF, *rows[1:]),
        "infinite place": (*rows[:3], -INF, *rows[4:]),
        "singular": (1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0), "one zero column": (0.0, *rows[1:]),
        "huge": tuple(v * 1e37 for v in rows),
        "tiny": tuple(v * 1e-38 for v in rows), "flat": (1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1e-30, 0),
    }.items():  # fmt: skip
        expect = EITHER if name in {"huge", "tiny", "flat"} else "refused"
        yield nifti("N3 sform", name, image(srow=srow), expect=expect)
    for lean in (0.5, -0.5, 3.0, 0.2):
        srow = (1.0, lean, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
        yield nifti("N3 sform", f"sheared by {lean}", image(srow=srow), codes=("SHEAR",))
    for axis in range(3):  # both hands are legitimate, and the affine says which it is
        srow = tuple(-v if at % 4 == axis else v for at, v in enumerate(rows))
        yield nifti("N3 sform", f"mirrored along axis {axis}", image(srow=srow), expect=SOUND)
    yield nifti("N3 sform", "no form at all", image(sform=0), codes=("NII_AFFINE",))
    yield nifti("N3 sform", "negative code", image(sform=-1), codes=("NII_AFFINE",))
    yield nifti("N3 sform", "code 32767", image(sform=32767), expect=EITHER)


def voxel_sizes():
    for at, axis in enumerate("ijk", 1):
        for size in (0.0, -0.0, -1.0, NAN, INF, -INF):
            pixdim = (1.0, 1, 1.5, 2, 0, 0, 0, 0)
            pixdim = (*pixdim[:at], size, *pixdim[at + 1 :])
            name = f"{size} along {axis}"
            yield nifti("N3 voxel sizes beside an sform", name, image(pixdim=pixdim), codes=("NII_AFFINE",))
    contradicting = image(pixdim=(1.0, 7, 7, 7, 0, 0, 0, 0))
    yield nifti("N3 voxel sizes beside an sform", "contradicting it", contradicting, expect=SOUND)


def quaternions():
    for name, changes in {
        "beyond unit length": {"quatern": (0.9, 0.9, 0.9, 0.0, 0.0, 0.0)}, "NaN": {"quatern": (NAN, 0.0, 0.0, 0.0, 0.0, 0.0)},
        "infinite": {"quatern": (INF, 0.0, 0.0, 0.0, 0.0, 0.0)}, "infinite offset": {"quatern": (0.0, 0.0, 0.0, INF, 0.0, 0.0)},
        "zero pixdim": {"pixdim": (1.0, 0, 1, 1, 0, 0, 0, 0)}, "negative pixdim": {"pixdim": (1.0, -1, 1, 1, 0, 0, 0, 0)},
        "NaN pixdim": {"pixdim": (1.0, NAN, 1, 1, 0, 0, 0, 0)}, "infinite pixdim": {"pixdim": (1.0, 1, INF, 1, 0, 0, 0, 0)},
        "qfac 7": {"pixdim": (7.0, 1, 1, 1, 0, 0, 0, 0)}, "qfac NaN": {"pixdim": (NAN, 1, 1, 1, 0, 0, 0, 0)},
    }.items():  # fmt: skip
        yield nifti("N3 qform", name, image(sform=0, qform=1, **changes), codes=("NII_AFFINE",))
    for shift in (1.0, 50.0):
        yield nifti(
            "N3 qform",
            f"{shift} mm from the sform",
            image(qform=1, quatern=(0.0, 0.0, 0.0, shift, 7.0, 9.0)),
            codes=("NII_AFFINE",),
        )


def scales():
    for name, slope, inter in (
        ("slope NaN", NAN, 0.0), ("slope inf", INF, 0.0), ("slope -inf", -INF, 0.0), ("intercept NaN", 1.0, NAN),
        ("intercept inf", 2.0, INF),
        ("intercept -inf", 2.0, -INF),
    ):  # fmt: skip
        yield nifti("N3 scale", name, image(slope=slope, inter=inter), codes=("NII_SCALE",))
    for slope, inter in ((0.0, NAN), (1e38, 0.0), (-1.0, 0.0), (1e-45, 0.0), (3e38, 3e38), (0.0, 0.0)):
        yield nifti("N3 scale", f"{slope}, {inter}", image(slope=slope, inter=inter), expect=EITHER)


def offsets():
    for offset in (NAN, INF, -INF, -1.0, 0.0, 1.0, 347.0, 351.0, 352.5, 353.0, 400.0, 1e30, 2e9):
        yield nifti("N3 voxel offset", str(offset), image(vox_offset=offset))


def extensions():
    for name, extension in {
        "size 0": struct.pack("<4B2i", 1, 0, 0, 0, 0, 4), "size -16": struct.pack("<4B2i", 1, 0, 0, 0, -16, 4),
        "size 2 GB": struct.pack("<4B2i", 1, 0, 0, 0, 0x7FFFFFF0, 4), "size 7": struct.pack("<4B2i", 1, 0, 0, 0, 7, 4),
        "flag 255": struct.pack("<4B2i", 255, 255, 255, 255, 16, 4), "unknown code": struct.pack("<4B2i", 1, 0, 0, 0, 16, -5),
        "DICOM inside": struct.pack("<4B2i", 1, 0, 0, 0, 16, 2) + b"ZQ^ZQ   ",
    }.items():  # fmt: skip
        yield nifti("NIfTI extensions", f"{name}, counted", image(extension, vox_offset=348.0 + len(extension)), expect=EITHER)
        yield nifti("NIfTI extensions", f"{name}, not counted", image(extension), expect=EITHER)


def cuts():
    whole = image()
    for size in (1, 2, 4, 40, 100, 347, 348, 350, 351, 352, 353, 399):
        yield nifti("NIfTI cut", f"at {size}", whole[:size])
        yield nifti("packed NIfTI, cut before packing", f"at {size}", gzip.compress(whole[:size]), suffix=".nii.gz")
    packed = gzip.compress(whole)
    for size in (1, 2, 3, 9, 10, 11, 20, len(packed) // 2, len(packed) - 9, len(packed) - 8, len(packed) - 4, len(packed) - 1):
        yield nifti("packed NIfTI cut", f"at {size}", packed[:size], suffix=".nii.gz")


def packings():
    whole, packed = image(), gzip.compress(image())
    family = "gzip streams that lie"
    yield nifti(family, "plain under a packed name", whole, suffix=".nii.gz", expect=EITHER)
    yield nifti(family, "packed under a plain name", packed, expect=EITHER)
    yield nifti(family, "packed twice", gzip.compress(packed), suffix=".nii.gz")
    yield nifti(family, "wrong checksum", packed[:-8] + bytes(4) + packed[-4:], suffix=".nii.gz")
    yield nifti(family, "wrong length", packed[:-4] + bytes(4), suffix=".nii.gz")
    yield nifti(family, "garbage behind", packed + b"MZ" * 30, suffix=".nii.gz")
    yield nifti(family, "zeros behind", packed + bytes(60), suffix=".nii.gz", expect=EITHER)
    yield nifti(family, "two members", gzip.compress(whole[:200]) + gzip.compress(whole[200:]), suffix=".nii.gz", expect=SOUND)
    yield nifti(family, "ten thousand empty members", gzip.compress(b"") * 10_000 + packed, suffix=".nii.gz", expect=EITHER)
    yield nifti(
        family, "a name inside", packed[:3] + b"\x08" + packed[4:10] + b"../../x\0" + packed[10:], suffix=".nii.gz", expect=SOUND
    )
    yield nifti(family, "endless name", packed[:3] + b"\x08" + packed[4:10] + b"a" * 100_000, suffix=".nii.gz")
    yield nifti(family, "reserved flags", packed[:3] + b"\xe0" + packed[4:], suffix=".nii.gz", expect=EITHER)
    yield nifti(family, "method 7", packed[:2] + b"\7" + packed[3:], suffix=".nii.gz")


def bombs():
    for size in (528, 640, 1024, 2048, 4096, 8192):
        data = bomb(size, window_bits=31)
        yield nifti("N2 gzip bomb", f"{size} MiB of zeros", data, suffix=".nii.gz")
        head = gzip.compress(header(dim=(3, 1000, 1000, 1000, 1, 1, 1, 1)))
        yield nifti("N2 gzip bomb", f"{size} MiB behind a header", head + data, suffix=".nii.gz", codes=("NII_INFLATE_LIMIT",))
    member = gzip.compress(bytes(16 << 20), 9)
    yield nifti(
        "N2 gzip bomb", "a hundred members", gzip.compress(image()) + member * 100, suffix=".nii.gz", codes=("NII_INFLATE_LIMIT",)
    )


def magics():
    for magic in (b"ni1\0", b"n+2\0", b"n+1", b"N+1\0", b"\0\0\0\0", b"n+11"):
        yield nifti("NIfTI magic", repr(magic), image(magic=(magic + b"\0\0\0\0")[:4] if magic != b"n+1" else b"n+1 "))
    for size in (0, -348, 540, 349, 1 << 30, 24):
        yield nifti("NIfTI magic", f"header size {size}", image(sizeof_hdr=size))
    yield nifti("NIfTI magic", "Analyze", image(magic=b"\0\0\0\0"))
    yield nifti("NIfTI magic", "half big endian", struct.pack(">i", 348) + image()[4:])


def units_and_texts():
    for unit, expect in ((0, SOUND), (1, "refused"), (3, "refused"), (2, SOUND), (7, EITHER), (255, EITHER), (10, SOUND)):
        yield nifti("NIfTI units and texts", f"unit {unit}", image(units=unit), expect=expect)
    for word in (b"ZQ^ZQ../../x", b"\xff" * 80, b"\0" * 80, b"%s%n", b"$(touch pwned)"):
        yield nifti("NIfTI units and texts", f"descrip {word[:14]!r}", image(descrip=word), expect=SOUND)


def second_version():
    def image2(**changes):
        fields = {
            "dim": (3, *SHAPE, 1, 1, 1, 1),
            "pixdim": (1.0, 1, 1, 1, 0, 0, 0, 0),
            "offset": 544,
            "magic": b"n+2\0\r\n\x1a\n",
            "slope": 1.0,
        }
        fields.update(changes)
        raw = bytearray(540)
        struct.pack_into("<i8s2h8q", raw, 0, 540, fields["magic"], 4, 16, *fields["dim"])
        struct.pack_into("<8d", raw, 104, *fields["pixdim"])
        struct.pack_into("<q2d", raw, 168, fields["offset"], fields["slope"], 0.0)
        struct.pack_into("<2i", raw, 344, 0, 1)
        struct.pack_into("<12d", raw, 400, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
        return bytes(raw) + bytes(4) + np.arange(24, dtype="<i2").tobytes()

    yield nifti("NIfTI-2", "sound", image2(), expect=SOUND)
    for name, changes in {
        "2**62 by 3 by 2": {"dim": (3, 1 << 62, 3, 2, 1, 1, 1, 1)},
        "overflowing product": {"dim": (3, 1 << 32, 1 << 32, 1, 1, 1, 1, 1)},
        "negative": {"dim": (3, -(1 << 63), 3, 2, 1, 1, 1, 1)}, "rank 2**62": {"dim": (1 << 62, 4, 3, 2, 1, 1, 1, 1)},
        "rank -1": {"dim": (-1, 4, 3, 2, 1, 1, 1, 1)}, "offset 2**62": {"offset": 1 << 62}, "offset -1": {"offset": -1},
        "offset 0": {"offset": 0}, "offset 1": {"offset": 545}, "slope NaN": {"slope": NAN}, "slope 1e308": {"slope": 1e308},
        "magic with Unix line ends": {"magic": b"n+2\0\n\n\x1a\n"}, "pair": {"magic": b"ni2\0\r\n\x1a\n"},
    }.items():  # fmt: skip
        yield nifti("NIfTI-2", name, image2(**changes), expect=EITHER if name == "slope 1e308" else "refused")


FAMILIES = (
    dimensions, data_types, affines, voxel_sizes, quaternions, scales, offsets, extensions, cuts, packings, bombs, magics,
    units_and_texts, second_version,
)  # fmt: skip
