"""SHA-256 of bytes, files, folders and values. Every value on disk is known by one of these."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

from bedside.core.errors import IntegrityError

_CHUNK_BYTES = 1 << 20
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_SIMPLE = frozenset({str, int, bool, type(None)})


def canonical_json(value: object) -> bytes:
    """Encode `value` as JSON with sorted keys, no spaces, UTF-8. NaN and infinities become strings: JSON has none."""
    return _ENCODER.encode(_finite(value)).encode()


def _finite(value: object) -> object:
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict) or (not isinstance(value, str | int | list | tuple) and isinstance(value, Mapping)):
        return {str(key): item if type(item) in _SIMPLE else _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _SIMPLE else _finite(item) for item in value]
    return value


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, read in chunks."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest()


def file_table(folder: Path, *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Map every file below `folder` (relative POSIX path) to its SHA-256; a symbolic link is refused.

    Args:
        folder: looked through to the bottom.
        known: digests of files that need not be read.
    """
    known = known or {}
    table: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise IntegrityError("A stored folder holds a symbolic link, which could point outside it.", code="STORE_LINK")
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            table[name] = known.get(name) or digest_file(path)
    return table


def digest_tree(folder: Path) -> str:
    """Return one SHA-256 for a folder: that of the canonical table of its files. Times and permissions do not count."""
    return digest_json(file_table(folder))
