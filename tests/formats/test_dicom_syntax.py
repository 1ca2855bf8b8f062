"""Claims about transfer syntaxes: each gives the same volume, the decoder is named, and a missing one is."""

import sys
from base64 import b64decode

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from bedside.core.errors import InputRejected
from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_syntax import DECODERS, NATIVE, check_syntax, decoder_of
from bedside.formats.dicom_write import planes_of, write_planes
from bedside.formats.dicom_write_frames import write_frames
from bedside.formats.dicom_write_htj2k import SHAPE

from .reading import IDENTITY, codes, only

LOSSLESS = {
    "1.2.840.10008.1.2": "numpy",
    "1.2.840.10008.1.2.1.99": "numpy",
    "1.2.840.10008.1.2.2": "numpy",
    RLELossless: "pydicom",
    JPEGLossless: "python-gdcm",
    JPEGLosslessSV1: "python-gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg-openjpeg",
    HTJ2KLossless: "pylibjpeg-openjpeg",
}
EXTENDED = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQIBAQEBAQIBAQECAgICAgICAgIDAwQDAwMDAwICAwQDAwQEBAQEAgMFBQ"
    "QEBQQEBAT/wQALDAAYACABAREA/8QAGQAAAgMBAAAAAAAAAAAAAAAACw0JCg4M/8QALRAAAAQEBQQBAwUAAAAAAAAAAQIDBAUGBxEACAkSEwoL"
    "DBRhFRdRITFBUnH/2gAIAQEAAD8AZ6PhUmrxRnIplm0s2lQJlhMHPCJdk4iwPnaaIl2JMwG+4fjGggu3p9drp/U10fKLwSKVfkZuuhSlgiYqsc"
    "bFMAgxTD+TYBaeQNdZpkgzH6WGcmESxVKTX676mseSTK2jDdQREzNwAfoBsZZM85iqtB8/suasxKduUoyMZQnUERYHBcT7we2tt/3BmzseXcD5"
    "J6XSl2VCBTFWdpT40gQ2CoHI4j5YXw+sRAP2E4WttwxKunL8pAy75M8mUkU2dag0BhZ4XKTeHigepySIl2IFJa3P8YoTdxH8jcoTrF5T61U/he"
    "eGCzOeZ5YiDEqCdQ0ngqcyKhQCwLD+cKfrvzGetn1XsMzeoS3GC1GCoiccKQG64RXm9rn/AAI3vvwDy6tLuTMW6R2YKjS8yrqrTb7cOHSBSEmM"
    "YTweoJgALbwtbZgJFni8ubnbIzVKK0rT1KHkILCIkeGA3CrBkNuw4ktb2PjExWiT5QTN2uBUeVKbuM/7ubAmx+jDxQNUwz0FecxS2tzD/bHRnd"
    "HtqFq9Y0vTNB/Gxqh9zTMym5HH1fn9zZ8mvffj/9k="
)
"""One frame of 12 bits in JPEG extended (SOF1), made by libjpeg-turbo 3 (imagecodecs 2026.3.6, level 98), whose own decoder is
off by 1 at most."""


def smooth(dtype, top):
    i, j, k = np.indices((40, 36, 4))
    return np.round((np.sin(i / 9) * np.cos(j / 11) + 1) / 2 * (top - 4) + k).astype(dtype)


@pytest.mark.parametrize("write", [write_planes, write_frames])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_keeps_every_voxel_in_its_place_and_names_its_decoder(
    tmp_path, syntax, write, numbered, plain_affine, place_error_mm
):
    written = numbered(plain_affine(), SHAPE)
    write(tmp_path / "s", planes_of(written), identity=IDENTITY, syntax=syntax)
    found = only(tmp_path / "s")
    assert place_error_mm(written, found.volume) < 1e-9
    assert LOSSLESS[syntax] in found.decoder


def with_tile_lengths(stream):
    """A codestream of one tile-part with the TLM marker (ISO 15444-1 A.7.1) before it that the RPCL transfer syntax asks for."""
    tile = stream.index(b"\xff\x90\0\x0a")
    length = stream[tile + 6 : tile + 10]  # Psot
    return stream[:tile] + b"\xff\x55\0\x08\0\x40" + length + stream[tile:]


@pytest.mark.parametrize(
    ("syntax", "change"), [(HTJ2K, bytes), (HTJ2K, with_tile_lengths), (HTJ2KLosslessRPCL, with_tile_lengths)]
)
def test_the_other_htj2k_syntaxes_keep_every_voxel_in_its_place_too(
    tmp_path, syntax, change, numbered, plain_affine, place_error_mm
):
    """The kept streams stand under the syntax that admits any, and, with a TLM marker, under that of progression RPCL.

    That one asks for RPCL, a lowest resolution of at most 64 columns or rows, and TLM (PS3.5 10.18). The kept streams have the
    first two: SGcod says 2 (ISO 15444-1 A.6.1), and 36 x 32 pixels are below 64 at any number of decompositions.
    """
    written = numbered(plain_affine(), SHAPE)
    write_planes(tmp_path / "s", planes_of(written), identity=IDENTITY, syntax=HTJ2KLossless)
    for path in (tmp_path / "s").iterdir():
        dataset = pydicom.dcmread(path)
        stream = change(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        assert stream[stream.index(b"\xff\x52") + 5] == 2
        assert (b"\xff\x55" in stream) == (change is with_tile_lengths)
        dataset.PixelData = encapsulate([stream])
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    found = only(tmp_path / "s")
    assert place_error_mm(written, found.volume) < 1e-9
    assert "pylibjpeg-openjpeg" in found.decoder


def test_jpeg_baseline_of_8_bits_is_read_within_its_loss(tmp_path, plain_affine):
    volume = Volume.of(smooth(np.uint8, 255), plain_affine())
    write_planes(tmp_path / "s", planes_of(volume), identity=IDENTITY, syntax=JPEGBaseline8Bit)
    found = only(tmp_path / "s")
    assert np.abs(found.volume.array.astype(int) - volume.array).max() <= 2
    assert found.decoder.startswith("python-gdcm ")


def recompressed(folder, syntax, compress):
    """Each file of a native series again, its pixels compressed by `compress(path, dataset) -> codestream`."""
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.save_as(path)
        dataset.PixelData = encapsulate([compress(path, dataset)])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)


