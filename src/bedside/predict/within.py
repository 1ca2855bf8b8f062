"""How far a prediction of several series is, window by window."""

from bedside.core.progress import Live, Progress


class WithinSeries:
    """Listens to the windows of one series after the other and tells them on as fractions of a series: one bar, one time left."""

    def __init__(self, progress: Progress) -> None:
        """Tell a listener that counts series."""
        self._progress, self._finished, self._windows = progress, 0.0, 1.0

    def begin(self, series: int) -> None:
        """The first of so many series is about to be predicted."""
        self._progress.start("predict", float(series))

    def finished(self, series: int, name: str) -> None:
        """So many series are done, predicted or refused."""
        self._finished = float(series)
        self._progress.advance(self._finished, name)

    def start(self, what: str, total: float | None) -> None:
        """A series' windows begin."""
        self._windows = total or 1.0

    def advance(self, done: float, note: str | Live = "") -> None:
        """So many windows of it are done; the rest of a series, its surfaces and files, is told when it is finished."""
        self._progress.advance(self._finished + done / (self._windows + 1), note)
