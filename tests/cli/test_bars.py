"""Claims about what a terminal and a log show while work goes on."""

from io import StringIO

import pytest
from rich.console import Console

from bedside.cli import bars as module
from bedside.cli.bars import Lines, bars, drawn
from bedside.core.progress import SILENT, Live

LIVE = Live(
    training="train-0",
    minutes=1.25,
    minutes_left=5.25,
    loss=0.4321,
    score=None,
    seconds_per_step=0.5,
    data_wait_share=0.25,
    utilisation=0.78,
    threads=2,
    memory_mb=812.0,
    peak_memory_mb=901.0,
    joules=1800.0,
    measured=False,
)
NUMBERS = ("120 of 2400", "1.2, 5.2 left", "0.432", "none yet", "0.50", "25 %", "812 MB", "901 MB", "78 % of 2", "0.50 Wh")


def terminal() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=100, height=40, color_system=None)


def last_picture(found) -> str:
    console = Console(file=StringIO(), width=100, color_system=None)
    console.print(found.picture())
    return console.file.getvalue()


def test_a_terminal_shows_every_number_of_a_training_under_its_bar():
    console = terminal()
    with drawn(console) as found:
        found.start("training", 2400)
        found.advance(120, LIVE)
        said = last_picture(found)
    assert all(number in said for number in NUMBERS), said
    assert "(estimate)" in said
    assert all(number in console.file.getvalue() for number in NUMBERS)
    assert max(map(len, said.splitlines())) <= 80


def test_energy_that_was_counted_is_no_estimate_and_a_score_is_shown():
    with drawn(terminal()) as found:
        found.start("training", 2400)
        found.advance(120, Live(**{**vars(LIVE), "measured": True, "score": 0.9004}))
        said = last_picture(found)
    assert "estimate" not in said
    assert "0.900" in said


def test_the_table_goes_when_other_work_begins():
    with drawn(terminal()) as found:
        found.start("training", 2400)
        found.advance(120, LIVE)
        found.start("preparing cases", 3)
        found.advance(1, "case p1")
        said = last_picture(found)
    assert "threads busy" not in said
    assert "case p1" in said


def test_a_picture_is_drawn_over_the_one_before_and_the_screen_is_never_cleared():
    console = terminal()
    with drawn(console) as found:
        found.start("training", 2400)
        for step in range(1, 200):
            found.advance(step, LIVE)
    said = console.file.getvalue()
    assert "\x1b[2J" not in said
    assert said.count("threads busy") <= 3


def test_an_end_that_is_corrected_moves_the_bar_and_makes_no_second_one():
    with drawn(terminal()) as found:
        found.start("training", 2400)
        found.advance(120, LIVE)
        found.start("training", 1200)
        said = last_picture(found)
    assert said.count("training") == 1
    assert "120/1200" in said


def test_a_line_of_a_log_has_the_same_numbers_and_the_time_left_of_a_training_that_was_taken_up_again():
    written, now = [], iter((0.0, 0.0, 1.0, 40.0))
    lines = Lines(written.append, clock=lambda: next(now))
    lines.start("training", 2400)
    lines.advance(2300, LIVE)
    (said,) = written
    assert said.startswith("training: 2300 of 2400, 5.2 minutes left, after 1.2 minutes, loss 0.432, 0.50 s/step, data 25 %")
    assert said.endswith("threads 78 % busy, 812 MB, 0.50 Wh (estimate)\n")


@pytest.mark.parametrize(("quiet", "kind"), [(True, type(SILENT)), (False, Lines)])
def test_without_a_terminal_there_are_lines_and_for_programs_nothing(quiet, kind, capsys):
    with bars(quiet=quiet) as found:
        assert isinstance(found, kind)
        found.start("work", 2)
        found.advance(1)
    assert capsys.readouterr().err == ""
    assert module.LINE_EVERY_SECONDS > 1
