"""A validator of DICOM's modules that is not ours: `dciodvfy` of David Clunie's dicom3tools (Debian: dicom3tools)."""

import re
import subprocess
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from tests.needs import need_programs

PROGRAM, TOGETHER = "dciodvfy", "dcentvfy"
_VALUE = re.compile(r" = <.*?>(?= - |$)| <0x[0-9a-f]+>")


class ValidatorDied(Exception):
    """The validator ended by a signal, so it says nothing of the file."""


def need_validator() -> None:
    """Leave a test out, loudly, where the programs are not there."""
    need_programs("NO MODULE OF DICOM WAS CHECKED", (PROGRAM, TOGETHER), debian="dicom3tools")


def bundled_files() -> list[Path]:
    """The DICOM files that come with pydicom; others, which it would download, are left out."""
    return sorted(Path(pydicom.data.__file__).with_name("test_files").rglob("*.dcm"))


def errors_in(data: bytes, scratch: Path) -> frozenset[str]:
    """`errors_of` a file's bytes, written to `scratch`; a deflated data set is inflated, for the validator cannot."""
    scratch.write_bytes(data)
    stored = pydicom.dcmread(scratch, force=True)
    if stored.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        stored.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stored.save_as(scratch, enforce_file_format=True)
    return errors_of(scratch)


def errors_of(path: Path) -> frozenset[str]:
    """The errors that the validator reports of a file: place and kind, without the values.

    Raises:
        ValidatorDied: it ended by a signal.
    """
    done = subprocess.run([PROGRAM, "-new", str(path)], capture_output=True, check=False, timeout=60)
    if done.returncode < 0 or done.returncode > 128:
        raise ValidatorDied(f"{PROGRAM} ended with {done.returncode}.")
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return frozenset(_VALUE.sub("", line) for line in lines if line.startswith(("Error", "Abort")))


def errors_between(paths: list[Path]) -> list[str]:
    """Where files of one patient, study or series contradict each other."""
    done = subprocess.run([TOGETHER, *map(str, paths)], capture_output=True, check=False, timeout=60)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith(("Error", "Abort"))]
