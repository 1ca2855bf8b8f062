"""Single values: dates, ages, descriptions, and the search for what is known."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier
from bedside.formats.deidentify_known import Known
from bedside.formats.deidentify_values import capped_age, cleaned, shifted_date, shifted_moment, sound_time

from .identified import decoded, encoded, person

DAYS = st.dates(min_value=date(1900, 1, 1), max_value=date(2100, 1, 1))


@given(DAYS, DAYS, st.integers(-3652, -1))
def test_intervals_between_dates_are_kept_to_the_day(first: date, second: date, days: int) -> None:
    moved = [shifted_date(one.strftime("%Y%m%d"), days) for one in (first, second)]
    later = [date(int(m[:4]), int(m[4:6]), int(m[6:])) for m in moved]
    assert later[1] - later[0] == second - first
    assert later[0] == first + timedelta(days=days)


@given(DAYS, st.sampled_from(["", "10", "1030", "103059", "103059.123456", "103059+0100"]))
def test_a_moment_keeps_its_time_of_day(day: date, tail: str) -> None:
    moved = shifted_moment(day.strftime("%Y%m%d") + tail, -30)
    assert moved == (day - timedelta(days=30)).strftime("%Y%m%d") + tail


@pytest.mark.parametrize("wrong", ["1970", "197001", "19700231", "SMITH", "00010101", "20200101-20200202", "2020/01/01"])
def test_what_is_no_date_known_to_the_day_does_not_stay(wrong: str) -> None:
    assert shifted_date(wrong, -400) == ""
    assert shifted_moment(wrong, -400) == ""


@pytest.mark.parametrize(
    ("age", "becomes"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("999M", "999M"), ("012W", "012W"), ("45", ""), ("SMITH", "")],
)
def test_ages_of_ninety_and_more_are_one_group(age: str, becomes: str) -> None:
    assert capped_age(age) == becomes


@pytest.mark.parametrize("time", ["10", "1030", "103059", "103059.1"])
def test_a_time_stays(time: str) -> None:
    assert sound_time(time) == time


@pytest.mark.parametrize("time", ["25", "SMITH", "10:30", "103059 SMITH"])
def test_what_is_no_time_does_not(time: str) -> None:
    assert sound_time(time) == ""


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("CT HEAD W/O CONTRAST", "CT HEAD W O CONTRAST"),
        ("Abdomen John Smith 5.0 mm", "Abdomen 5 0 mm"),
        ("Dr. Miller 1970", ""),
        ("", ""),
    ],
)
def test_only_words_of_the_vocabulary_stay_in_a_description(text: str, becomes: str) -> None:
    kept = cleaned(text)
    assert set(kept.split()) <= set(becomes.split()) | {"W", "O"}
    assert ("CONTRAST" in kept) == ("CONTRAST" in text)
    assert not {"John", "Smith", "Miller", "1970"} & set(kept.split())


def test_a_name_is_found_as_a_word_and_not_inside_another() -> None:
    known = Known.of(["LEE^Ann"], ["AB1234", "19700131"], ["1.2.3.4.5.6.7.8.9"])
    assert known.in_text("seen by lee today")
    assert known.in_text("id AB1234.")
    assert known.in_text("see 1.2.3.4.5.6.7.8.9")
    assert not known.in_text("FLEET 5B1234")
    assert "LEE" not in repr(known)
    assert "lee" not in repr(known)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Müller", "MÜLLER", "müller"])
def test_written_bytes_are_searched_in_many_encodings(encoding: str, text: str) -> None:
    known = Known.of(["Müller^Jörg"], [], [])
    assert known.in_bytes(b"\0\0" + text.encode(encoding) + b"\0\0", b"")


def test_short_strings_are_not_looked_for_in_pixels_where_they_stand_by_chance() -> None:
    known = Known.of(["LEE^BARTHOLOMEW"], [], [])
    assert not known.in_bytes(b"", b"..lee..LEE..")
    assert known.in_bytes(b"", b"xxBARTHOLOMEWxx")


def test_words_that_objects_hold_by_nature_are_not_looked_for() -> None:
    assert len(Known.of(["ORIGINAL^AXIAL", "Head"], [], [])) == 0


def test_a_uid_is_found_by_itself_only() -> None:
    known = Known.of([], [], ["1.2.3.4.5.6.7.8"])
    assert known.in_bytes(b"\0" + b"1.2.3.4.5.6.7.8\0", b"")
    assert not known.in_bytes(b"\0" + b"1.2.3.4.5.6.7.8.9", b"")
    assert not known.in_bytes(b"1.1.2.3.4.5.6.7.8\0", b"")


@pytest.mark.parametrize(
    ("keyword", "words", "remark"),
    [
        ("PatientSex", ("M", "F", "O"), "SISTER OF ANNE"),
        ("SmokingStatus", ("YES", "NO", "UNKNOWN"), "SINCE THE WAR"),
        ("PatientSexNeutered", ("ALTERED", "UNALTERED"), "BY DR MEIER"),
    ],
)
def test_characteristics_of_fixed_words_hold_no_others(keyword: str, words: tuple[str, ...], remark: str) -> None:
    data, engine = person(), Deidentifier(Identity("pseudonym", b"a secret of this test"))
    for word in words:
        setattr(data, keyword, word)
        assert decoded(engine.file(encoded(data)).data).get(keyword) == word
    setattr(data, keyword, remark)
    assert decoded(engine.file(encoded(data)).data).get(keyword, "") == ""
