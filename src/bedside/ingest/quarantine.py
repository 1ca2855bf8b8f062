"""Received bytes that were refused: kept under the name of their content, with the reason, and nothing from outside in either."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bedside.core.digest import canonical_json, digest_json
from bedside.core.errors import IntegrityError, disk_errors
from bedside.core.files import is_plain, sync_files, sync_folder
from bedside.core.record import Record
from bedside.core.sealing import SUFFIX, cipher, unsealed
from bedside.formats.found import Refused

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

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
    """The quarantine folder of a study; made with the first refusal.

    Attributes:
        folder: holds the index, and the received bytes under their digests.
        seal: encrypt the bytes; the index holds nothing that needs it.
    """

    folder: Path
    seal: bool = False

    @property
    def index(self) -> Path:
        """One JSON line per refusal."""
        return self.folder / "index.jsonl"

    def refusals(self) -> tuple[Refusal, ...]:
        """Every refusal that was written down, oldest first; a line that a crash cut short is left out."""
        lines = self.index.read_bytes().split(b"\n")[:-1] if self.index.exists() else []
        return tuple(refusal for refusal in map(_parsed, lines) if refusal is not None)

    def read(self, digest: str) -> bytes:
        """Return received bytes that were refused, for a person who is to look at them.

        Raises:
            IntegrityError: they are not here, or not those that were received.
        """
        sealed = self.folder / f"{digest}{SUFFIX}"
        plain = self.folder / digest
        if not (sealed.is_file() or plain.is_file()):
            raise IntegrityError("The refused bytes of that digest are not in quarantine.", code="MISSING")
        data = bytes(unsealed(sealed)) if sealed.is_file() else plain.read_bytes()
        if sha256(data).hexdigest() != digest:
            raise IntegrityError("Refused bytes in quarantine have changed since they were received.", code="CHANGED")
        return data

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
            sync_files({self.folder / f"{name}{SUFFIX if self.seal else ''}" for names in kept for name in names})
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
                for piece in self._outer(_counted(_chunks(path), total)):
                    stream.write(piece)
            temporary.chmod(stat.S_IRUSR | stat.S_IRGRP)
            plain = self.folder / total.hexdigest()
            temporary.replace(plain.with_name(f"{plain.name}{SUFFIX}") if self.seal else plain)
            if self.seal:
                plain.unlink(missing_ok=True)  # of an ingest before encryption was switched on
        finally:
            temporary.unlink(missing_ok=True)
        return total.hexdigest()

    def _outer(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """What is written: the bytes, or their sealed form with a salt of its own, since they are read only once."""
        return cipher().seal(chunks, content=token_hex(32)) if self.seal else chunks

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


def _counted(chunks: Iterator[bytes], total: "Hash") -> Iterator[bytes]:
    for chunk in chunks:
        total.update(chunk)
        yield chunk


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
