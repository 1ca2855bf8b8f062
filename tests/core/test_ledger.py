"""Whatever is done to a line, the first bad one is named; whatever happens to the disk, nothing that was acknowledged is lost."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.digest import canonical_json, digest_bytes
from bedside.core.errors import IntegrityError, ResourceError
from bedside.core.ledger import GENESIS, Entry, Ledger, verify_lines


def fixed_clock() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(6):
        ledger.append("step", inputs={"in": f"{number:064x}"}, outputs={"out": f"{number + 1:064x}"}, facts={"n": number})
    return ledger


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def forged(count: int) -> bytes:
    """A ledger written without fsync, for tests that need many lines."""
    previous, rows = GENESIS, []
    for seq in range(1, count + 1):
        body = {
            "seq": seq,
            "time": "2026-01-02T03:04:05.000000+00:00",
            "actor": "somebody",
            "action": "case_accepted",
            "inputs": {"image": "a" * 64, "label": "b" * 64},
            "outputs": {"case": "c" * 64},
            "facts": {"case": f"case-{seq}"},
            "prev": previous,
        }
        previous = digest_bytes(canonical_json(body))
        rows.append(canonical_json({**body, "hash": previous}) + b"\n")
    return b"".join(rows)


def test_an_untouched_chain_is_intact_and_says_how_long_it_is(ledger: Ledger) -> None:
    found = ledger.verify()
    assert found.intact
    assert str(found) == "6 events, chain intact"
    assert found.head == f"6:{list(ledger.events())[-1].hash}"
    assert [event.seq for event in ledger.events()] == [1, 2, 3, 4, 5, 6]


def test_no_ledger_and_an_empty_ledger_are_intact_chains_of_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert str(ledger.verify()) == "0 events, chain intact"
    ledger.path.touch()
    assert str(ledger.verify()) == "0 events, chain intact"
    assert ledger.append("first").seq == 1


@given(line=st.integers(0, 5), place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_any_changed_byte_is_found_in_its_own_line(line: int, place: int, change: int) -> None:
    rows = forged(6).splitlines(keepends=True)
    row = bytearray(rows[line])
    row[place % (len(row) - 1)] ^= change
    rows[line] = bytes(row)
    found = verify_lines(b"".join(rows))
    assert found.first_bad_line == line + 1


def test_an_edit_that_keeps_the_json_valid_is_found(ledger: Ledger) -> None:
    rows = lines(ledger)
    rows[2] = rows[2].replace(b'"n":2', b'"n":9')
    found = verify_lines(b"".join(rows))
    assert found.first_bad_line == 3
    assert "edited" in found.problem


def test_an_edit_with_a_new_hash_breaks_the_next_line(ledger: Ledger) -> None:
    rows = lines(ledger)
    body = forged(3).splitlines(keepends=True)[2]
    found = verify_lines(b"".join([*rows[:2], body, *rows[3:]]))
    assert found.first_bad_line == 3
    assert "deleted, inserted or reordered" in found.problem


@pytest.mark.parametrize("gone", range(5))
def test_a_deleted_line_is_named_by_the_line_that_follows(ledger: Ledger, gone: int) -> None:
    rows = lines(ledger)
    found = verify_lines(b"".join(rows[:gone] + rows[gone + 1 :]))
    assert found.first_bad_line == gone + 1
    assert "deleted" in found.problem


@pytest.mark.parametrize("first", range(5))
def test_two_swapped_lines_are_named(ledger: Ledger, first: int) -> None:
    rows = lines(ledger)
    rows[first], rows[first + 1] = rows[first + 1], rows[first]
    found = verify_lines(b"".join(rows))
    assert found.first_bad_line == first + 1
    assert "reordered" in found.problem


@pytest.mark.parametrize("twice", range(6))
def test_a_duplicated_line_is_named_as_a_duplicate(ledger: Ledger, twice: int) -> None:
    rows = lines(ledger)
    rows.insert(twice + 1, rows[twice])
    found = verify_lines(b"".join(rows))
    assert found.first_bad_line == twice + 2
    assert found.problem == f"the line is a duplicate of line {twice + 1}"


@pytest.mark.parametrize("keep", [0, 1, 40, -2])
def test_a_line_cut_in_the_middle_is_named(ledger: Ledger, keep: int) -> None:
    rows = lines(ledger)
    found = verify_lines(b"".join([*rows[:3], rows[3][:keep], *rows[4:]]))
    assert found.first_bad_line == 4


def test_a_cut_tail_is_seen_only_with_a_head_from_elsewhere(ledger: Ledger) -> None:
    head = ledger.verify().head
    rows = lines(ledger)
    ledger.path.write_bytes(b"".join(rows[:4]))
    without = ledger.verify()
    assert without.intact
    assert "compare with a head" in without.note
    found = ledger.verify(head=head)
    assert found.first_bad_line == 5
    assert "tail was cut" in found.problem


def test_a_chain_rewritten_from_the_start_is_seen_only_with_a_head(ledger: Ledger) -> None:
    head = ledger.verify().head
    ledger.path.write_bytes(forged(8))
    assert ledger.verify().intact
    found = ledger.verify(head=head)
    assert not found.intact
    assert "rewritten" in found.problem


def test_an_older_head_is_still_a_good_head(ledger: Ledger) -> None:
    head = ledger.verify().head
    ledger.append("more")
    assert ledger.verify(head=head).intact


@pytest.mark.parametrize("head", ["", "6", "6:abc", "x:" + "0" * 64, "²:" + "0" * 64, "7:" + "0" * 64, "0:" + "0" * 64])
def test_a_head_that_is_none_or_unknown_never_passes(ledger: Ledger, head: str) -> None:
    assert not ledger.verify(head=head).intact


@given(st.binary(max_size=300))
def test_any_bytes_are_judged_and_never_crash(data: bytes) -> None:
    found = verify_lines(data)
    assert found.intact == (data == b"")


@pytest.mark.parametrize(
    "text", ['{"hash":"\\ud800","seq":1,"prev":""}', '{"hash":1,"seq":1,"prev":""}', "[]", "1", "null", '""']
)
def test_json_that_is_no_event_is_a_bad_line(text: str) -> None:
    assert verify_lines(text.encode() + b"\n").first_bad_line == 1


def test_a_hash_moved_to_another_place_in_its_line_is_an_edit(ledger: Ledger) -> None:
    rows = lines(ledger)
    event = list(ledger.events())[1]
    member = f',"hash":"{event.hash}"'.encode()
    moved = rows[1].replace(member, b"")
    for place in (b',"outputs":', b',"prev":', b"}\n", b'"n":1'):
        changed = moved.replace(place, member + place, 1)
        assert verify_lines(b"".join([rows[0], changed, *rows[2:]])).first_bad_line == 2


def test_deeply_nested_json_is_a_bad_line_and_not_a_crash() -> None:
    assert verify_lines(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n").first_bad_line == 1


WRITER = """\
import sys
import time
from pathlib import Path
from bedside.core.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.path.with_name(sys.argv[2]).touch()
while not all(ledger.path.with_name(name).exists() for name in "ab"):
    time.sleep(0.001)
