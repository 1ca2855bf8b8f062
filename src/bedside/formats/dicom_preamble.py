"""What stands before "DICM" in a Part 10 file: 128 zeros, or the beginning of a file of another kind (PS3.10 7.1).

A reader of that other kind may run or show such a file, so it is worth a line in the record. We write zeros only.
"""

from bedside.core.errors import InputRejected

BYTES = 132
"""Of preamble and prefix."""
PLAIN = bytes(128) + b"DICM"
_KINDS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"MZ": "PE",
    b"\x7fELF": "ELF",
    b"#!": "SCRIPT",
    b"%PDF": "PDF",
    b"PK\3\4": "ZIP",
}
"""By their first bytes; TIFF of either byte order, and BigTIFF. The standard names TIFF as a reason for a preamble."""


def preamble_of(head: bytes) -> str:
    """Say what a preamble begins: "" (zeros), "TIFF", "PE", "ELF", "SCRIPT", "PDF", "ZIP" or "UNKNOWN".

    Args:
        head: the file's first `BYTES` bytes.

    Raises:
        InputRejected: DCM_NOT_DICOM: no prefix follows it.
    """
    if head[128:] != b"DICM":
        raise InputRejected("The file has no DICOM preamble (DICM at byte 128).", code="DCM_NOT_DICOM")
    if not any(head[:128]):
        return ""
    return next((kind for start, kind in _KINDS.items() if head.startswith(start)), "UNKNOWN")
