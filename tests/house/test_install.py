"""What is installed: one lock with hashes and without addresses, in licences that everybody may use."""

import re
import tomllib
from importlib.metadata import PackageMetadata, distribution, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", LOCK, flags=re.MULTILINE))

COPYLEFT = re.compile(r"\b(A?GPL|LGPL|BSL|BUSL|SSPL|GNU|Business Source|Commons Clause|Elastic)", re.IGNORECASE)
ACCEPTED = {
    "pygit2": "GPL-2.0 with linking exception: programs that link to it are free; comes with DVC, in a process of its own",
}


def alternatives(found: PackageMetadata) -> list[str]:
    """The licences that one may choose among."""
    stated = found.get("License-Expression") or found.get("License") or ""
    if stated and len(stated) < 100:
        return re.split(r"\s+OR\s+|\s*\|\s*", stated.strip("()"))
    classified = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier", []) if c.startswith("License ::")]
    return classified or [stated.partition("\n")[0] or "unknown"]


def test_the_lock_names_no_address_and_no_local_file() -> None:
    assert not re.findall(r"(?:https?|file|git)\+?:|^-|@ ", LOCK, flags=re.MULTILINE)


def test_torch_and_its_cuda_packages_are_not_in_the_lock() -> None:
    assert not [name for name in LOCKED if name.startswith(("torch", "nvidia", "triton", "cuda"))]


def test_every_requirement_is_pinned_and_hashed() -> None:
    blocks = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED) > 50
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_everything_that_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=!~\[ ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - {"torch"} <= set(LOCKED)


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_what_is_installed_is_what_is_locked(name: str) -> None:
    assert version(name) == LOCKED[name]


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_no_licence_reaches_into_our_code(name: str) -> None:
    choices = alternatives(distribution(name).metadata)
    assert choices != ["unknown"], f"{name} states no licence"
    assert name in ACCEPTED or any(not COPYLEFT.search(choice) for choice in choices), f"{name}: {choices}"


def test_every_accepted_licence_is_still_needed() -> None:
    for name in ACCEPTED:
        assert all(COPYLEFT.search(choice) for choice in alternatives(distribution(name).metadata)), name


def test_the_licence_is_the_one_that_the_project_names() -> None:
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
