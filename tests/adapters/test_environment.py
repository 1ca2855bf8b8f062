"""The environment record says what could change a number, and nothing about who or where."""

import getpass
import os
import shutil
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import bedside
from bedside.adapters.environment import commit, differences, environment, numeric_settings

pytestmark = pytest.mark.git


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package in a repository of its own."""
    package = tmp_path / "code" / "src" / "bedside"
    shutil.copytree(Path(bedside.__file__).parent / "core", package / "core", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text('"""Code."""\n')
    git(tmp_path / "code", "init", "-q")
    git(tmp_path / "code", "add", "--all")
    git(tmp_path / "code", "commit", "-q", "-m", "first")
    return package


def test_the_record_names_versions_and_gives_the_same_digest_twice() -> None:
    found = environment()
    assert found.packages["numpy"] == version("numpy")
    assert found.torch == version("torch")
    assert list(found.packages) == sorted(found.packages)
    assert found.threads == len(os.sched_getaffinity(0))
    assert found.digest() == environment().digest()


def test_one_thread_more_is_another_environment() -> None:
    assert environment(threads=1).digest() != environment(threads=2).digest()


def test_the_record_names_the_kernels_and_what_changes_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment()
    assert found.instructions == torch.backends.cpu.get_cpu_capability()
    assert ("mkldnn" in found.libraries) == torch.backends.mkldnn.is_available()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert environment().settings["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert environment().digest() != found.digest()


def test_other_variables_and_odd_values_stay_out() -> None:
    assert numeric_settings({"SECRET": "x", "MKL_CBWR": "COMPATIBLE"}) == {"MKL_CBWR": "COMPATIBLE"}
    assert numeric_settings({"OMP_NUM_THREADS": "4; rm -rf /home"}) == {"OMP_NUM_THREADS": "other"}


def test_differences_are_named_one_by_one_and_a_record_of_an_older_version_is_compared_where_it_can_be() -> None:
    now = environment().model_dump(mode="json")
    packages = {name: version for name, version in now["packages"].items() if name != "scipy"}
    was = {**now, "python": "3.11.0", "cpu_flags": "ab" * 32, "packages": {**packages, "numpy": "1.0", "gone": "2"}}
    del was["instructions"]
    found = {row.what: str(row) for row in differences(was, now)}
    assert found["python"] == f"python: was 3.11.0, is {now['python']}"
    assert found["cpu_flags"].startswith("cpu_flags: was abababababab, is ")
    assert found["packages numpy"].startswith("packages numpy: was 1.0, is ")
    assert found["packages gone"] == "packages gone: was 2, is not there"
    assert found["packages scipy"].startswith("packages scipy: was not there, is ")
    assert len(found) == 5
    assert differences(now, now) == ()


def test_the_record_tells_neither_host_nor_user_nor_path() -> None:
    text = environment().model_dump_json()
    assert "/" not in text.replace("\\/", "")
    assert f'"{getpass.getuser()}"' not in text
    assert socket.gethostname() not in text


def test_code_in_a_checkout_is_known_by_its_commit(checkout: Path) -> None:
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD")


def test_an_edit_a_new_file_and_a_staged_change_all_show_as_plus(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "new.py").write_text("")
    assert commit(checkout) == f"{head}+"
    git(checkout, "add", "new.py")
    assert commit(checkout) == f"{head}+"
    git(checkout, "commit", "-q", "-m", "second")
    (checkout / "new.py").write_text("x = 1\n")
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD") + "+"


def test_a_change_elsewhere_in_the_repository_is_not_a_change_of_the_code(checkout: Path) -> None:
    (checkout.parent.parent / "README.md").write_text("hello\n")
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD")


def test_code_outside_git_is_known_by_its_digest(checkout: Path) -> None:
    shutil.rmtree(checkout.parent.parent / ".git")
    before = commit(checkout)
    assert before.startswith(f"bedside-{version('bedside')}+sha256:")
    assert len(before.rpartition(":")[2]) == 12
    (checkout / "core" / "digest.py").write_text("changed = True\n")
    assert commit(checkout) != before


def test_a_package_installed_inside_a_foreign_repository_is_not_taken_for_it(checkout: Path) -> None:
    (checkout / "__init__.py").touch()
    git(checkout, "rm", "-r", "-q", "--cached", ".")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "it was never ours")
    assert commit(checkout).startswith("bedside-")


def test_without_git_the_code_is_still_known(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit(checkout).startswith("bedside-")
