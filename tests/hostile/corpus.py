"""More than 500 malformed files, each with a name, by family: what is wrong with it, and what must become of it."""

import functools
from dataclasses import dataclass
from pathlib import Path

from .dicom_bytes import EXPLICIT, ct_slice

MUTANT = "m.dcm"
REFUSED, SOUND, EITHER = "refused", "sound", "either"


@dataclass(frozen=True)
class Specimen:
    """One malformed file (or folder) and what must become of it.

    Attributes:
        family: what kind of lie it is; "D1 ..." names the row of the threat list.
        name: of the lie.
        files: name to bytes of everything in its folder; the mutant is the one in `mutant`.
        expect: "refused", "sound" (odd but harmless: it must be accepted), or "either" (no exception, no cost).
        codes: of which at least one must be given, when not empty.
        mutant: name of the file that is malformed.
    """

    family: str
    name: str
    files: tuple[tuple[str, bytes], ...]
    expect: str = REFUSED
    codes: tuple[str, ...] = ()
    mutant: str = MUTANT

    @property
    def label(self):
        return f"{self.family}: {self.name}"

    def write(self, folder):
        """Lay the files down."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, data in self.files:
            (Path(folder) / name).write_bytes(data)


def among(family, name, data, *, syntax=EXPLICIT, **kwargs):
    """A malformed second slice between two sound ones of the same series."""
    files = (("a.dcm", ct_slice(0, syntax=syntax).bytes()), (MUTANT, data), ("c.dcm", ct_slice(2, syntax=syntax).bytes()))
    return Specimen(family, name, files, **kwargs)


def alone(family, name, data, *, mutant=MUTANT, **kwargs):
    """A malformed file by itself."""
    return Specimen(family, name, ((mutant, data),), mutant=mutant, **kwargs)


def nifti(family, name, data, *, suffix=".nii", **kwargs):
    """A malformed NIfTI file."""
    return alone(family, name, data, mutant=f"m{suffix}", **kwargs)


@functools.cache
def corpus():
    """Every specimen, in a fixed order."""
    from . import corpus_names, corpus_nifti, corpus_streams, corpus_structure, corpus_values

    modules = (corpus_structure, corpus_values, corpus_streams, corpus_nifti, corpus_names)
    return tuple(specimen for module in modules for family in module.FAMILIES for specimen in family())
