"""Files whose bytes lie about their structure: cut, lengths, nesting, compression, delimiters, meta data (D1, D3, D4, D7)."""

import struct
import zlib
from dataclasses import replace

from .corpus import EITHER, REFUSED, SOUND, alone, among
from .dicom_bytes import BIG, DEFLATED, EXPLICIT, IMPLICIT, PIXELS, UNDEFINED, ct_slice, element, item, text, uid

CUT = ("DCM_TRUNCATED", "DCM_STRUCTURE", "DCM_NOT_DICOM")
LONG_ONES = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
DEPTHS = (50, 60, 64, 65, 66, 100, 200, 500, 1000, 5000, 20_000, 60_000)


def cut_between_elements():
    whole = ct_slice(1).bytes()
    for tag, end in ct_slice(1).ends()[:-1]:
        yield among("D1 cut after an element", f"{tag:08x}", whole[:end], codes=(*CUT, "SERIES_INCOMPLETE"))


def cut_in_element_heads():
    whole = ct_slice(1).bytes()
    for tag, end in ct_slice(1).ends()[:-1]:
        for more in (3, 7):
            yield among("D1 cut inside an element's head", f"{tag:08x}+{more}", whole[: end + more])


def cut_in_values():
    for syntax, name in ((IMPLICIT, "implicit"), (EXPLICIT, "explicit"), (BIG, "big endian")):
        whole, ends = ct_slice(1, syntax=syntax).bytes(), ct_slice(1, syntax=syntax).ends()
        for tag, end in ends[::4]:
            yield among("D1 cut inside a value", f"{name} {tag:08x}", whole[: end - 1], syntax=syntax)


def cut_in_the_pixels():
    whole = ct_slice(1).bytes()
    for missing in (1, 2, 3, 4, 8, 15, 16, 31, 64, 100, 127, 128):
        yield among("D1 pixels end early", f"by {missing}", whole[:-missing], codes=CUT)


def cut_before_the_data_set():
    whole = ct_slice(1).bytes()
    for size in (0, 1, 2, 64, 127, 128, 130, 131, 132, 133, 140, 143, 144, 160, 200, len(ct_slice(1).head())):
        codes = (*CUT, "FILE_EMPTY")
        yield among("D1 cut in preamble and meta", f"at {size}", whole[:size], codes=codes)


def lengths_that_lie():
    sound = ct_slice(1)
    for tag, vr, value, _ in sound.elements:
        if tag in {0x00080016, 0x00080060, 0x0020000E, 0x00200032, 0x00280010, 0x00280030, PIXELS}:
            for length in sorted({0, 1, len(value) + 1, len(value) + 2, len(value) - 1, 0xFFFE, 0xFFFF, 0xFFFFFFFE, UNDEFINED}):
                yield among("D7 lengths that lie", f"{tag:08x} says {length}", sound.put(tag, vr, value, length=length).bytes())


def huge_lengths():
    for vr in LONG_ONES:
        for length in (0xFFFFFFFE, 0x7FFFFFFF):
            data = ct_slice(1).put(0x00091010, vr, b"abc", length=length).bytes()
            yield among("D7 four gigabytes promised, three bytes given", f"{vr} {length:#x}", data)


def nested(depth, kind):
    """The bytes of a sequence with an item with a sequence, and so on, around one short text."""
    implicit = kind.startswith("implicit")
    value = element(0x00080100, "SH", text("A"), implicit=implicit)
    if kind.endswith("undefined"):
        opened = element(0x00081140, "SQ", b"", length=UNDEFINED, implicit=implicit) + item(b"", length=UNDEFINED)
        closed = item(b"", tag=0xFFFEE00D) + item(b"", tag=0xFFFEE0DD)
        return opened * depth + value + closed * depth
    heads, size = [], len(value)
    for _ in range(depth):
        inner = item(b"", length=size)
        outer = element(0x00081140, "SQ", b"", length=size + 8, implicit=implicit)
        heads.append(outer + inner)
        size += len(outer) + len(inner)
    return b"".join(reversed(heads)) + value


def with_nesting(depth, kind):
    """A sound slice with those bytes in their place."""
    sound = ct_slice(1, syntax=IMPLICIT if kind.startswith("implicit") else EXPLICIT)
    before = replace(sound, elements=tuple(one for one in sound.elements if one[0] < 0x00081140))
    after = replace(sound, elements=tuple(one for one in sound.elements if one[0] > 0x00081140))
    return before.head() + before.body() + nested(depth, kind) + after.body()


