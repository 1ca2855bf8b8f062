"""Claims about the memory of digests: what it does not know for sure it does not know."""

import os
import time

import pytest

from bedside.ingest.stats import Looks, Stats


@pytest.fixture
def memory(tmp_path):
    """A memory of three files that have not changed for a while, and how to ask it."""
    folder = tmp_path / "files"
    folder.mkdir()
    files = []
    long_ago = time.time() - 3600
    for number in range(3):
        path = folder / f"{number}.dcm"
        path.write_bytes(bytes([number]) * 10)
        os.utime(path, (long_ago, long_ago))
        files.append((f"{number:064x}", path))
    stats = Stats(tmp_path / "seen.txt")
    stats.remember(Looks(files, ours=True), bytearray(range(96)))
    return stats, files


def test_what_did_not_change_is_known(memory):
    stats, files = memory
    assert stats.recall(files) == bytes(range(96))


@pytest.mark.parametrize("cut", range(1, 66))
def test_a_memory_that_lost_its_end_knows_nothing(memory, cut):
    stats, files = memory
    whole = stats.path.read_bytes()
    stats.path.write_bytes(whole[: len(whole) - cut])
    # without its last newline alone nothing is lost
    assert stats.recall(files) == (bytes(range(96)) if cut == 1 else None)


@pytest.mark.parametrize("where", [0, 20, 64, 90, 150])
def test_a_memory_of_which_a_block_was_never_written_knows_nothing(memory, where):
    stats, files = memory
    whole = bytearray(stats.path.read_bytes())
    whole[where : where + 40] = bytes(40)
    stats.path.write_bytes(whole)
    assert stats.recall(files) is None


def test_an_empty_or_absent_memory_knows_nothing(memory):
    stats, files = memory
    stats.path.write_bytes(b"")
    assert stats.recall(files) is None
    stats.path.unlink()
    assert stats.recall(files) is None
