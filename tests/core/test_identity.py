"""What the key makes: stable over versions (golden values), apart for other keys, and silent about itself."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.errors import UsageError
from bedside.core.identity import KEY_VARIABLE, Identity

ONE, OTHER = Identity("pseudonym", b"a secret of this test"), Identity("pseudonym", b"another secret of this test")


def test_the_names_that_a_key_gives_do_not_change_between_versions() -> None:
    """A changed value here would part the next batch of every project from its last: written down on 2026-11-21."""
    assert ONE.patient("Doe^Jane 1970") == "P422d30b976ecbb62"
    assert ONE.patient("4711", "Nord") == "Pbf9041e2c1d7a3ae"
    assert ONE.uid("1.2.840.113619.2.1") == "2.25.1065125173346414265253015177062971842"
    assert ONE.days("Pea1d2ff62ea47d80") == -692
    assert ONE.key_id == "c5367f1d"


@given(st.text(max_size=64), st.text(max_size=64))
def test_two_uids_stay_two_and_are_uids(first: str, second: str) -> None:
    assert (ONE.uid(first) == ONE.uid(second)) == (first == second)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d{0,38})", ONE.uid(first))
    assert ONE.uid(first) != OTHER.uid(first)


@given(st.text(max_size=64))
def test_dates_move_back_by_at_most_ten_years(patient: str) -> None:
    assert -3652 <= ONE.days(patient) <= -1
    assert ONE.days(patient) == Identity("pseudonym", b"a secret of this test").days(patient)


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_a_number_of_another_issuer_is_another_patient(number: str, issuer: str) -> None:
    assert ONE.patient(number, issuer) != ONE.patient(number)
    assert ONE.patient(number, issuer) != ONE.patient(number, issuer + "x")


def test_hospitals_and_patients_of_one_name_are_told_apart() -> None:
    assert re.fullmatch(r"H[0-9a-f]{16}", ONE.institution("Nord"))
    assert ONE.institution("Nord")[1:] != ONE.patient("Nord")[1:]


def test_a_seal_needs_the_key_and_every_name_in_its_place() -> None:
    seal = ONE.seal("P1", "1.2", "1.3")
    assert re.fullmatch("[0-9a-f]{16}", seal)
    assert seal not in {OTHER.seal("P1", "1.2", "1.3"), ONE.seal("P1", "1.3", "1.2"), ONE.seal("P1", "1.2")}


def test_kept_names_keep_uids_and_dates_too() -> None:
    keep = Identity("keep")
    assert (keep.uid("1.2.3"), keep.days("x"), keep.key_id) == ("1.2.3", 0, "")


@pytest.mark.parametrize("length", [1, 15])
def test_a_key_that_could_be_guessed_is_refused(length: int) -> None:
    with pytest.raises(UsageError, match="16 random ones") as caught:
        Identity.of("pseudonym", {KEY_VARIABLE: "k" * length})
    assert caught.value.code == "KEY_SHORT"
    assert Identity.of("pseudonym", {KEY_VARIABLE: "k" * 16}).key == b"k" * 16


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(ONE)
