"""Received bytes that were refused: kept under the name of their content, with the reason, and nothing from outside in either."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from bedside.core.digest import canonical_json, digest_json
from bedside.core.errors import disk_errors
from bedside.core.files import sync_files, sync_folder
from bedside.core.record import Record
from bedside.formats.found import Refused
from bedside.ingest.discover import is_plain

_CHUNK_BYTES = 1 << 20
_UNFINISHED = ".receiving-"


class Refusal(Record):
    """One line of `quarantine/index.jsonl`.

    Attributes:
        received: SHA-256 of the refused bytes; of several files that of their sorted digests.
        code: name of the rule.
        sentence: what was found, what was expected.
        files: SHA-256 of each file; the bytes lie beside the index under that name.
    """

    received: str
    code: str
    sentence: str
    files: tuple[str, ...]


def received_digest(files: tuple[str, ...]) -> str:
    """One digest for what was received: that of the only file, or that of the sorted digests of several."""
    return files[0] if len(files) == 1 else digest_json(sorted(files))


@dataclass(frozen=True)
class Quarantine:
    """The quarantine folder of a study; made with the first refusal."""

    folder: Path

    @property
    def index(self) -> Path:
        """One JSON line per refusal."""
        return self.folder / "index.jsonl"

    def refusals(self) -> tuple[Refusal, ...]:
        """Every refusal that was written down, oldest first; a line that a crash cut short is left out."""
        lines = self.index.read_bytes().split(b"\n")[:-1] if self.index.exists() else []
        return tuple(refusal for refusal in map(_parsed, lines) if refusal is not None)

    def tidy(self) -> None:
        """Remove copies that a kill left unfinished; call it only while no other process receives."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            path.unlink()

    def admit(self, refused: Refused) -> Refusal:
        """Keep the bytes, then write the reason down; repeating it changes nothing.

        Raises:
            ResourceError: the disk is full.
        """
        return self.admit_all([refused])[0]

    def admit_all(self, refused: Sequence[Refused]) -> tuple[Refusal, ...]:
        """Do the same for many at once, with few waits for the disk: all the bytes, then all the reasons."""
        if not refused:
            return ()
        with disk_errors("putting refused files into quarantine"):
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = [tuple(self._keep(path) for path in one.files) for one in refused]
            sync_files({self.folder / name for names in kept for name in names})
            sync_folder(self.folder)
        refusals = tuple(
            Refusal(received=received_digest(digests), code=one.code, sentence=one.sentence, files=digests)
            for one, digests in zip(refused, kept, strict=True)
        )
        self._note([canonical_json(refusal.model_dump(mode="json")) + b"\n" for refusal in refusals])
        return refusals

    def _keep(self, path: Path) -> str:
        """Copy one file to its content name, read-only, and return the name."""
        total = sha256()
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=_UNFINISHED)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for chunk in _chunks(path):
                    total.update(chunk)
                    stream.write(chunk)
            temporary.chmod(stat.S_IRUSR | stat.S_IRGRP)
            temporary.replace(self.folder / total.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
        return total.hexdigest()

    def _note(self, lines: Sequence[bytes]) -> None:
        """Append the lines that are not there already."""
        with disk_errors("writing the quarantine's index"), self.index.open("a+b") as stream:
            stream.seek(0)
            data = stream.read()
            whole = data[: data.rfind(b"\n") + 1]
            stream.truncate(len(whole))  # a line that a crash cut short was never acknowledged
            known = set(whole.splitlines(keepends=True))
            new = [line for line in dict.fromkeys(lines) if line not in known]
            if not new:
                return
            try:
                stream.write(b"".join(new))
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(self.index, len(whole))
                raise


def _parsed(line: bytes) -> Refusal | None:
    try:
        return Refusal.model_validate_json(line)
    except ValidationError:
        return None


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield what can be read of a file; a link, pipe or device is never opened, an unreadable rest is left out."""
    if not is_plain(path):
        return
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except OSError:
        return
