"""Encryption at rest: AES-256-GCM in chunks (the cryptography library); the key comes from the environment, is never stored.

A sealed file is

    magic, 8 bytes | key id, 8 bytes | salt, 16 bytes | chunks of 1 MiB plus a tag of 16 bytes each

with a key of its own, HKDF-SHA256(store key, salt), and the nonce of a chunk its number and whether it is the last (the STREAM
construction of Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015), so that no chunk can be changed, moved or left out.
The salt follows from the content by HMAC: equal content gives equal sealed bytes under one key, which is what a content-addressed
store needs, and tells whoever sees two sealed files that they are equal, nothing more.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bedside.core.errors import IntegrityError, UnsafeArtefact, UsageError

KEY_VARIABLE = "BEDSIDE_STORE_KEY"
MAGIC = b"BDSEAL1\n"
_MIN_KEY_CHARACTERS = 32
_KEY_ID_BYTES, _SALT_BYTES, _TAG_BYTES = 8, 16, 16
_HEAD_BYTES = len(MAGIC) + _KEY_ID_BYTES + _SALT_BYTES
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Vault:
    """Seals and opens bytes under one store key.

    Attributes:
        key: 32 bytes that follow from the secret.
    """

    key: bytes = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Vault":
        """Take the secret from the environment.

        Raises:
            UsageError: there is none, or it is shorter than 32 characters.
        """
        secret = (os.environ if environment is None else environment).get(KEY_VARIABLE, "").strip()
        if len(secret) < _MIN_KEY_CHARACTERS:
            raise UsageError(
                f"An encrypted store needs a secret of at least {_MIN_KEY_CHARACTERS} random characters in the environment"
                f" variable {KEY_VARIABLE}; without it nobody can read the store.",
                code="NO_STORE_KEY",
            )
        return cls(hashlib.sha256(b"bedside store key\0" + secret.encode("utf-8", "surrogatepass")).digest())

    @property
    def key_id(self) -> bytes:
        """Eight bytes that tell keys apart and say nothing of them."""
        return hmac.new(self.key, b"key id", hashlib.sha256).digest()[:_KEY_ID_BYTES]

    def seal(self, pieces: Iterable[bytes | memoryview], *, content: str) -> Iterator[bytes]:
        """Yield the sealed form of some bytes.

        Args:
            pieces: the bytes in any division.
            content: their SHA-256, from which the salt follows: never that of other bytes, for one salt is one key stream.
        """
        salt = hmac.new(self.key, b"salt\0" + content.encode(), hashlib.sha256).digest()[:_SALT_BYTES]
        head = MAGIC + self.key_id + salt
        yield head
        cipher = self._cipher(salt)
        number, pending = 0, bytearray()
        for piece in pieces:
            pending += piece
            while len(pending) > CHUNK_BYTES:
                yield cipher.encrypt(_nonce(number, last=False), bytes(pending[:CHUNK_BYTES]), head)
                del pending[:CHUNK_BYTES]
                number += 1
        yield cipher.encrypt(_nonce(number, last=True), bytes(pending), head)

    def open(self, sealed: bytes | memoryview) -> bytearray:
        """Return the bytes that were sealed.

        Raises:
            UnsafeArtefact: they were sealed with another key (WRONG_STORE_KEY).
            IntegrityError: they are no sealed bytes, or were changed or cut since (SEAL_BROKEN).
        """
        view = memoryview(sealed)
        head = bytes(view[:_HEAD_BYTES])
        if len(view) < _HEAD_BYTES + _TAG_BYTES or not head.startswith(MAGIC):
            raise _broken()
        if not hmac.compare_digest(head[len(MAGIC) : len(MAGIC) + _KEY_ID_BYTES], self.key_id):
            raise UnsafeArtefact(
                f"The file was encrypted with another key than the one in {KEY_VARIABLE}; set the key of this store.",
                code="WRONG_STORE_KEY",
            )
        cipher = self._cipher(head[-_SALT_BYTES:])
        whole = bytearray()
        step = CHUNK_BYTES + _TAG_BYTES
        try:
            for number, at in enumerate(range(_HEAD_BYTES, len(view), step)):
                last = at + step >= len(view)
                whole += cipher.decrypt(_nonce(number, last=last), bytes(view[at : at + step]), head)
        except InvalidTag:
            raise _broken() from None
        return whole

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), length=32, salt=salt, info=b"bedside sealed file").derive(self.key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11) + (b"\1" if last else b"\0")


def _broken() -> IntegrityError:
    return IntegrityError(
        "An encrypted file was changed or cut since it was sealed; restore it (dvc checkout).", code="SEAL_BROKEN"
    )
