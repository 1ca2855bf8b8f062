"""What workers hold at once stays within the room that there is, and no item waits for ever."""

import itertools

import pytest

from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import Lost, Room

from . import work


@pytest.fixture(autouse=True)
def _importable(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository))


@pytest.fixture
def executor():
    with LocalProcesses(4, memory_gb=1, seconds=60) as entered:
        yield entered


def most_at_once(spans, sizes):
    """The largest sum of sizes of items that were worked on at the same time."""
    moments = sorted(itertools.chain.from_iterable(((b, 1, n), (e, 0, n)) for n, (b, e) in enumerate(spans)))
    held = most = 0
    for _, begins, number in moments:
        held += sizes[number] if begins else -sizes[number]
        most = max(most, held)
    return most


@pytest.mark.parametrize("total", [100, 200, 250, 1000])
def test_items_that_are_worked_on_at_once_fit_into_the_room(executor, total):
    sizes = [100] * 4 + [60] * 6 + [10] * 30
    spans = list(executor.map(work.span, sizes, room=Room(total, int)))
    assert most_at_once(spans, sizes) <= total
    if total > 200:
        assert most_at_once(spans, sizes) >= 200  # and the room is used


def test_an_item_that_is_larger_than_the_room_is_worked_on_alone(executor):
    sizes = [10, 10, 500, 10, 10]
    spans = list(executor.map(work.span, sizes, room=Room(100, int)))
    assert most_at_once(spans, sizes) == 500


def test_without_a_room_all_workers_work(executor):
    assert most_at_once(list(executor.map(work.span, [1] * 40)), [1] * 40) > 1


def test_a_death_in_a_narrow_room_costs_its_own_item_only(executor):
    items = [3, "segfault", 4, "memory", 5, 6, "killed", 7]
    found = list(executor.map(work.misbehave, items, room=Room(2, lambda _: 1)))
    assert found == [3, Lost("died"), 4, Lost("memory"), 5, 6, Lost("died"), 7]


def test_small_items_still_wait_at_their_worker(executor):
    found = list(executor.map(work.square, range(3000), room=Room(2, lambda _: 1)))
    assert found == [n * n for n in range(3000)]
