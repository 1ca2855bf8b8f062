"""`bs.read`: one NIfTI file or one folder with one series, as a case."""

from pathlib import Path

from bedside.core.case import Case
from bedside.core.errors import InputRejected, UsageError
from bedside.formats.dicom import read_folder
from bedside.formats.found import Found
from bedside.formats.nifti import read_nifti


def read(path: str | Path) -> Case:
    """Read one image.

    Args:
        path: a NIfTI file, or a folder in which exactly one CT or MR series is sound.

    Returns:
        A case with the role "image". Its id is the start of the received bytes' SHA-256: nothing in it comes from a header.

    Raises:
        UsageError: nothing is there, or the folder holds several series.
        InputRejected: the bytes were refused; the code names the rule.
    """
    place = Path(path)
    if place.is_dir():
        found = _one_series(place)
    elif place.is_file():
        found = read_nifti(place)
    else:
        raise UsageError("There is no file or folder at the path to read.", code="NO_INPUT")
    name = found.source[:16]
    return Case(id=name, patient=name, volumes={"image": found.volume}, scanner=found.scanner)


def _one_series(folder: Path) -> Found:
    """The only series of a folder; a refused one is named."""
    reading = read_folder(folder)
    if len(reading.found) > 1:
        raise UsageError(f"The folder holds {len(reading.found)} series; give a folder with one.", code="SEVERAL_SERIES")
    if reading.found:
        return reading.found[0]
    if not reading.refused:
        raise UsageError("The folder holds no files.", code="NO_INPUT")
    worst = max(reading.refused, key=lambda refused: (refused.code.startswith("SERIES"), len(refused.files)))
    raise InputRejected(worst.sentence, code=worst.code)
