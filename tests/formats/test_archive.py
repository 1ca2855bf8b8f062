"""An archive is unpacked below its folder, as plain files, within bounds, or not at all."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import pytest

from bedside.core.errors import InputRejected, ResourceError, UnsafeArtefact, UsageError
from bedside.formats import archive
from bedside.formats.archive import ArchiveLimits, inspect_archive, received

SCANS = {"images/a/1.dcm": bytes(128) + b"DICM" + b"x" * 100, "images/b.nii.gz": gzip.compress(b"n" * 400), "images/é (1)": b"y"}


def zipped(entries, *, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in entries:
            made.writestr(name, data)
    return out.getvalue()


def info(name, mode):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def tarred(members, *, mode="w:gz", **kwargs):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **kwargs) as made:
        for member, data in members:
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name, *, kind=tarfile.REGTYPE, link=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def stored_twice():
    """A zip whose two entries share the same bytes."""
    one = zipped([("a", bytes(1000)), ("b", bytes(1000))], method=zipfile.ZIP_STORED)
    at = one.find(b"PK\1\2", one.find(b"PK\1\2") + 1)
    return one[: at + 42] + struct.pack("<I", 0) + one[at + 46 :]


def bomb(gibibytes):
    entry = tarfile.TarInfo("a")
    entry.size = gibibytes << 30
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(entry.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (64 * gibibytes)


def long_link(kind, *, before=()):
    """A tar in which a name, or a list of attributes, is of 64 MiB that nothing packs well."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, 64 << 20
    whole = tarred(before, mode="w").rstrip(b"\0") if before else b""
    return whole + bytes(-len(whole) % 512) + entry.tobuf(tarfile.GNU_FORMAT) + bytes(range(256)) * (1 << 18)


def list_in_two_places():
    """A zip whose end points at a harmless record of its list, while a large one lies where libraries look for it."""
    record = b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, 1, 1, 46, 0)
    large = record[:24] + struct.pack("<4Q", 1 << 21, 1 << 21, 46 << 21, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, 4, 1)
    return b"PK\3\4" + record + large + locator + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 1, 1, 46, 0, 0)


def million():
    """The end of a zip that says that it has a million entries."""
    return b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 65535, 65535, 0xFFFFFFFF, 0, 0)


HOSTILE = {
    "zip slip": zipped([("../../x", b"x")]),
    "zip slip below": zipped([("a/../../x", b"x")]),
    "absolute zip": zipped([("/tmp/x", b"x")]),
    "backslashes": zipped([("..\\..\\x", b"x")]),
    "drive": zipped([("C:x", b"x")]),
    "symlink in zip": zipped([(info("l", 0o120777), b"/etc"), ("l/x", b"x")]),
    "pipe in zip": zipped([(info("p", 0o010644), b"")]),
    "device in zip": zipped([(info("d", 0o060644), b"")]),
    "nested zip": zipped([("a.zip", zipped([("b", b"c")]))]),
    "nested tar": zipped([("a", tarred([(member("b"), b"c")], mode="w"))]),
    "packed too well": zipped([("a", bytes(64 << 20))]),
    "entries that share bytes": stored_twice(),
    "one name twice, as file and folder": zipped([("a", b"x"), ("a/b", b"y")]),
    "long name": zipped([("a" * 300, b"x")]),
    "deep": zipped([("a/" * 60 + "x", b"x")]),
    "no name": zipped([("./.", b"x")]),
    "tar slip": tarred([(member("../../x"), b"x")]),
    "absolute tar": tarred([(member("/tmp/x"), b"x")]),
    "symlink in tar": tarred([(member("l", kind=tarfile.SYMTYPE, link="/etc"), b""), (member("l/x"), b"x")]),
    "hard link": tarred([(member("h", kind=tarfile.LNKTYPE, link="/etc/passwd"), b"")]),
    "device in tar": tarred([(member("d", kind=tarfile.BLKTYPE), b"")]),
    "pipe in tar": tarred([(member("p", kind=tarfile.FIFOTYPE), b"")]),
    "nested in tar": tarred([(member("a"), zipped([("b", b"c")]))], mode="w"),
    "gzip bomb in tar": bomb(1),
    "tar packed too well": tarred([(member("a"), bytes(64 << 20))]),
    "64 MiB of name first": long_link(tarfile.GNUTYPE_LONGNAME),
    "64 MiB of name later": long_link(tarfile.GNUTYPE_LONGNAME, before=[(member("a"), b"x")]),
    "64 MiB of attributes": long_link(tarfile.XHDTYPE, before=[(member("a"), b"x")]),
    "list in two places": list_in_two_places(),
    "long name in tar": tarred([(member("n/" * 100 + "x"), b"")], format=tarfile.PAX_FORMAT),
}
DAMAGED = {
    "cut zip": zipped(SCANS.items())[:-30],
    "cut tar": tarred([(member("a"), bytes(range(256)) * 40)])[:-100],
    "zip of another checksum": zipped([("a", b"abcdef")], method=zipfile.ZIP_STORED).replace(b"abcdef", b"abcdeg"),
    "gzip that is no tar": gzip.compress(b"hello"),
    "zip without a list": b"PK\3\4" + bytes(100),
}


