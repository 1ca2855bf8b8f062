"""Who was in production when, and the way back."""

from datetime import datetime, timedelta, timezone

import pytest

from bedside.core.errors import IntegrityError, UsageError
from bedside.promote.pipeline import promote
from bedside.promote.release import production_at, production_now, releases, rollback, standing


def put(study, near, *names: str) -> list[str]:
    """Promote models one after the other, each a little better, and return their digests."""
    digests = []
    for step, name in enumerate(names):
        model = study.train(name)
        assert promote(model, study.evaluate(model, near(0.85 + 0.02 * step)), study.rules).passed
        digests.append(model.digest)
    return digests


def at(study, number: int) -> datetime:
    return datetime.fromisoformat(next(event.time for event in study.ledger.events() if event.seq == number))


def test_before_the_first_promotion_nobody_is_in_production(study):
    assert production_now(study.workspace) is None
    assert releases(study.workspace) == ()


def test_an_empty_folder_has_no_history(workspace):
    assert production_now(workspace) is None


def test_the_timeline_answers_who_was_in_production_when(study, near):
    first, second = put(study, near, "first", "second")
    event = rollback(study.workspace, reason="worse at night")
    found = releases(study.workspace)
    assert [release.model for release in found] == [first, second, first]
    assert [release.how for release in found] == ["promoted", "promoted", "rolled_back"]
    assert [release.until for release in found] == [found[1].since, found[2].since, None]
    assert found[2].seq == event.seq
    assert found[2].reason == "worse at night"
    assert found[2].evidence == found[0].evidence
    second_later = timedelta(seconds=1)
    assert production_at(study.workspace, found[0].since - second_later) is None
    assert production_at(study.workspace, found[0].since) == found[0]
    assert production_at(study.workspace, found[1].since - second_later) == found[0]
    assert production_at(study.workspace, found[2].since - second_later) == found[1]
    assert production_at(study.workspace, found[2].since + timedelta(days=1000)) == found[2]
    assert production_now(study.workspace) == found[2]
    assert [release.model for release in standing(study.workspace)] == [first]


def test_a_moment_is_compared_across_time_zones(study, near):
    put(study, near, "first")
    since = production_now(study.workspace).since
    east = timezone(timedelta(hours=9))
    assert production_at(study.workspace, since.astimezone(east)) is not None
    assert production_at(study.workspace, since.astimezone(east) - timedelta(seconds=1)) is None


def test_a_moment_without_a_time_zone_is_refused(study):
    with pytest.raises(UsageError, match="time zone"):
        production_at(study.workspace, datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


def test_a_rollback_names_both_models_and_the_reason(study, near):
    first, second = put(study, near, "first", "second")
    event = rollback(study.workspace, reason="recall")
    assert (event.action, event.inputs) == ("rolled_back", {"model": first, "replaced": second})
    assert event.facts["reason"] == "recall"


def test_a_rollback_without_a_reason_says_that_none_was_stated(study, near):
    put(study, near, "first", "second")
    assert rollback(study.workspace).facts["reason"] == "not stated"


def test_a_second_rollback_goes_further_back_and_not_to_the_one_rolled_back(study, near):
    first, second, third = put(study, near, "first", "second", "third")
    assert rollback(study.workspace).inputs == {"model": second, "replaced": third}
    assert rollback(study.workspace).inputs == {"model": first, "replaced": second}
    with pytest.raises(UsageError, match="only one model"):
        rollback(study.workspace)


def test_after_a_rollback_and_a_new_promotion_the_way_back_skips_what_was_rolled_back(study, near):
    first, _ = put(study, near, "first", "second")
    rollback(study.workspace)
    (third,) = put(study, near, "third")
    assert rollback(study.workspace).inputs == {"model": first, "replaced": third}


def test_a_model_that_was_rolled_back_may_be_promoted_again(study, near):
    _, second = put(study, near, "first", "second")
    rollback(study.workspace)
    model = study.train("second")
    assert model.digest == second
    again = promote(model, study.evaluate(model, near(0.95)), study.rules)
    assert again.passed
    assert not again.already
    assert production_now(study.workspace).model == second


def test_a_model_back_in_production_after_a_rollback_is_there_already(study, near):
    first, _ = put(study, near, "first", "second")
    event = rollback(study.workspace)
    model = study.train("first")
    again = promote(model, study.evaluate(model, near(0.9)), study.rules)
    assert model.digest == first
    assert again.already
    assert again.event == event.seq
    assert [verdict.gate for verdict in again.verdicts] == ["provenance", "non_inferiority", "absolute", "latency"]


def test_without_anything_in_production_there_is_nothing_to_roll_back(study):
    with pytest.raises(UsageError, match="no model is in production") as caught:
        rollback(study.workspace)
    assert caught.value.code == "NO_EARLIER"


def test_a_refused_promotion_does_not_move_the_timeline(study, near):
    put(study, near, "first")
    bad = study.train("bad")
    assert not promote(bad, study.evaluate(bad, near(0.1)), study.rules).passed
    assert len(releases(study.workspace)) == 1


def test_a_rollback_to_changed_weights_is_refused_and_leaves_production_as_it_is(study, near):
    first, second = put(study, near, "first", "second")
    file = study.workspace.store / first / "model.json"
    file.chmod(0o644)
    file.write_text("other weights")
    with pytest.raises(IntegrityError) as caught:
        rollback(study.workspace)
    assert caught.value.code == "CHANGED"
    assert production_now(study.workspace).model == second


def test_a_broken_ledger_does_not_say_what_to_roll_back_to(study, near):
    put(study, near, "first", "second")
    data = study.ledger.path.read_bytes().splitlines(keepends=True)
    study.ledger.path.write_bytes(b"".join([*data[:5], *data[6:]]))
    with pytest.raises(IntegrityError, match="broken at line 6"):
        rollback(study.workspace)


def test_a_rollback_that_does_not_fit_the_history_is_an_integrity_error(study, near):
    first, second = put(study, near, "first", "second")
    study.ledger.append("rolled_back", inputs={"model": second, "replaced": first})
    with pytest.raises(IntegrityError, match="does not name the models"):
        production_now(study.workspace)


def test_where_the_clock_was_turned_back_the_later_event_wins(study, near):
    first, second = study.train("first"), study.train("second")
    promote(first, study.evaluate(first, near(0.9)), study.rules)
    evidence = study.evaluate(second, near(0.95))
    study.days -= 10
    promote(second, evidence, study.rules)
    assert production_now(study.workspace).model == second.digest
    assert production_at(study.workspace, at(study, study.last().seq) + timedelta(days=365)).model == second.digest
