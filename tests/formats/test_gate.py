import logging
import random
import struct
import time
import tracemalloc
import warnings
import zlib

import nibabel.spatialimages
import nibabel.wrapstruct
import pydicom.errors
import pytest

from bedside.core.digest import digest_bytes
from bedside.core.errors import InputRejected
from bedside.formats.dicom import assemble, look, read_folder
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_pixels import Slice, load_stack
from bedside.formats.gate import FOREIGN_ERRORS, Limits, guarded, inflate

UNDEFINED = 0xFFFFFFFF
NAME = "SMITH^JOHN"


@pytest.fixture
def slice_bytes(series):
    """One sound CT slice, Explicit VR Little Endian."""
    return (series() / "slice-0001.dcm").read_bytes()


def problem(data, **limits):
    inspection = inspect(data, limits=Limits(**limits))
    assert inspection.header is None
    return inspection.problem.code


def element(tag, vr, value):
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<HI", 0, len(value)) if vr in {b"SQ", b"OB", b"UN"} else struct.pack("<H", len(value))) + value


def item(content, *, defined):
    if defined:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    return struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def nested(levels, *, defined):
    """A sequence in a sequence in a sequence; built from both ends, so that 20 000 levels take no time."""
    if defined:
        content = b""
        for _ in range(levels):
            content = element(0x00081140, b"SQ", item(content, defined=True))
        return content
    opening = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * levels + closing * levels


def with_element(data, extra):
    """Put a (0008,1140) element into a slice: before group 0010."""
    at = data.index(b"\x10\x00\x10\x00PN")
    return data[:at] + extra + data[at:]


def test_every_cut_of_a_slice_is_refused_as_truncated(slice_bytes):
    assert inspect(slice_bytes).header is not None
    for length in range(len(slice_bytes)):
        expected = "DCM_NOT_DICOM" if length < 132 else "DCM_TRUNCATED"
        assert problem(slice_bytes[:length]) == expected


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEG2000Lossless", "DeflatedExplicitVRLittleEndian", "ImplicitVRLittleEndian"]
)
def test_every_cut_in_every_syntax_is_refused(series, numbered, plain_affine, syntax):
    path = series(volume=numbered(plain_affine(), (64, 48, 3))) / "slice-0001.dcm"
    dataset = pydicom.dcmread(path)
    uid = getattr(pydicom.uid, syntax)
    if uid.is_compressed and not uid.is_deflated:
        dataset.compress(uid, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = uid
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax.startswith("Implicit"), little_endian=True, force_encoding=True)
    data = path.read_bytes()
    assert inspect(data).header is not None
    pad = 1 if uid.is_deflated and inspect(data[:-1]).header else 0
    for length in range(132, len(data) - pad):
        assert problem(data[:length]) == "DCM_TRUNCATED", length


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_half_a_megabyte_cut_at_every_percent_costs_the_whole_series(tmp_path, series, numbered, plain_affine, place):
    folder = series(volume=numbered(plain_affine(), (500, 500, 3)))
    paths = sorted(folder.iterdir())
    path = paths[["first", "middle", "last"].index(place)]
    whole = path.read_bytes()
    assert len(whole) > 500_000
    looks = {one: look(one) for one in paths}
    assert len(assemble(looks.values()).found) == 1
    for percent in range(1, 100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        reading = assemble((looks | {path: look(path)}).values())
        assert reading.found == ()
        assert [one.code for one in reading.refused if path in one.files] == ["DCM_TRUNCATED"], percent
        assert sum(len(one.files) for one in reading.refused) == 3


def test_a_cut_slice_still_tells_its_series(slice_bytes):
    assert inspect(slice_bytes[:-3]).series == inspect(slice_bytes).series != ""


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize(("levels", "code"), [(1, None), (50, None), (64, None), (65, "DCM_DEPTH"), (200, "DCM_DEPTH")])
def test_sequences_nest_sixty_four_deep_and_no_deeper(slice_bytes, defined, levels, code):
    data = with_element(slice_bytes, nested(levels, defined=defined))
    assert inspect(data).header is not None if code is None else problem(data) == code


def test_twenty_thousand_levels_are_refused_at_once(slice_bytes):
    data = with_element(slice_bytes, nested(20_000, defined=False))
    began = time.process_time()
    assert problem(data) == "DCM_DEPTH"
    assert time.process_time() - began < 0.5


def test_more_elements_than_the_limit_are_refused(slice_bytes):
    assert problem(with_element(slice_bytes, nested(1, defined=True)), max_elements=20) == "DCM_ELEMENTS"


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFF0), "DCM_TRUNCATED"),
        (struct.pack("<HH2sHI", 8, 0x1140, b"OB", 0, UNDEFINED), "DCM_STRUCTURE"),
        (struct.pack("<HH2sHI", 8, 0x1140, b"UN", 0, 0xFFFFFFF0), "DCM_TRUNCATED"),
        (struct.pack("<HHI", 0xFFFE, 0xE00D, 0), "DCM_STRUCTURE"),
        (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), "DCM_STRUCTURE"),
        (b"\x08\x00\x40\x11??\x00\x00", "DCM_STRUCTURE"),
        (element(0x00081140, b"SQ", b"\x08\x00\x40\x11\x00\x00\x00\x00"), "DCM_STRUCTURE"),
        (element(0x00081140, b"SQ", item(b"", defined=True)[:6]), "DCM_TRUNCATED"),
        (element(0x00080060, b"CS", b"CT"), "DCM_STRUCTURE"),
    ],
)
def test_a_structure_that_lies_is_refused(slice_bytes, extra, code):
    assert problem(with_element(slice_bytes, extra)) == code


