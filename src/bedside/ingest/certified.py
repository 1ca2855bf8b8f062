"""Whether received files are what a de-identification wrote: then the dataset names its certificate."""

from collections.abc import Collection, Sequence

from bedside.core.errors import IntegrityError
from bedside.core.workspace import Workspace, read_json

_FILES = "files.json"


def certificate_of(workspace: Workspace, known: Sequence[str], received: Collection[str]) -> str:
    """Digest of the newest certificate that covers every one of these files, or "".

    Args:
        workspace: the study folder.
        known: digests of the certificates in its ledger, oldest first.
        received: SHA-256 of each file that is no mask; "" of one that could not be read, which no certificate covers.

    Raises:
        IntegrityError: a certificate of the store has changed.
    """
    files = set(received)
    for digest in dict.fromkeys(reversed(known)):
        if files and (workspace.store / digest).is_dir() and files <= _written(workspace, digest):
            return digest
    return ""


def _written(workspace: Workspace, digest: str) -> set[str]:
    """SHA-256 of every file that was written without identity, from the table of received to written."""
    table = read_json(workspace.get(digest) / _FILES)
    if not isinstance(table, dict):
        raise IntegrityError(f"{digest[:12]} is not a certificate: its table of files does not fit.", code="NOT_A_CERTIFICATE")
    return {str(name) for name in table.values()}
