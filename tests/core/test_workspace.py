"""A value is stored once, never changes, and is hashed again whenever it is asked for."""

import os
import resource
import signal
from pathlib import Path

import pytest

from bedside.core.digest import digest_tree
from bedside.core.errors import IntegrityError, ResourceError, UsageError
from bedside.core.workspace import Workspace, free_bytes, read_json


def put(workspace: Workspace, text: str = "hello") -> str:
    with workspace.staging() as staged:
        (staged / "below").mkdir()
        (staged / "below" / "file").write_text(text)
        return workspace.put(staged)


def test_a_value_is_named_by_its_content_and_read_only(workspace: Workspace) -> None:
    digest = put(workspace)
    assert digest_tree(workspace.get(digest)) == digest
    assert (workspace.store / digest / "below" / "file").stat().st_mode & 0o222 == 0
    assert workspace.digests() == (digest,)


def test_putting_the_same_content_twice_is_a_no_op(workspace: Workspace) -> None:
    first = put(workspace)
    before = (workspace.store / first).stat()
    assert put(workspace) == first
    assert (workspace.store / first).stat() == before
    assert [path.name for path in workspace.store.iterdir()] == [first]


def test_a_changed_file_is_an_integrity_error_with_exit_code_4(workspace: Workspace) -> None:
    digest = put(workspace)
    path = workspace.store / digest / "below" / "file"
    path.chmod(0o644)
    path.write_text("hellp")
    with pytest.raises(IntegrityError, match="changed since they were stored") as caught:
        workspace.get(digest)
    assert (caught.value.code, caught.value.exit_code) == ("CHANGED", 4)


def test_an_added_or_removed_file_is_a_change_too(workspace: Workspace) -> None:
    first, second = put(workspace, "1"), put(workspace, "2")
    (workspace.store / first / "more").touch()
    (workspace.store / second / "below" / "file").unlink()
    for digest in (first, second):
        with pytest.raises(IntegrityError):
            workspace.get(digest)


def test_a_missing_value_says_how_to_fetch_it(workspace: Workspace) -> None:
    with pytest.raises(IntegrityError, match="dvc pull") as caught:
        workspace.get("a" * 64)
    assert caught.value.code == "MISSING"


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc"])
def test_what_is_no_digest_never_becomes_a_path(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError):
        workspace.get(name)
    with pytest.raises(UsageError):
        workspace.find(name)


def test_a_prefix_finds_the_one_value_it_begins(workspace: Workspace) -> None:
    digest = put(workspace)
    assert workspace.find(digest[:4]) == digest
    with pytest.raises(UsageError, match="no value"):
        workspace.find("0123456789" if not digest.startswith("0123") else "fedc")
    (workspace.store / (digest[:5] + "0" * 59)).mkdir()
    with pytest.raises(UsageError, match="2 values"):
        workspace.find(digest[:5])


def test_staging_that_fails_leaves_nothing(workspace: Workspace) -> None:
    def fail() -> None:
        with workspace.staging() as staged:
            (staged / "file").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(workspace.store.iterdir()) == []
    assert workspace.digests() == ()


def test_a_full_disk_while_storing_is_a_resource_error_and_keeps_the_store(workspace: Workspace) -> None:
    from bedside.core.files import write_atomic

    digest = put(workspace)
    target = workspace.folder / "file"
    write_atomic(target, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ResourceError):
            write_atomic(target, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert target.read_bytes() == b"old"
    assert workspace.get(digest).is_dir()
    assert not [path for path in workspace.folder.iterdir() if path.name.startswith(".writing-")]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "not" / "yet")
    assert not workspace.exists()
    assert workspace.digests() == ()
    assert workspace.ledger.verify().intact
    assert not (tmp_path / "not").exists()
    assert free_bytes(workspace.folder) > 0


def test_a_stored_file_that_is_not_json_is_an_integrity_error(tmp_path: Path) -> None:
    for name, data in {"a": b"{", "b": b"\xff", "c": b"[" * 100_000}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(IntegrityError):
            read_json(tmp_path / name)
    with pytest.raises(IntegrityError):
        read_json(tmp_path / "nothing")


def test_a_write_replaces_the_file_whole_and_keeps_no_temporary(tmp_path: Path) -> None:
    from bedside.core.files import write_atomic

    path = tmp_path / "file"
    write_atomic(path, b"one")
    reader = os.open(path, os.O_RDONLY)
    write_atomic(path, b"two")
    assert os.read(reader, 10) == b"one"
    os.close(reader)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
