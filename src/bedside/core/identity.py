"""Names from outside become names that are safe to write down: kept when harmless, keyed hashes of them otherwise."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bedside.core.errors import UsageError

KEY_VARIABLE = "BEDSIDE_KEY"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_DIGITS = 16
_SHORTEST_KEY = 16
_UID_ROOT = "2.25."
_LONGEST_SHIFT_DAYS = 3652


@dataclass(frozen=True)
class Identity:
    """How patients and cases are called in a dataset.

    Attributes:
        mode: "pseudonym" hides every name behind HMAC-SHA256; "keep" keeps names that match the dataset's pattern, for data
            without persons behind it, and hashes the others.
        key: of the HMAC; empty when names are kept.
    """

    mode: Literal["pseudonym", "keep"]
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, mode: Literal["pseudonym", "keep"], environment: Mapping[str, str] | None = None) -> "Identity":
        """Take the key from the environment.

        Raises:
            UsageError: pseudonyms are asked for and there is no key (NO_KEY), or one that could be guessed (KEY_SHORT).
        """
        if mode == "keep":
            return cls(mode)
        key = (os.environ if environment is None else environment).get(KEY_VARIABLE, "").strip()
        if not key:
            raise UsageError(
                f"Pseudonyms need a secret in the environment variable {KEY_VARIABLE} (32 random characters, as"
                " `openssl rand -hex 16` prints; the same secret gives the same pseudonyms); for data without persons behind it"
                " set source.identity: keep.",
                code="NO_KEY",
            )
        if len(key) < _SHORTEST_KEY:
            raise UsageError(
                f"The secret in {KEY_VARIABLE} has {len(key)} characters and could be guessed; use at least {_SHORTEST_KEY}"
                " random ones, and keep them: another secret gives other pseudonyms.",
                code="KEY_SHORT",
            )
        return cls(mode, _bytes(key))

    @property
    def key_id(self) -> str:
        """Eight digits that say which key was used and nothing about it; "" when names are kept."""
        return self._keyed(b"key id")[:8] if self.mode == "pseudonym" else ""

    def patient(self, received: str, issuer: str = "") -> str:
        """The name under which a patient is known; equal ids of one issuer give equal names.

        Args:
            received: PatientID.
            issuer: IssuerOfPatientID; two hospitals may use one number for two persons.
        """
        message = _bytes(received) + (b"\0issuer\0" + _bytes(issuer) if issuer else b"")
        return self._named("P", message, received if not issuer else "")

    def institution(self, received: str) -> str:
        """The name under which a hospital is known."""
        return self._named("H", b"institution\0" + _bytes(received), received)

    def uid(self, received: str) -> str:
        """The UID that stands for a received one (2.25, PS3.5 B.2): the same in every file, batch and machine with this key."""
        if self.mode == "keep":
            return received
        return _UID_ROOT + str(int(self._keyed(b"uid\0" + _bytes(received))[:31], 16) >> 2)

    def days(self, patient: str) -> int:
        """How many days (-1 to -3652) all dates of a patient are moved, from the patient's pseudonym; 0 when names are kept."""
        if self.mode == "keep":
            return 0
        return -1 - int(self._keyed(b"days\0" + _bytes(patient))[:16], 16) % _LONGEST_SHIFT_DAYS

    def seal(self, *names: str) -> str:
        """Sixteen digits that only somebody with the key can make for these names."""
        return self._keyed(b"seal\0" + b"\0".join(map(_bytes, names)))[:_DIGITS]

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
