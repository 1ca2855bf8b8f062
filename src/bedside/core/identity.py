"""Names from outside become names that are safe to write down: kept when harmless, keyed hashes of them otherwise."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bedside.core.errors import UsageError

KEY_VARIABLE = "BEDSIDE_KEY"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """How patients and cases are called in a dataset.

    Attributes:
        mode: "pseudonym" hides every name behind HMAC-SHA256; "keep" keeps names that match the dataset's pattern, for data
            without persons behind it, and hashes the others.
        key: of the HMAC; empty when names are kept.
    """

    mode: Literal["pseudonym", "keep"]
    key: bytes = b""

    @classmethod
    def of(cls, mode: Literal["pseudonym", "keep"], environment: Mapping[str, str] | None = None) -> "Identity":
        """Take the key from the environment.

        Raises:
            UsageError: pseudonyms are asked for and there is no key.
        """
        if mode == "keep":
            return cls(mode)
        key = (os.environ if environment is None else environment).get(KEY_VARIABLE, "").strip()
        if not key:
            raise UsageError(
                f"Pseudonyms need a secret in the environment variable {KEY_VARIABLE} (32 random characters; the same secret"
                " gives the same pseudonyms); for data without persons behind it set source.identity: keep.",
                code="NO_KEY",
            )
        return cls(mode, _bytes(key))

    def patient(self, received: str) -> str:
        """The name under which a patient is known; equal ids give equal names."""
        return self._named("P", _bytes(received), received)

    def case(self, received: str) -> str:
        """The name of a case, from its relative name below the images folder."""
        return self._named("C", b"case\0" + _bytes(received), received)

    def hidden(self, received: str) -> str:
        """A stand-in for any name in something that is hashed; with pseudonyms nobody without the key can try names out."""
        message = b"name\0" + _bytes(received)
        return hashlib.sha256(message).hexdigest() if self.mode == "keep" else self._keyed(message)

    def _named(self, prefix: str, message: bytes, received: str) -> str:
        if self.mode == "pseudonym":
            return prefix + self._keyed(message)[:_DIGITS]
        return received if _SAFE.match(received) else prefix + hashlib.sha256(message).hexdigest()[:_DIGITS]

    def _keyed(self, message: bytes) -> str:
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    """Bytes of any text, also of a file name that is not UTF-8."""
    return text.encode("utf-8", "surrogatepass")
