"""Files that are encrypted at rest, seen from core: a suffix, a protocol, and the name of what opens them.

Core knows no encryption library: what seals and opens is named as text and imported when first needed, as the registry does.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

SUFFIX = ".sealed"
_VAULT = "bedside.adapters.vault"


class Cipher(Protocol):
    """Seals and opens bytes under one key that comes from the environment."""

    @property
    def key_id(self) -> bytes:
        """A few bytes that tell keys apart and say nothing of them."""
        ...

    def seal(self, pieces: Iterable[bytes | memoryview], *, content: str) -> Iterator[bytes]:
        """Yield the sealed form of bytes whose SHA-256 is `content`; equal bytes have equal sealed forms under one key."""
        ...

    def open(self, sealed: bytes | memoryview) -> bytearray:
        """Return the bytes that were sealed, or raise what says why not."""
        ...


class _Vaults(Protocol):
    """What the module behind `_VAULT` offers."""

    def from_environment(self) -> Cipher:
        """Take the key from the environment."""
        ...


def cipher() -> Cipher:
    """Return what seals and opens with the key in the environment.

    Raises:
        UsageError: there is no key, or it is too short (NO_STORE_KEY).
    """
    return _vaults().from_environment()


@cache
def _vaults() -> _Vaults:
    return cast("_Vaults", import_module(_VAULT).Vault)


def is_sealed(name: str) -> bool:
    """Whether a file of this name is encrypted."""
    return name.endswith(SUFFIX)


def unsealed(path: Path) -> bytearray:
    """Read and open a sealed file.

    Raises:
        UsageError: there is no key in the environment (NO_STORE_KEY).
        UnsafeArtefact: the file was sealed with another key (WRONG_STORE_KEY).
        IntegrityError: it was changed or cut since (SEAL_BROKEN).
    """
    return cipher().open(path.read_bytes())
