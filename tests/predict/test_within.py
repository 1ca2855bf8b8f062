"""Claims about the progress of a prediction: one bar over all series that never runs back."""

from bedside.predict.within import WithinSeries


class Bar:
    def __init__(self):
        self.total, self.places, self.notes = 0.0, [], []

    def start(self, what, total):
        self.total = total

    def advance(self, done, note=""):
        self.places.append(done)
        self.notes.append(note)


def test_windows_fill_the_bar_between_two_series_and_are_named():
    bar = Bar()
    within = WithinSeries(bar)
    within.begin(2)
    for number in (1, 2):
        within.start("windows", 3.0)
        for window in (1, 2, 3):
            within.advance(float(window), f"window {window} of 3")
        within.finished(number, f"series {number}")
    assert bar.total == 2
    assert bar.places == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert bar.notes[:4] == ["window 1 of 3", "window 2 of 3", "window 3 of 3", "series 1"]


def test_a_refused_series_moves_the_bar_like_any_other():
    bar = Bar()
    within = WithinSeries(bar)
    within.begin(2)
    within.finished(1, "refused")
    within.start("windows", 1.0)
    within.advance(1.0)
    assert bar.places == [1.0, 1.5]
