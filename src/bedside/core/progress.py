"""How steps tell the outside how far they are, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """A listener; the command line draws bars with it, programs pass `SILENT`."""

    def start(self, what: str, total: float | None) -> None:
        """A piece of work begins; `total` in units of the caller, None when unknown."""
        ...

    def advance(self, done: float, note: str = "") -> None:
        """`done` units of the present piece are finished in all."""
        ...


class Silent:
    """Says nothing."""

    def start(self, what: str, total: float | None) -> None:
        """Say nothing."""

    def advance(self, done: float, note: str = "") -> None:
        """Say nothing."""


SILENT = Silent()