def _deep(kind):
    for depth in DEPTHS:
        expect, codes = (SOUND, ()) if depth <= 64 else (REFUSED, ("DCM_DEPTH",))
        # Without its VR a sequence of known length is bytes, which ingest steps over. The de-identifier enters it, and refuses.
        # test_deidentifier.py proves both.
        if kind == "implicit":
            expect, codes = SOUND, ()
        syntax = IMPLICIT if kind.startswith("implicit") else EXPLICIT
        data = with_nesting(depth, kind)
        yield among(f"D4 nesting ({kind} lengths)", f"{depth} levels", data, syntax=syntax, expect=expect, codes=codes)


def deep_with_lengths():
    return _deep("explicit")


def deep_without_lengths():
    return _deep("undefined")


def deep_and_implicit():
    return [*_deep("implicit"), *_deep("implicit undefined")]


def bomb(size_mb, *, window_bits=-15, tail=True):
    """A stream that inflates to so many mebibytes of zeros: one compressed block, repeated as bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = block * (size_mb // 16) + (b"\3\0" if tail else b"")
    if window_bits == 31:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + bytes(8)
    return body


def deflate_bombs():
    head = ct_slice(1, syntax=DEFLATED).head()
    for size in (528, 640, 768, 1024, 2048, 4096, 8192):
        for tail in (True, False):
            name = f"{size} MiB{'' if tail else ', never closed'}"
            yield among("D3 deflate bomb", name, head + bomb(size, tail=tail), syntax=DEFLATED, codes=("DCM_INFLATE_LIMIT",))


def deflate_lies():
    sound = ct_slice(1, syntax=DEFLATED)
    whole, head = sound.bytes(), sound.head()
    body = sound.body()
    yield among("D3 deflate streams that lie", "sound, not compressed", head + body, syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "zlib header", head + zlib.compress(body), syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "empty", head, syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "stored block length", head + b"\1\xff\xff\0\0" + body, syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "reserved block type", head + b"\7" + whole[len(head) :], syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "garbage", head + bytes(range(256)), syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "garbage behind", whole + b"MZ" * 50, expect=EITHER, syntax=DEFLATED)
    yield among("D3 deflate streams that lie", "second stream behind", whole + whole[len(head) :], expect=EITHER, syntax=DEFLATED)
    for share in (10, 50, 90, 99):
        yield among(
            "D3 deflate streams that lie",
            f"cut at {share} %",
            whole[: len(head) + (len(whole) - len(head)) * share // 100],
            syntax=DEFLATED,
        )
    for syntax in ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"):
        data = ct_slice(1, syntax=syntax).head() + bomb(1024)
        yield among("D3 deflate streams that lie", f"JPIP {syntax[-3:]}", data)


def delimiters_out_of_place():
    sound = ct_slice(1)
    parts = {
        "item": item(b"abcd"),
        "item end": item(b"", tag=0xFFFEE00D),
        "sequence end": item(b"", tag=0xFFFEE0DD),
        "item end with a length": item(b"", length=8, tag=0xFFFEE00D),
        "unknown delimiter": item(b"", tag=0xFFFEE0FF),
        "sequence never closed": element(0x00081140, "SQ", b"", length=UNDEFINED) + item(b""),
        "item never closed": element(0x00081140, "SQ", b"", length=UNDEFINED) + item(b"", length=UNDEFINED),
        "sequence longer than the file": element(0x00081140, "SQ", item(b""), length=1 << 20),
        "item longer than its sequence": element(0x00081140, "SQ", item(b"abcd", length=400)),
        "element longer than its item": element(0x00081140, "SQ", item(element(0x00080100, "SH", b"AB", length=60))),
        "undefined length of a text": element(0x00081030, "UT", b"", length=UNDEFINED),
        "sequence of no items but bytes": element(0x00081140, "SQ", b"abcdefgh"),
        "UN of undefined length": element(0x00091140, "UN", b"", length=UNDEFINED) + item(b"junkjunk"),
    }
    for name, part in parts.items():
        at = sound.ends()[7][1]
        data = sound.bytes()
        yield among("delimiters out of place", name, data[:at] + part + data[at:])


def order_and_repetition():
    sound = ct_slice(1)
    ends = dict(sound.ends())
    data = sound.bytes()
    rows = element(0x00280010, "US", struct.pack("<H", 4))
    yield among("order and repetition", "Rows twice", data[: ends[0x00280010]] + rows + data[ends[0x00280010] :], expect=EITHER)
    yield among("order and repetition", "pixels twice", data + element(PIXELS, "OW", sound.value(PIXELS)), expect=EITHER)
    yield among("order and repetition", "backwards", replace(sound, elements=sound.elements[::-1]).bytes(), expect=EITHER)
    for name, tail in {
        "trailing zeros": bytes(64),
        "one trailing byte": b"\0",
        "trailing padding": element(0xFFFCFFFC, "OB", bytes(10)),
        "an executable behind": b"\x7fELF" + bytes(60),
        "a second file behind": data,
        "an element cut behind the pixels": b"\xfc\xff\xfc\xffOB",
        "rows behind the pixels": rows,
    }.items():
        yield among("order and repetition", name, replace(sound, tail=tail).bytes(), expect=EITHER)
    for tag in (0x0020000E, 0x00280010, 0x00280011, 0x00280100, PIXELS, 0x00200032, 0x00200037, 0x00280030):
        yield among("a required element is missing", f"{tag:08x}", sound.without(tag).bytes())
    for tag in (0x00280002, 0x00280004, 0x00280101, 0x00280102, 0x00281052, 0x00281053, 0x00080060):
        yield among("a required element is missing", f"{tag:08x}", sound.without(tag).bytes())
    yield among("a required element is missing", "named in the meta only", sound.without(0x00080016).bytes(), expect=EITHER)


def meta_information():
    sound = ct_slice(1)
    plain = sound.meta_bytes()
    body = plain[12:]
    syntax = element(0x00020010, "UI", uid(EXPLICIT))
    for name, meta in {
        "none": b"",
        "no transfer syntax": plain[: -len(syntax)],
        "implicit": element(0x00020010, "UI", uid(EXPLICIT), implicit=True),
        "big endian": element(0x00020010, "UI", uid(EXPLICIT), order=">"),
        "two syntaxes": plain + element(0x00020010, "UI", uid(IMPLICIT)),
        "empty syntax": element(0x00020010, "UI", b""),
        "traversal as syntax": element(0x00020010, "UI", uid("../../../etc/passwd")),
        "unknown syntax": element(0x00020010, "UI", uid("1.2.3.4.5")),
        "private syntax": element(0x00020010, "UI", uid("1.3.46.670589.33.1.4.1")),
        "video": element(0x00020010, "UI", uid("1.2.840.10008.1.2.4.102")),
        "syntax of 64 kB": element(0x00020010, "UI", b"1." * 32766),
        "syntax not ASCII": element(0x00020010, "UI", b"\xff\xfe1.2"),
        "length beyond the file": element(0x00020010, "UI", uid(EXPLICIT), length=60000),
    }.items():
        yield among("file meta information", name, replace(sound, meta=meta).bytes())
    for length in (0, 1, len(body) - 1, len(body) + 1, 0xFFFFFFFF):
        meta = element(0x00020000, "UL", struct.pack("<I", length)) + body
        yield among("file meta information", f"group length {length}", replace(sound, meta=meta).bytes(), expect=EITHER)


def magic():
    sound = ct_slice(1)
    for prefix in (b"dicm", b"DICN", b"\0\0\0\0", b"DIC", b"", b"MCID", b"DICMDICM"):
        yield among("magic", repr(prefix), replace(sound, prefix=prefix).bytes())
    yield among("magic", "no preamble", sound.bytes()[128:])
    yield among("magic", "data set only", sound.body())
    yield alone("magic", "empty file", b"", codes=("FILE_EMPTY",))
    yield alone("magic", "preamble only", bytes(128) + b"DICM")
    yield alone("magic", "a megabyte of zeros", bytes(1 << 20))
    yield alone("magic", "a megabyte of noise", zlib.compress(bytes(range(256)) * 64) * 4000)


def many_elements():
    sound = ct_slice(1)
    for count in (1000, 20_000):
        tail = b"".join(element(0x00090000 + (number % 0xF000) + 0x1000, "LO", b"") for number in range(count))
        at = dict(sound.ends())[0x00081090]
        data = sound.bytes()
        yield among("many elements", f"{count} empty ones", data[:at] + tail + data[at:], expect=EITHER)
    for count, codes in ((59_000, ()), (61_000, ("DCM_ELEMENTS",)), (1_000_000, ("DCM_ELEMENTS",))):
        items = element(0x00081140, "SQ", item(b"") * count)
        at, wanted = sound.ends()[7][1], {"codes": codes} if codes else {"expect": EITHER}
        yield among("many elements", f"{count} empty items", sound.bytes()[:at] + items + sound.bytes()[at:], **wanted)
    for count in (250_000, 1_000_000):
        body = element(0x00080100, "SH", b"") * count
        items = element(0x00081140, "SQ", item(body))
        data = sound.bytes()[: sound.ends()[7][1]] + items + sound.bytes()[sound.ends()[7][1] :]
        yield among("many elements", f"{count} in one item", data, codes=("DCM_ELEMENTS",))


FAMILIES = (
    cut_between_elements,
    cut_in_element_heads,
    cut_in_values,
    cut_in_the_pixels,
    cut_before_the_data_set,
    lengths_that_lie,
    huge_lengths,
    deep_with_lengths,
    deep_without_lengths,
    deep_and_implicit,
    deflate_bombs,
    deflate_lies,
    delimiters_out_of_place,
    order_and_repetition,
    meta_information,
    magic,
    many_elements,
)
