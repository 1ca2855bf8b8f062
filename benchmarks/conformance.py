"""Whether de-identification breaks objects: what a validator of DICOM's modules says of files before and after, and of masks.

python benchmarks/conformance.py --from PATH --from PATH --results benchmarks/results/conformance.md

The validator is `dciodvfy` of David Clunie's dicom3tools (Debian: dicom3tools). Files: every DICOM file below each PATH, the test
files that come with pydicom (reports, plans, doses, waveforms, colour, ...) and invented studies; each is de-identified with four
sets of options. An error is new when the validator reports it of the written file and did not, at the same place, of the received
one. Files with errors before are not left out: those errors stay.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.deidentification import KEY
from tests.formats.segmented import KINDS, MAKER, NAMES, a_mask, affine_of, rotation, series
from tests.formats.validator import ValidatorDied, bundled_files, errors_in, errors_of

from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier
from bedside.formats.identity_studies import OPTIONS, write_studies
from bedside.formats.seg import write_seg

ASKED = {
    "as the study's defaults": Deidentification(),
    "nothing kept": Deidentification(dates="remove", patient_characteristics=False),
    "descriptions cleaned, boxes masked": OPTIONS,
    "everything kept that may be": Deidentification(
        dates="keep", device=True, institution=True, descriptors=True, safe_private=True
    ),
}
UNKNOWN = "Information Object Not found"


@dataclass
class Found:
    """What became of the files of one folder under one set of options.

    Attributes:
        written: files; refused: files by the reason.
        died: of those written, files on whose received form the validator ends by a signal, so nothing is known.
        known: of those written, files whose kind of object the validator knows, so that its modules are checked.
        sound: of those written, files without any error before.
        broken: files with an error that was not there before.
        errors: those errors, and in how many files.
    """

    written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    died: int = 0
    known: int = 0
    sound: int = 0
    broken: int = 0
    errors: Counter[str] = field(default_factory=Counter)


def examined(files: list[Path], options: Deidentification, out: Path) -> Found:
    """De-identify each file, pixels as if a person had released them, and compare what the validator says."""
    engine = Deidentifier(Identity("pseudonym", KEY.encode()), options)
    found = Found()
    for path in files:
        received = path.read_bytes()
        try:
            written = engine.file(received).data
        except InputRejected as refusal:
            found.refused[refusal.code] += 1
            continue
        found.written += 1
        try:
            before = errors_in(received, out)
        except ValidatorDied:
            found.died += 1
            continue
        after = errors_in(written, out)
        found.known += not any(UNKNOWN in error for error in before)
        found.sound += not before
        found.broken += bool(after - before)
        found.errors.update(after - before)
    return found


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files below a folder, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size > 132:
            with path.open("rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    yield path


def corpora(folders: list[Path], scratch: Path) -> dict[str, list[Path]]:
    """Files by where they come from."""
    answers = write_studies(scratch / "studies", patients=2)
    return {
        **{folder.name: list(dicom_files(folder)) for folder in folders},
        f"pydicom {version('pydicom')}": bundled_files(),
        "invented studies": [answer.path for answer in answers],
    }


def segmentations(scratch: Path) -> dict[str, frozenset[str]]:
    """What the validator says of masks that are written here, by kind."""
    found = series(scratch / "series", affine_of(rotation(37.0, np.array((1, 2, 3)))))
    mask = a_mask(found.volume.shape[1:])
    errors = {}
    for kind in KINDS:
        write_seg(scratch / "mask.dcm", mask, found, structures=NAMES, maker=MAKER, kind=kind)
        errors[kind] = errors_of(scratch / "mask.dcm")
    return errors


def page(folders: list[Path]) -> str:
    """The whole measurement."""
    lines, listed = [], []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for corpus, files in corpora(folders, scratch).items():
            for options, chosen in ASKED.items():
                found = examined(files, chosen, scratch / "file.dcm")
                refused = ", ".join(f"{count} {code}" for code, count in sorted(found.refused.items())) or "none"
                cells = (corpus, options, found.written, refused, found.known, found.sound, found.died, found.broken)
                lines.append(f"| {' | '.join(map(str, cells))} |")
                listed += [f"- {corpus}, {options}, {count} files: {error}" for error, count in sorted(found.errors.items())]
        masks = segmentations(scratch)
    said = [f"- {kind}: {'; '.join(sorted(errors)) or 'no error'}" for kind, errors in masks.items()]
    head = "| files | options | written | refused | kind known | without error before | validator died | with a new error |"
    return "\n".join(
        [
            "# Conformance after de-identification",
            "",
            f"`python benchmarks/conformance.py{' --from PATH' * len(folders)}`: `dciodvfy` of dicom3tools {debian()}, CPython",
            f"{platform.python_version()}. An error is new when the validator did not report it of the received file there.",
            "",
            head,
            "|---|---|---|---|---|---|---|---|",
            *lines,
            "",
            "New errors:" if listed else "New errors: none.",
            *listed,
            "",
            "Masks written here, of an oblique series (label maps are of 2024, and the validator does not know them yet):",
            *said,
            "",
        ]
    )


def debian() -> str:
    """The version of Debian's package."""
    asked = ["dpkg-query", "--show", "--showformat=${Version}", "dicom3tools"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from", dest="folders", metavar="PATH", type=Path, action="append", default=[], help="folder of DICOM files"
    )
    parser.add_argument("--results", type=Path, help="file to write the page to")
    asked = parser.parse_args()
    text = page(asked.folders)
    print(text)
    if asked.results is not None:
        asked.results.write_text(text)


if __name__ == "__main__":
    main()