def test_extended_jpeg_of_12_bits_is_read_within_its_loss(series, plain_affine):
    i, j = np.mgrid[:24, :32]
    pixels = np.round((np.sin(j / 9) * np.cos(i / 11) + 1) / 2 * 4000).astype(np.int16)
    folder = series(volume=Volume.of(np.dstack([pixels.T] * 3), plain_affine()))
    recompressed(folder, JPEGExtended12Bit, lambda *_: b64decode(EXTENDED))
    found = only(folder)
    assert np.abs(found.volume.array[0, :, :, 0].T - pixels).max() <= 1
    assert found.decoder.startswith("python-gdcm ")


def test_near_lossless_jpeg_ls_is_read_within_its_allowed_error(series, plain_affine):
    import jpeg_ls

    volume = Volume.of(smooth(np.int16, 4095), plain_affine())
    folder = series(volume=volume)

    def compress(_, dataset):
        pixels = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        return bytes(jpeg_ls.encode_array(pixels, lossy_error=3))

    recompressed(folder, JPEGLSNearLossless, compress)
    found = only(folder)
    assert 0 < np.abs(found.volume.array.astype(int) - volume.array).max() <= 3
    assert "pyjpegls" in found.decoder


def test_signed_values_survive_jpeg_lossless(tmp_path, plain_affine):
    volume = Volume.of(smooth(np.int16, 3000) - 1024, plain_affine())
    write_planes(tmp_path / "s", planes_of(volume), identity=IDENTITY, syntax=JPEGLosslessSV1)
    assert np.array_equal(only(tmp_path / "s").volume.array, volume.array)


@pytest.mark.parametrize(
    ("module", "package", "syntax"),
    [
        ("gdcm", "python-gdcm", JPEGLosslessSV1),
        ("jpeg_ls", "pyjpegls", JPEGLSLossless),
        ("openjpeg", "pylibjpeg-openjpeg", JPEG2000Lossless),
    ],
)
def test_a_decoder_that_is_not_installed_is_named(tmp_path, monkeypatch, numbered, plain_affine, module, package, syntax):
    write_planes(tmp_path / "s", planes_of(numbered(plain_affine(), SHAPE)), identity=IDENTITY, syntax=syntax)
    monkeypatch.setitem(sys.modules, module, None)
    (refused,) = read_folder(tmp_path / "s").refused
    assert refused.code == "DCM_SYNTAX"
    assert refused.sentence.endswith(f"install {package}.")


def test_every_syntax_that_is_read_passes_and_has_a_decoder_with_a_version():
    for syntax in (*NATIVE, *DECODERS):
        check_syntax(syntax)
        assert decoder_of(syntax).split()[-1][0].isdigit()
    with pytest.raises(InputRejected, match="unknown transfer syntax"):
        check_syntax("1.2.3")


def test_no_decoder_is_under_the_gpl():
    assert "pylibjpeg-libjpeg" not in {decoder.package for decoder in DECODERS.values()}


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_a_damaged_frame_is_refused_and_no_library_says_a_word(tmp_path, capfd, plain_affine, syntax):
    rng = np.random.default_rng(1)
    noise = Volume.of(rng.integers(-900, 900, (40, 36, 3)).astype(np.int16), plain_affine())
    paths = write_planes(tmp_path / "s", planes_of(noise), identity=IDENTITY, syntax=syntax)
    for path in paths:
        data = bytearray(path.read_bytes())
        middle = len(data) - 900
        data[middle : middle + 400] = b"\x80" * 400
        path.write_bytes(data)
    capfd.readouterr()
    found = only(tmp_path / "s")
    with pytest.raises(InputRejected) as caught:
        _ = found.volume.array
    assert caught.value.code == "DCM_DECODE"
    assert capfd.readouterr() == ("", "")


def test_a_frame_cut_before_its_end_marker_is_refused_by_its_header(tmp_path, numbered, plain_affine):
    paths = write_planes(tmp_path / "s", planes_of(numbered(plain_affine(), SHAPE)), identity=IDENTITY, syntax=JPEGLosslessSV1)
    for path in paths:
        dataset = pydicom.dcmread(path)
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
        dataset.save_as(path)
    assert "DCM_TRUNCATED" in codes(tmp_path / "s")