for number in range(200):
    ledger.append("work", facts={"by": sys.argv[2], "n": number})
"""


def test_two_processes_that_write_at_once_make_one_intact_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    ledger = Ledger(path)
    assert str(ledger.verify()) == "400 events, chain intact"
    who = [event.facts["by"] for event in ledger.events()]
    for name in ("a", "b"):
        assert [event.facts["n"] for event in ledger.events() if event.facts["by"] == name] == list(range(200))
    assert who != sorted(who), "the two did not overlap, so nothing was tried"


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, seen = tmp_path / "ledger.jsonl", tmp_path / "acknowledged"
    child = os.fork()
    if child == 0:
        with seen.open("ab", buffering=0) as acknowledged:
            while True:
                acknowledged.write(b"%d\n" % Ledger(path).append("work").seq)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (seen.exists() and seen.read_bytes().count(b"\n") > 30):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last = int(seen.read_bytes().split()[-1])
    ledger = Ledger(path)
    assert ledger.append("after").seq > last
    assert ledger.verify().intact
    assert {event.seq for event in ledger.events()} >= set(range(1, last + 1))


@pytest.mark.parametrize("torn", [b"{", b'{"seq":7,"time":"2026', b"\x00" * 100])
def test_a_torn_last_line_is_removed_by_the_next_writer_who_says_so(ledger: Ledger, torn: bytes) -> None:
    with ledger.path.open("ab") as stream:
        stream.write(torn)
    assert ledger.verify().first_bad_line == 7
    assert len(list(ledger.events())) == 6
    event = ledger.append("next")
    assert event.seq == 8
    repair = list(ledger.events())[6]
    assert (repair.action, repair.facts) == ("repair", {"torn_bytes": len(torn)})
    assert ledger.verify().intact


def test_a_torn_first_line_is_repaired_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(b'{"seq":1')
    ledger.append("first")
    assert ledger.verify().intact


def test_lines_longer_than_the_read_window_are_chained(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(3):
        ledger.append("long", facts={"text": "ä" * 200_000})
    assert str(ledger.verify()) == "3 events, chain intact"


def test_nothing_is_chained_to_a_line_that_is_no_event(ledger: Ledger) -> None:
    with ledger.path.open("ab") as stream:
        stream.write(b"hello\n")
    before = ledger.path.read_bytes()
    with pytest.raises(IntegrityError, match="bedside verify"):
        ledger.append("next")
    assert ledger.path.read_bytes() == before
    with pytest.raises(IntegrityError, match="line 7"):
        list(ledger.events())


def test_a_full_disk_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    before = ledger.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        with pytest.raises(ResourceError, match="disk is full"):
            ledger.append("too much", facts={"text": "x" * 4000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert ledger.path.read_bytes() == before
    assert ledger.append("fits").seq == 7
    assert ledger.verify().intact


def test_a_device_without_room_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    with pytest.raises(ResourceError):
        Ledger(tmp_path / "ledger.jsonl").append("x")


def test_the_newest_event_that_matches_is_the_last(ledger: Ledger) -> None:
    ledger.append("step", facts={"n": 2, "again": True})
    found = ledger.last("step", n=2)
    assert found is not None
    assert found.facts == {"n": 2, "again": True}
    assert ledger.last("step", n=77) is None
    assert ledger.last("nothing") is None


def test_not_a_number_and_infinity_survive_as_words(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=fixed_clock)
    event = ledger.append("odd", facts={"a": float("nan"), "b": [float("inf")], "c": {"d": float("-inf")}})
    assert event.facts == {"a": "NaN", "b": ["Infinity"], "c": {"d": "-Infinity"}}
    assert event.time == "2026-01-02T03:04:05.000000+00:00"
    assert ledger.verify().intact


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
            lambda inner: st.lists(inner, max_size=3),
        ),
        max_size=5,
    )
)
def test_any_facts_make_a_line_that_verifies(tmp_path_factory: pytest.TempPathFactory, facts: dict) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("any") / "ledger.jsonl")
    ledger.append("facts", facts=facts)
    assert ledger.verify().intact
    assert len(list(ledger.events())) == 1


def seconds_for(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def test_verifying_costs_little_more_than_reading_and_hashing_the_lines() -> None:
    data = forged(4_000)
    rows = data.splitlines(keepends=True)

    def least() -> None:
        for row in rows:
            json.loads(row)
            hashlib.sha256(row).hexdigest()

    ratios = [seconds_for(lambda: verify_lines(data)) / seconds_for(least) for _ in range(7)]
    assert min(ratios) < 2.5


@pytest.mark.slow
def test_fifty_thousand_lines_are_verified_in_a_second() -> None:
    data = forged(50_000)
    assert min(seconds_for(lambda: verify_lines(data)) for _ in range(5)) < 1


def test_many_events_at_once_are_the_events_one_by_one_and_wait_for_the_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    waits: list[int] = []
    one, many = (Ledger(tmp_path / name, clock=clock) for name in ("one", "many"))
    entries = [Entry("done", inputs={"a": str(number)}, facts={"n": number}) for number in range(5)]
    for entry in entries:
        one.append(entry.action, inputs=entry.inputs, facts=entry.facts)
    monkeypatch.setattr("bedside.core.ledger.os.fsync", waits.append)
    many.append_all(())
    assert not many.path.exists()
    events = many.append_all(entries)
    assert len(waits) == 2  # the new file's folder, then the lines
    assert many.path.read_bytes() == one.path.read_bytes()
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert many.verify().intact


def test_events_of_one_action_are_found_without_reading_the_others(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(3):
        ledger.append("case_accepted", outputs={"case": f"{number}" * 64}, facts={"case": '"outputs":{"case":"x"},"prev":'})
        ledger.append("ingested", outputs={"dataset": f"{number}" * 64}, facts={"like": '{"action":"case_accepted",'})
    everything = list(ledger.events())
    assert list(ledger.events(only="ingested")) == everything[1::2]
    assert list(ledger.events(besides="case_accepted")) == everything[1::2]
    assert ledger.last("ingested") == everything[-1]
    assert ledger.last("ingested", like="x") is None
    assert list(ledger.digests("case_accepted", "case")) == [f"{number}" * 64 for number in range(3)]
    assert list(ledger.digests("ingested", "case")) == []


def test_a_line_that_is_no_event_is_said_whatever_is_looked_for(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("case_accepted")
    with ledger.path.open("ab") as stream:
        stream.write(b'{"action":"case_accepted"\n')
    for look in (lambda: list(ledger.events(only="ingested")), lambda: ledger.last("ingested")):
        with pytest.raises(IntegrityError, match="line 2"):
            look()