def test_an_unknown_sequence_of_undefined_length_is_walked_as_implicit(slice_bytes):
    inner = struct.pack("<HHI", 8, 0x0104, 2) + b"ab"
    unknown = struct.pack("<HH2sHI", 8, 0x1140, b"UN", 0, UNDEFINED)
    data = with_element(slice_bytes, unknown + item(inner, defined=False) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    assert inspect(data).header is not None


def deflated_bomb(data, blocks):
    """A deflated slice whose data set ends in `blocks` times 4 MiB of zeros."""
    explicit = b"1.2.840.10008.1.2.1\0"
    meta = data.index(b"\x08\x00\x08\x00CS")
    old = data.index(explicit)
    head = data[: old - 2] + struct.pack("<H", 22) + b"1.2.840.10008.1.2.1.99" + data[old + len(explicit) : meta]
    packer = zlib.compressobj(9, wbits=-15)
    body = packer.compress(data[meta:]) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + body + (packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH)) * blocks


def test_a_deflate_bomb_is_refused_at_the_default_limit_quickly_and_in_constant_memory(slice_bytes):
    bomb = deflated_bomb(slice_bytes, 256)
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    began = time.process_time()
    assert problem(bomb) == "DCM_INFLATE_LIMIT"
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 16 << 20


def test_inflating_gives_back_what_was_packed():
    content = random.Random(1).randbytes(3 << 20) + bytes(5 << 20)
    assert inflate(zlib.compress(content, wbits=31), window_bits=31, code="NII") == content
    assert inflate(zlib.compress(content, wbits=31) * 2, window_bits=31, code="NII") == content * 2


