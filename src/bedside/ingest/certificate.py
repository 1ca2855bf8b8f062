"""What a de-identification leaves behind as proof: what was asked and done, and that nothing known of a patient is left."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bedside.core.deidentification import Deidentification
from bedside.core.digest import canonical_json
from bedside.core.files import write_atomic
from bedside.core.record import Record
from bedside.core.workspace import Workspace
from bedside.formats.deidentify import Done

FORMAT = "bedside-deidentification/1"
_CERTIFICATE, _FILES = "certificate.json", "files.json"


class Certificate(Record):
    """One de-identified folder. Who ran it and when stands in the ledger event that names this value.

    Attributes:
        format: of this record.
        tool: name and version.
        profile: edition of the table that was applied.
        options: of the study; mask rules, released files and the reason of a waiver among them.
        codes: written into the files (PS3.16 CID 7050), all that occur.
        key_id: which key made the pseudonyms; it says nothing of the key.
        received, written, duplicates: numbers of files; received = written + rejected + duplicates.
        rejected: code to number of files, in quarantine.
        patients, studies, series: among the written files.
        masked: files in whose pixels boxes were blanked.
        faces_waived: files with a recognisable face that were written because of the waiver.
        searched: how often a string of a received file was looked for in the bytes written for it; no search found one, because
            a file in which one is found is not written (PHI_RESIDUAL).
        actions: what was done to which attribute, and how often.
        files: SHA-256 of the table of received to written files, which lies beside this record.
    """

    format: str = FORMAT
    tool: str
    profile: str
    options: Deidentification
    codes: tuple[str, ...]
    key_id: str
    received: int
    written: int
    rejected: dict[str, int]
    duplicates: int
    patients: int
    studies: int
    series: int
    masked: int
    faces_waived: int
    searched: int
    actions: tuple[Done, ...]
    files: str


class Plan(Record):
    """What would be done to a folder, without any value of it.

    Attributes:
        received, would_write, duplicates: numbers of files.
        would_reject: code to number of files.
        actions: what would be done to which attribute, by which rule, and how often.
    """

    received: int
    would_write: int
    would_reject: dict[str, int]
    duplicates: int
    actions: tuple[Done, ...]


class Actions:
    """Counts of what was done, over any number of files."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[str, str, str, str]]()

    def add(self, actions: Iterable[Done]) -> None:
        """Count those of one file."""
        for one in actions:
            self._counts[one.tag, one.keyword, one.what, one.because] += one.count

    def listed(self) -> tuple[Done, ...]:
        """All counts, sorted by tag."""
        return tuple(
            Done(tag=tag, keyword=keyword, what=what, because=because, count=count)
            for (tag, keyword, what, because), count in sorted(self._counts.items())
        )


def store(workspace: Workspace, certificate: Certificate, files: dict[str, str]) -> str:
    """Put the certificate and its table of files (received to written SHA-256) into the store; return its digest."""
    with workspace.staging() as folder:
        write_atomic(folder / _FILES, canonical_json(files), doing="writing a certificate")
        write_atomic(folder / _CERTIFICATE, canonical_json(certificate.model_dump(mode="json")), doing="writing a certificate")
        return workspace.put(folder)


def load(workspace: Workspace, digest: str) -> Certificate:
    """Read a certificate after its bytes were hashed again."""
    path: Path = workspace.get(digest) / _CERTIFICATE
    return Certificate.model_validate_json(path.read_bytes())
