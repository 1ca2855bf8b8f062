"""Claims about durable writes: who waits for the disk, and for how long."""

import errno
import os
from pathlib import Path

import pytest

from bedside.core.errors import ResourceError
from bedside.core.files import Syncing, write_atomic


@pytest.fixture
def forced(monkeypatch) -> list[str]:
    """Paths of what was forced to disk, in order."""
    seen: list[str] = []
    whole = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_every_file_is_on_disk_at_the_end_once_whether_it_was_begun_before_or_not(forced, tmp_path):
    paths = [tmp_path / f"{number}.npy" for number in range(40)]
    for path in paths:
        path.write_bytes(b"x")
    with Syncing() as syncing:
        for path in paths[:30]:
            syncing.begin(path)
        syncing.finish(paths)
        assert sorted(forced) == sorted(map(str, paths))


def test_a_file_that_was_replaced_after_its_turn_is_forced_again(forced, tmp_path):
    path, other = tmp_path / "content.npy", tmp_path / ".writing"
    path.write_bytes(b"x")
    with Syncing() as syncing:
        syncing.begin(path)
        syncing.finish(())
        other.write_bytes(b"x")
        other.rename(path)
        syncing.begin(path)
        other.write_bytes(b"x")
        other.rename(path)
        syncing.finish([path])
        last = len(forced)
        assert 2 <= last <= 3
        syncing.finish([path])
        assert len(forced) == last


def test_a_file_that_is_not_there_at_the_end_is_a_fault(tmp_path):
    with Syncing() as syncing, pytest.raises(FileNotFoundError):
        syncing.finish([tmp_path / "gone"])


def test_a_file_that_was_removed_before_its_turn_is_no_fault(forced, tmp_path):
    (tmp_path / "kept").write_bytes(b"x")
    with Syncing() as syncing:
        syncing.begin(tmp_path / "gone")
        syncing.finish([tmp_path / "kept"])
    assert forced == [str(tmp_path / "kept")]


def test_a_disk_that_refuses_is_heard_of_at_the_latest_at_the_end(monkeypatch, tmp_path):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", full)
    with Syncing() as syncing, pytest.raises(OSError, match="No space left"):
        syncing.finish([tmp_path / "a"])


def test_a_write_waits_for_the_file_and_its_folder_unless_it_need_not(forced, tmp_path):
    write_atomic(tmp_path / "a", b"kept")
    assert len(forced) == 2
    assert forced[1] == str(tmp_path)
    write_atomic(tmp_path / "b", b"made again", wait=False)
    assert len(forced) == 2
    assert (tmp_path / "b").read_bytes() == b"made again"


def test_a_full_disk_leaves_the_old_content_and_nothing_else(monkeypatch, tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError):
        write_atomic(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
