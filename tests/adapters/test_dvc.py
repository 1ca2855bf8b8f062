"""DVC moves bytes; a value that comes back is the one that left, or it is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.adapters.dvc import DvcStore
from bedside.core.digest import digest_tree
from bedside.core.errors import BedsideError, IntegrityError, ResourceError, UnsafeArtefact, UsageError
from bedside.core.workspace import Workspace

pytestmark = pytest.mark.git


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def put(workspace: Workspace, text: str = "one") -> str:
    with workspace.staging() as staged:
        (staged / "image").mkdir()
        (staged / "image" / "case-1.npy").write_bytes(bytes(range(256)) * 64)
        (staged / "manifest.json").write_text(json.dumps({"text": text}))
        return workspace.put(staged)


def make_writable(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that is its own git repository, with one value pushed and the pointers committed."""
    folder = tmp_path_factory.mktemp("pushed") / "hip-ct"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "study.yaml").write_text("study: hip-ct\n")
    (folder / "site.yaml").write_text("threads: 2\n")
    workspace = Workspace(folder)
    workspace.ledger.append("started")
    digest = put(workspace)
    for name in ("quarantine", "reports", "scratch"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "of-a-patient").write_text("no")
    DvcStore(workspace).push(digest)
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "first")
    return folder, digest


@pytest.fixture
def study(pushed: tuple[Path, str], tmp_path: Path) -> tuple[Workspace, str]:
    """A copy of it with its remote, to be damaged."""
    shutil.copytree(pushed[0].parent, tmp_path / "copy", symlinks=True)
    return Workspace(tmp_path / "copy" / "hip-ct"), pushed[1]


def test_what_is_committed_is_the_chain_and_the_pointers_and_no_patient(pushed: tuple[Path, str]) -> None:
    folder, digest = pushed
    assert set(git(folder, "ls-files").split()) == {
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "ledger.jsonl",
        f"store/{digest}.dvc",
        "study.yaml",
    }
    assert git(folder, "status", "--porcelain") == ""


def test_a_pushed_value_is_known_by_the_md5_of_its_dvc_file(pushed: tuple[Path, str]) -> None:
    folder, digest = pushed
    store = DvcStore(Workspace(folder))
    assert store.revision(digest) in (folder / "store" / f"{digest}.dvc").read_text()
    assert store.revision(digest).endswith(".dir")
    assert store.revision("0" * 64) == store.revision("../study") == ""


def test_pushing_leaves_the_stored_bytes_read_only_and_unchanged(pushed: tuple[Path, str]) -> None:
    folder, digest = pushed
    assert Workspace(folder).get(digest).is_dir()
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder / "store" / digest).rglob("*") if path.is_file())


def test_a_fresh_clone_and_plain_dvc_pull_give_byte_identical_data(pushed: tuple[Path, str]) -> None:
    folder, digest = pushed
    git(folder.parent, "clone", "-q", str(folder), "clone")
    clone = folder.parent / "clone"
    assert not (clone / "store" / digest).exists()
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, env=environment, capture_output=True, check=True)
    assert digest_tree(clone / "store" / digest) == digest
    assert Workspace(clone).get(digest) == clone / "store" / digest