def mutants(data, count, seed, first=0):
    generator = random.Random(seed)
    for _ in range(count):
        flipped = bytearray(data)
        for _ in range(generator.choice([1, 1, 2, 4])):
            flipped[generator.randrange(first, len(data))] ^= 1 << generator.randrange(8)
        yield bytes(flipped)


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "RLELossless", "JPEG2000Lossless", "ImplicitVRLittleEndian"])
def test_bit_flips_end_in_pixels_or_a_named_refusal(series, numbered, plain_affine, tmp_path, syntax):
    path = series(volume=numbered(plain_affine(), (64, 48, 3))) / "slice-0001.dcm"
    dataset = pydicom.dcmread(path)
    uid = getattr(pydicom.uid, syntax)
    if uid.is_compressed:
        dataset.compress(uid, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = uid
    pydicom.dcmwrite(path, dataset, implicit_vr=syntax.startswith("Implicit"), little_endian=True, force_encoding=True)
    outcomes = {"pixels": 0, "refused": 0}
    mutant = tmp_path / "mutant.dcm"
    for data in mutants(path.read_bytes(), 700, seed=7, first=128):
        inspection = inspect(data)
        if inspection.header is None:
            assert inspection.problem.code.startswith("DCM_")
            outcomes["refused"] += 1
            continue
        mutant.write_bytes(data)
        try:
            array = load_stack([Slice(mutant, digest_bytes(data), inspection.header)])
            assert array.shape == (1, inspection.header.facts.columns, inspection.header.facts.rows, 1)
            outcomes["pixels"] += 1
        except InputRejected:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_a_folder_with_flipped_slices_adds_up(series, tmp_path):
    folder = series()
    data = (folder / "slice-0003.dcm").read_bytes()
    for mutated in mutants(data, 60, seed=3, first=132):
        (folder / "slice-0003.dcm").write_bytes(mutated)
        reading = read_folder(folder)
        files = [p for f in reading.found for p in f.files] + [p for r in reading.refused for p in r.files]
        assert sorted(files) == sorted(folder.iterdir())


@pytest.mark.parametrize("error", FOREIGN_ERRORS)
def test_every_known_foreign_error_becomes_one_refusal_that_does_not_quote_it(error):
    with pytest.raises(InputRejected) as caught, guarded("DCM_DECODE", "A frame cannot be decoded."):
        raise error(NAME)
    assert caught.value.code == "DCM_DECODE"
    assert NAME not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("module", [pydicom.errors, nibabel.spatialimages, nibabel.wrapstruct])
def test_no_error_that_a_library_calls_its_own_passes_the_guard(module):
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert own
    for kind in own:
        with pytest.raises(InputRejected), guarded("DCM_DECODE", "A frame cannot be decoded."):
            raise kind(NAME)


def test_an_error_of_ours_passes_the_guard_unchanged():
    ours = InputRejected("Ours.", code="OURS")
    with pytest.raises(InputRejected) as caught, guarded("DCM_DECODE", "A frame cannot be decoded."):
        raise ours
    assert caught.value is ours


def test_warnings_and_log_lines_of_the_libraries_go_nowhere(caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    with guarded("DCM_DECODE", "A frame cannot be decoded."):
        warnings.warn(NAME, stacklevel=1)
        for name in ("pydicom", "pydicom.pixels.decoders.base", "nibabel.global", "openjpeg.decode"):
            logging.getLogger(name).error("found %s", NAME)
    assert caplog.text == ""
    assert len(recwarn) == 0
    logging.getLogger("pydicom").error("outside the guard")
    assert "outside the guard" in caplog.text


def test_no_refusal_log_line_or_repr_quotes_a_value_of_the_header(series, tmp_path, caplog, recwarn):
    def edit(dataset, _):
        dataset.PatientName = dataset.PatientID = dataset.StudyID = NAME

    for name in ("sound", "uid", "number", "kind", "gap"):
        series(name, edit=edit)
    for name, old, new in [
        ("uid", b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00UI"),
        ("number", b"\x20\x00\x32\x00DS", b"\x20\x00\x32\x00DS"),
        ("kind", b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00LO"),
    ]:
        for path in (tmp_path / name).iterdir():
            data = path.read_bytes()
            at = data.index(old)
            length = struct.unpack_from("<H", data, at + 6)[0]
            path.write_bytes(data[:at] + new + struct.pack("<H", length) + (NAME.encode() * 9)[:length] + data[at + 8 + length :])
    (tmp_path / "gap" / "slice-0003.dcm").unlink()
    caplog.clear()
    recwarn.clear()
    reading = read_folder(tmp_path)
    assert {refused.code for refused in reading.refused} == {"DCM_UID", "DCM_GEOMETRY", "DCM_MODALITY", "SERIES_MISSING_SLICE"}
    assert reading.found[0].volume.array.any()
    written = repr(reading) + caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert reading.found[0].patient_id == NAME
    assert not any(part in written for part in ("SMITH", "JOHN", str(tmp_path), "slice-"))
