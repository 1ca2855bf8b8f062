"""What the header pass saw of a whole received folder."""

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
from bedside.formats.header_pass import Seen, header_pass
from bedside.ingest.discover import Discovery


@dataclass(frozen=True)
class Survey:
    """The pass over a whole folder.

    Attributes:
        looks: of every file that is no NIfTI, in the order of their names.
        niftis: path to volume or refusal, masks included.
        digests: path to SHA-256 of every file, "" for what is never opened.
    """

    looks: tuple[Look, ...] = field(repr=False)
    niftis: Mapping[Path, Found | Refused] = field(repr=False)
    digests: Mapping[Path, str] = field(repr=False)


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
    waiting = [*discovery.images.values(), *(path for paths in discovery.masks.values() for path in paths)]
    digests = dict.fromkeys(discovery.files.values(), "")
    looks: list[Look] = []
    niftis: dict[Path, Found | Refused] = {}
    everything: dict[int, Seen] = dict(header_pass(waiting, executor, identity, pixels=pixels, progress=progress))
    for number in range(len(waiting)):
        seen = everything[number]
        digests[seen.path] = seen.digest
        if isinstance(seen.content, Look):
            looks.append(seen.content)
        else:
            niftis[seen.path] = seen.content
    return Survey(tuple(looks), niftis, digests)