@pytest.fixture
def write(tmp_path):
    def to_disk(data):
        (tmp_path / "received").mkdir()
        path = tmp_path / "received" / "export.bin"
        path.write_bytes(data)
        return path

    return to_disk


def below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_plain_files_are_unpacked_and_removed_again(write, tmp_path, kind):
    members = [(member(name), data) for name, data in SCANS.items()]
    data = zipped(SCANS.items()) if kind == "zip" else tarred(members, mode="w" if kind == "tar" else "w:gz")
    path = write(data)
    inspect_archive(path)
    with received(path, tmp_path / "scratch") as folder:
        assert below(folder) == SCANS
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_folder_is_given_as_it_is(tmp_path):
    with received(tmp_path, tmp_path / "scratch") as folder:
        assert folder == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_an_unsafe_archive_is_refused_with_nothing_left_of_it(write, tmp_path, name):
    path = write(HOSTILE[name])
    for action in (inspect_archive, lambda path: received(path, tmp_path / "scratch").__enter__()):
        if name.startswith("one name twice") and action is inspect_archive:
            continue  # seen when the second is written
        with pytest.raises(UnsafeArtefact) as caught:
            action(path)
        assert (caught.value.code, caught.value.exit_code) == ("ARCHIVE_UNSAFE", 7)
    assert below(tmp_path) == {"received/export.bin": HOSTILE[name]}
    assert not any((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_rejected_with_nothing_left_of_it(write, tmp_path, name):
    path = write(DAMAGED[name])
    with pytest.raises(InputRejected) as caught:
        received(path, tmp_path / "scratch").__enter__()
    assert caught.value.code == "ARCHIVE_DAMAGED"
    assert not any((tmp_path / "scratch").iterdir())


def test_another_kind_of_file_is_named(write):
    with pytest.raises(UsageError, match="give the folder that holds the scans") as caught:
        inspect_archive(write(b"hello"))
    assert (caught.value.code, caught.value.exit_code) == ("ARCHIVE_KIND", 2)


def test_numbers_are_bounded(write):
    path = write(zipped([(str(number), b"x") for number in range(20)]))
    inspect_archive(path, limits=ArchiveLimits(max_entries=20))
    for limits in (ArchiveLimits(max_entries=19), ArchiveLimits(max_bytes=19), ArchiveLimits(max_index_bytes=100)):
        with pytest.raises(UnsafeArtefact):
            inspect_archive(path, limits=limits)


def test_a_list_of_a_million_entries_is_never_read(write, monkeypatch):
    monkeypatch.setattr(archive.zipfile, "ZipFile", None)
    with pytest.raises(UnsafeArtefact, match="65535 entries"):
        inspect_archive(write(million()), limits=ArchiveLimits(max_entries=1000))


def test_a_dicom_file_that_looks_like_a_zip_is_no_nested_archive(write):
    polyglot = (b"PK\3\4" + bytes(124)) + b"DICM" + bytes(40)
    inspect_archive(write(zipped([("a.dcm", polyglot)])))


def test_a_full_disk_is_named(write, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_write", full)
    with pytest.raises(ResourceError):
        received(write(zipped(SCANS.items())), tmp_path / "scratch").__enter__()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_kill_left_unpacked_is_removed_and_what_another_process_reads_is_not(write, tmp_path):
    path = write(zipped(list(SCANS.items())))
    left = tmp_path / "scratch" / "unpacked-killed" / "images"
    left.mkdir(parents=True)
    (left / "1.dcm").write_bytes(b"a name")
    with received(path, tmp_path / "scratch") as first:
        assert not left.exists()
        with received(path, tmp_path / "scratch") as second:
            assert first != second
            assert (first / "images" / "a" / "1.dcm").is_file()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("name", ["scan.nii", "SCAN.NII.GZ"])
def test_one_nifti_image_is_wrong_use_and_no_damaged_archive(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(bytes(4000)))
    with pytest.raises(UsageError) as caught:
        inspect_archive(tmp_path / name)
    assert (caught.value.code, caught.value.exit_code) == ("ONE_IMAGE", 2)
