"""A listener for steps that tell how far they are."""

from bedside.core.progress import Live


class Heard:
    """`core.progress.Progress` that keeps what it is told, in order: (what, total), then (done, note)."""

    def __init__(self) -> None:
        self.said: list[tuple[object, object]] = []

    def start(self, what: str, total: float | None) -> None:
        self.said.append((what, total))

    def advance(self, done: float, note: str | Live = "") -> None:
        self.said.append((done, note))