def test_our_pull_brings_a_missing_value_back(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    shutil.rmtree(workspace.store / digest)
    shutil.rmtree(workspace.folder / ".dvc" / "cache")
    DvcStore(workspace).pull(digest)
    assert digest_tree(workspace.store / digest) == digest


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_our_pull_replaces_changed_bytes_even_where_the_cache_changed_with_them(study: tuple[Workspace, str], link: str) -> None:
    workspace, digest = study
    config = workspace.folder / ".dvc" / "config"
    config.write_text(config.read_text().replace("reflink,hardlink,copy", link))
    cache = workspace.folder / ".dvc" / "cache"
    make_writable(workspace.store / digest)
    (workspace.store / digest / "manifest.json").write_text("{}")
    for path in cache.rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.chmod(0o644)
            path.write_bytes(b"rotten")
            path.chmod(0o444)
    with pytest.raises(IntegrityError):
        workspace.get(digest)
    DvcStore(workspace).pull(digest)
    assert digest_tree(workspace.store / digest) == digest


def test_bytes_that_rotted_in_the_remote_are_not_accepted(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    shutil.rmtree(workspace.store / digest)
    shutil.rmtree(workspace.folder / ".dvc" / "cache")
    remote = workspace.folder.parent / "hip-ct-remote"
    for path in remote.rglob("*"):
        if path.is_file() and path.suffix != ".dir" and path.stat().st_size < 1000 and "files" in path.parts:
            path.chmod(0o644)
            path.write_bytes(b'{"text": "two"}')
            path.chmod(0o444)
    with pytest.raises(IntegrityError):
        DvcStore(workspace).pull(digest)


def test_a_remote_without_the_bytes_is_an_integrity_error_and_keeps_what_is_here(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    make_writable(workspace.store / digest)
    (workspace.store / digest / "manifest.json").write_text("{}")
    shutil.rmtree(workspace.folder / ".dvc" / "cache")
    shutil.rmtree(workspace.folder.parent / "hip-ct-remote")
    with pytest.raises(IntegrityError, match="push it from where it was made"):
        DvcStore(workspace).pull(digest)
    assert (workspace.store / digest / "manifest.json").read_text() == "{}"


def test_a_pointer_that_would_write_elsewhere_is_refused(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    pointer = workspace.store / f"{digest}.dvc"
    honest = pointer.read_text()
    shutil.rmtree(workspace.store / digest)
    for forged in (
        honest.replace(f"path: {digest}", "path: ../../escaped"),
        honest + "wdir: ..\n",
        honest + "deps:\n- path: /etc/hostname\n",
        honest.replace("md5: ", "md5: ../../"),
        "outs: []\n",
        "&a [*a]",
    ):
        pointer.write_text(forged)
        with pytest.raises(UnsafeArtefact):
            DvcStore(workspace).pull(digest)


def test_a_table_that_names_a_place_outside_is_refused(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    shutil.rmtree(workspace.store / digest)
    shutil.rmtree(workspace.folder / ".dvc" / "cache")
    remote = workspace.folder.parent / "hip-ct-remote"
    table = next(remote.rglob("*.dir"))
    rows = json.loads(table.read_text())
    rows[0]["relpath"] = "../../escaped"
    table.chmod(0o644)
    table.write_text(json.dumps(rows))
    table.chmod(0o444)
    with pytest.raises((UnsafeArtefact, IntegrityError)):
        DvcStore(workspace).pull(digest)
    assert not (workspace.folder / "escaped").exists()
    assert not (workspace.folder.parent / "escaped").exists()


def test_a_module_in_the_study_folder_is_not_imported(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    (workspace.folder / "dvc.py").write_text("open('ran', 'w').close()\n")
    (workspace.folder / "json.py").write_text("open('ran', 'w').close()\n")
    DvcStore(workspace).push(digest)
    assert not (workspace.folder / "ran").exists()


def test_pushing_twice_changes_nothing_in_git(study: tuple[Workspace, str]) -> None:
    workspace, digest = study
    DvcStore(workspace).push(digest)
    assert git(workspace.folder, "status", "--porcelain") == ""


def test_a_study_without_git_works_and_may_become_a_repository_later(workspace: Workspace, tmp_path: Path) -> None:
    first, second = put(workspace, "one"), put(workspace, "two")
    store = DvcStore(workspace, str(tmp_path / "elsewhere"))
    store.push(first)
    git(workspace.folder, "init", "-q")
    store.push_all((first, second))
    git(workspace.folder, "add", "--all")
    assert "no_scm" not in (workspace.folder / ".dvc" / "config").read_text()
    assert not [name for name in git(workspace.folder, "ls-files").split() if name.startswith((f"store/{first}/", ".dvc/cache"))]
    shutil.rmtree(workspace.store / second)
    store.pull(second)
    assert digest_tree(workspace.store / second) == second


def test_a_study_inside_a_repository_keeps_its_remote_beside_the_repository(tmp_path: Path) -> None:
    outer = tmp_path / "all-studies"
    folder = outer / "hip"
    folder.mkdir(parents=True)
    git(outer, "init", "-q")
    workspace = Workspace(folder)
    digest = put(workspace)
    DvcStore(workspace).push(digest)
    assert (tmp_path / "all-studies-remote" / "files").is_dir()
    git(outer, "add", "--all")
    git(outer, "commit", "-q", "-m", "first")
    git(tmp_path, "clone", "-q", str(outer), "clone")
    clone = Workspace(tmp_path / "clone" / "hip")
    DvcStore(clone).pull(digest)
    assert digest_tree(clone.store / digest) == digest


def test_a_study_that_the_repository_around_it_ignores_is_versioned_on_its_own(tmp_path: Path) -> None:
    outer = tmp_path / "code"
    folder = outer / "demo"
    folder.mkdir(parents=True)
    git(outer, "init", "-q")
    (outer / ".gitignore").write_text("/demo/\n")
    workspace = Workspace(folder)
    DvcStore(workspace).push(put(workspace))
    assert (outer / "demo-remote" / "files").is_dir()
    assert git(outer, "status", "--porcelain") == "?? .gitignore\n"


def test_a_machine_without_git_can_push_and_pull(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    digest = put(workspace)
    store = DvcStore(workspace)
    store.push(digest)
    shutil.rmtree(workspace.store / digest)
    store.pull(digest)
    assert digest_tree(workspace.store / digest) == digest


def test_a_value_that_is_not_there_is_wrong_use(workspace: Workspace) -> None:
    for digest in ("a" * 64, "../../etc", ""):
        with pytest.raises(UsageError):
            DvcStore(workspace).push(digest)
        with pytest.raises(UsageError):
            DvcStore(workspace).pull(digest)
    assert not (workspace.folder / ".dvc").exists()


def test_a_password_never_reaches_the_committed_configuration(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="password") as caught:
        DvcStore(workspace, "https://reader:hunter2@example.org/data")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("remote", ["s3://bucket-of-nobody/x", "nonsense://x"])
def test_a_remote_that_cannot_be_used_is_one_sentence(workspace: Workspace, remote: str) -> None:
    digest = put(workspace)
    with pytest.raises(BedsideError) as caught:
        DvcStore(workspace, remote).push(digest)
    assert caught.value.exit_code in {2, 6, 7}
    assert "\n" not in caught.value.sentence
    assert "Traceback" not in caught.value.sentence
    assert workspace.get(digest).is_dir()


def test_a_full_disk_is_a_resource_error() -> None:
    from bedside.adapters.dvc import _error

    said = "ERROR: unexpected error - [Errno 28] No space left on device: '/data/x'"
    found = _error("push", said)
    assert isinstance(found, ResourceError)
    assert "/data" not in str(found)
