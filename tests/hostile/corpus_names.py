"""Names from outside that would like to be a path, a command, a formula or a format; and files of another kind (P1, D8)."""

import io
import tarfile
import zipfile
from dataclasses import replace

from .corpus import EITHER, SOUND, Specimen, alone, among
from .dicom_bytes import ROOT, ct_slice, text, uid

NAMES = (
    "../../../etc/x", "/etc/passwd", "..\\..\\x", "CON", "%2e%2e%2fx", "$(touch pwned)", "`touch pwned`", "; touch pwned",
    "=1+cmd|' /C calc'!A0", "@SUM(A1)", "{0.__class__}", "%s%n", "' OR 1=1 --", "<script>alert(1)</script>", "\u202egpj.exe",
    "a\u2215b", "~root", "A" * 300, "-rf", ".", "..",
)  # fmt: skip
RAW = (b"a\0b", b"a\nb", b"\r\n\r\n", b"\x1b[2J", b"\xff\xfe", b"\xc0\xaf")
PREAMBLES = {
    "PE": b"MZ\x90\0", "ELF": b"\x7fELF\2\1\1", "script": b"#!/bin/sh\ntouch pwned\n", "PDF": b"%PDF-1.7\n", "ZIP": b"PK\3\4",
    "TIFF little": b"II*\0\x08\0\0\0", "TIFF big": b"MM\0*\0\0\0\x08", "GIF": b"GIF89a", "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0", "gzip": b"\x1f\x8b\x08", "Java": b"\xca\xfe\xba\xbe", "HTML": b"<html><script>",
    "PHP": b"<?php ",
    "Mach-O": b"\xcf\xfa\xed\xfe", "all ones": b"\xff" * 128,
}  # fmt: skip


def patients():
    for name in NAMES:
        yield among("P1 PatientID", repr(name[:24]), ct_slice(1).put(0x00100020, "LO", text(name)).bytes(), expect=EITHER)
    for name in RAW:
        yield among("P1 PatientID", repr(name), ct_slice(1).put(0x00100020, "LO", text(name)).bytes(), expect=EITHER)


def other_texts():
    for tag, what in ((0x00081030, "StudyDescription"), (0x0008103E, "SeriesDescription"), (0x00080080, "InstitutionName")):
        for name in (*NAMES[:14], *NAMES[18:]):
            data = ct_slice(1).put(tag, "LO", text(name)).bytes()
            yield among(f"P1 {what}", repr(name[:24]), data, expect=SOUND)


def scanners():
    for name in NAMES:
        files = tuple((f"{n}.dcm", ct_slice(n).put(0x00081090, "LO", text(name)).bytes()) for n in range(3))
        yield Specimen("P1 ManufacturerModelName", repr(name[:24]), files, SOUND, mutant="1.dcm")


def uids():
    for tag, what in ((0x00080018, "SOPInstanceUID"), (0x0020000E, "SeriesInstanceUID"), (0x00200052, "FrameOfReferenceUID")):
        for name in (*NAMES[:12], "1" * 65, "1.2.x", "\u0661.2"):
            yield among(f"P1 {what}", repr(name[:24]), ct_slice(1).put(tag, "UI", uid(name)).bytes())
    for name in (*NAMES[:3], "1..2", ".1", "1.", "01.2", "0" * 64):
        yield among(
            "P1 SOPInstanceUID", f"{name[:24]!r} everywhere", ct_slice(1).put(0x00080018, "UI", uid(name)).bytes(), expect=EITHER
        )


def file_names():
    for name in ("-rf", "$(touch pwned).dcm", "a\nb.dcm", "\u202emcd.x", "CON.dcm", "=1+1.csv", "%2e%2e%2f", " .dcm",
    "a" * 250, "é.dcm",
                 "\udcff\udcfe.dcm", "'; drop table.dcm", "*.dcm", "~", "\x1b[2J.dcm", "NUL", "{x}.dcm"):  # fmt: skip
        files = (("a.dcm", ct_slice(0).bytes()), (name, ct_slice(1).bytes()), ("c.dcm", ct_slice(2).bytes()))
        yield Specimen("P1 file names", ascii(name[:24]), files, SOUND, mutant=name)
        yield Specimen("P1 file names of refused files", ascii(name[:24]), ((name, b"junk"),), mutant=name)


def preambles():
    for name, start in PREAMBLES.items():
        preamble = (start + bytes(128))[:128]
        yield among("D8 preambles of other kinds", name, replace(ct_slice(1), preamble=preamble).bytes(), expect=SOUND)


def _zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("../../x", "y")
    return out.getvalue()


def _tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        made.addfile(tarfile.TarInfo("../../x"))
    return out.getvalue()


def other_kinds():
    kinds = {
        "text": b"hello", "JSON": b'{"a": 1}', "YAML": b"!!python/object/apply:os.system [true]", "HTML": b"<html>",
        "ZIP": _zip(),
        "tar": _tar(), "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100), "SQLite": b"SQLite format 3\0" + bytes(100),
        "numpy": b"\x93NUMPY\1\0",
        "pickle": b"\x80\x04\x95", "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(600), "script": b"#!/bin/sh\ntouch pwned\n",
        "NRRD": b"NRRD0004\n",
        "newlines": b"\n" * 1000, "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    }  # fmt: skip
    for name, data in kinds.items():
        yield alone("files of another kind", f"{name} as DICOM", data, codes=("DCM_NOT_DICOM", "DCM_TRUNCATED"))
        yield alone("files of another kind", f"{name} as NIfTI", data, mutant="m.nii")
        yield alone("files of another kind", f"{name} as packed NIfTI", data, mutant="m.nii.gz")


def disguised_names():
    for name in (
        f"{ROOT}.1.1",
        "m",
        "m.ima",
        "m.DCM.exe",
        "m.nii.dcm",
        "m.jpg",
        "m.txt",
        "DICOMDIR",
        "m.gz",
        "m.zip",
        "m.tar",
        "m.pdf",
    ):
        files = (("a.dcm", ct_slice(0).bytes()), (name, ct_slice(1).bytes()), ("c.dcm", ct_slice(2).bytes()))
        yield Specimen("slices under other names", name, files, SOUND, mutant=name)


FAMILIES = (patients, other_texts, scanners, uids, file_names, preambles, other_kinds, disguised_names)
