"""What the header pass saw of a whole received folder."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bedside.core.deidentification import Deidentification
from bedside.core.identity import Identity
from bedside.core.ports import Executor
from bedside.core.progress import SILENT, Progress
from bedside.formats.dicom import Look
from bedside.formats.dicom_header import NOTHING_DECIDED
from bedside.formats.found import Found, Refused
from bedside.formats.header_pass import header_pass
from bedside.ingest.discover import Discovery
from bedside.ingest.looks import Looks
from bedside.ingest.names import Files, Paths

_BYTES = 32
"""Of a digest."""


@dataclass(frozen=True)
class Survey:
    """The pass over a whole folder.

    Attributes:
        looks: of every file that is no NIfTI.
        niftis: path to volume or refusal, masks included, in the order of their names.
        files: all received files.
        digests: SHA-256 of each, 32 bytes under its number, zeros for what is never opened.
    """

    looks: Looks = field(repr=False)
    niftis: Mapping[Path, Found | Refused] = field(repr=False)
    files: Files = field(repr=False)
    digests: bytearray = field(repr=False)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, "" for what is never opened or could not be read."""
        return self.digest_of(self.files.number(path))

    def digest_of(self, number: int) -> str:
        """The same of the file under a number."""
        found = self.digests[_BYTES * number : _BYTES * (number + 1)]
        return found.hex() if any(found) else ""


def survey(
    discovery: Discovery,
    executor: Executor,
    identity: Identity,
    *,
    pixels: Deidentification = NOTHING_DECIDED,
    progress: Progress = SILENT,
) -> Survey:
    """Look at every file that may be opened, in workers; a file whose worker was lost is refused by name.

    Args:
        discovery: the received files.
        executor: does the reading.
        identity: makes stand-ins for names in headers that are worth keeping as such.
        pixels: the study's mask rules, and its releases of files whose pixels may carry names.
        progress: advances with the files, and notes how many per second.
    """
    files = discovery.files
    waiting = array("I", map(files.number, discovery.images.values()))
    waiting.extend(files.number(path) for paths in discovery.masks.values() for path in paths)
    digests = bytearray(_BYTES * len(files))
    looks = Looks(files, digests)
    niftis: dict[int, Found | Refused] = {}
    for place, seen in header_pass(Paths(files, waiting), executor, identity, pixels=pixels, alike=False, progress=progress):
        number = waiting[place]
        digests[_BYTES * number : _BYTES * (number + 1)] = bytes.fromhex(seen.digest) or bytes(_BYTES)
        if isinstance(seen.content, Look):
            looks.add(number, seen.content)
        else:
            niftis[number] = seen.content
    return Survey(looks, {files.path(number): niftis[number] for number in sorted(niftis)}, files, digests)
