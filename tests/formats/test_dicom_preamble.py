"""A preamble that begins a file of another kind is named in the notes, and costs nothing else."""

import pytest
from tests.hostile.corpus_names import PREAMBLES

from bedside.formats.dicom import assemble, look
from bedside.formats.dicom_header import inspect
from bedside.formats.dicom_preamble import PLAIN, preamble_of
from bedside.formats.dicom_write import planes_of
from bedside.formats.dicom_write_frames import write_frames

from .reading import IDENTITY, only

NAMED = {"PE": "PE", "ELF": "ELF", "script": "SCRIPT", "PDF": "PDF", "ZIP": "ZIP", "TIFF little": "TIFF", "TIFF big": "TIFF"}


def put(path, start):
    data = path.read_bytes()
    assert data.startswith(PLAIN)
    path.write_bytes(start.ljust(128, b"\0")[:128] + data[128:])


def test_zeros_are_no_note(series):
    assert only(series()).notes == ()


@pytest.mark.parametrize("name", PREAMBLES)
def test_what_a_preamble_begins_is_noted_and_the_series_stays_whole(series, name):
    folder = series()
    plain = only(folder)
    values = plain.volume.array
    put(sorted(folder.iterdir())[1], PREAMBLES[name])
    found = only(folder)
    assert found.notes == (f"PREAMBLE_{NAMED.get(name, 'UNKNOWN')}",)
    assert len(found.files) == len(plain.files)
    assert (found.volume.array == values).all()


def test_each_kind_is_noted_once(series):
    folder = series()
    paths = sorted(folder.iterdir())
    for path, start in zip(paths, (b"MZ", b"II*\0", b"MM\0*"), strict=False):
        put(path, start)
    assert only(folder).notes == ("PREAMBLE_PE", "PREAMBLE_TIFF")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_files_that_differ_in_the_preamble_only_are_not_taken_for_alike(series, place):
    paths = sorted(series().iterdir())[:3]
    put(paths[place], b"\x7fELF")
    kinds = [inspect(path.read_bytes()).header.facts.preamble for path in paths]
    assert kinds == ["ELF" if at == place else "" for at in range(3)]


def test_a_multi_frame_file_has_its_note_too(tmp_path, numbered, plain_affine):
    write_frames(tmp_path / "s", planes_of(numbered(plain_affine())), identity=IDENTITY)
    (path,) = (tmp_path / "s").iterdir()
    put(path, b"MM\0*\0\0\0\x08")
    (found,) = assemble([look(path)]).found
    assert found.notes == ("PREAMBLE_TIFF",)


def test_a_single_byte_anywhere_is_seen():
    for at in range(128):
        head = bytearray(PLAIN)
        head[at] = 1
        assert preamble_of(bytes(head)) == "UNKNOWN"
    assert preamble_of(PLAIN) == ""
