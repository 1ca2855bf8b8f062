"""A virtual environment with the packages that a run recorded, and a command of bedside run in it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution, version
from pathlib import Path

from pydantic import JsonValue

from bedside.core.errors import (
    BedsideError,
    GateRefused,
    InputRejected,
    IntegrityError,
    Interrupted,
    ResourceError,
    UnsafeArtefact,
    UsageError,
    disk_errors,
)
from bedside.core.files import write_atomic

LOCK, LOG = "environment.lock", "environment.log"
_NOT_FROM_AN_INDEX = frozenset({"bedside"})
_NO_INDEX = ("failed to fetch", "dns error", "connect", "network", "timed out", "offline", "temporary failure")
_KINDS = (UsageError, InputRejected, IntegrityError, GateRefused, ResourceError, UnsafeArtefact, Interrupted)


def lock_of(packages: Mapping[str, str]) -> str:
    """The recorded packages as a requirements file, bedside itself left out: its code is known by commit."""
    return "".join(f"{name}=={number}\n" for name, number in sorted(packages.items()) if name not in _NOT_FROM_AN_INDEX)


def build(folder: Path, packages: Mapping[str, str], *, python: str) -> Path:
    """Make `folder/.venv` with exactly these packages, and return its interpreter; one that was made whole before is kept.

    uv installs where it is there, else pip. Both take packages from the index that they are configured for.

    Args:
        folder: takes the environment, its lock and the log of the installer.
        packages: name to version, torch included, with its build ("2.13.0+cpu").
        python: version of the recorded interpreter; only its first two numbers have to be those of this one.

    Raises:
        UsageError: PYTHON: this interpreter is of another version.
        ResourceError: NO_INDEX: no package index answered; INSTALL: it has not got a package; DISK_FULL.
    """
    here = ".".join(map(str, sys.version_info[:2]))
    if python.split(".")[:2] != here.split("."):
        raise UsageError(f"The run used Python {python} and this is {here}; start bedside with the former.", code="PYTHON")
    interpreter, lock = folder / ".venv" / "bin" / "python", folder / LOCK
    text = lock_of(packages)
    if interpreter.is_file() and lock.is_file() and lock.read_text(encoding="utf-8") == text:
        return interpreter
    with disk_errors("building an environment"):
        shutil.rmtree(folder / ".venv", ignore_errors=True)
        wanted = folder / f"{LOCK}.wanted"
        write_atomic(wanted, text.encode(), doing="writing a lock")
        uv = _uv()
        _install(folder, [sys.executable, "-m", "venv", *(["--without-pip"] if uv else []), str(folder / ".venv")])
        by_pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check"]
        command = [uv, "pip", "install", "--python", str(interpreter)] if uv else by_pip
        _install(folder, [*command, "--no-deps", "-r", str(wanted)])
        _link_code(folder)
        wanted.rename(lock)  # last: what has a lock is whole
    return interpreter


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _install(folder: Path, command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - names and versions
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).decode(errors="replace")
    write_atomic(folder / LOG, said.encode(), doing="keeping the installer's message")
    words = said.lower()
    if "no space left" in words:
        raise ResourceError("The disk is full while packages are installed; free some space and repeat.", code="DISK_FULL")
    if any(word in words for word in _NO_INDEX):
        raise ResourceError(
            f"No package index answered, so the run's environment cannot be built here; leave --environment out, or configure one"
            f" for uv or pip. The installer's words are in {LOG}.",
            code="NO_INDEX",
        )
    raise ResourceError(
        "The package index has not got every package of the run in its version (a torch with a build, as 2.13.0+cpu, has an index"
        f" of its own); the installer's words are in {LOG}.",
        code="INSTALL",
    )


def _link_code(folder: Path) -> None:
    """Put this bedside, and nothing else of this environment, where the new interpreter finds it."""
    code = folder / "code"
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir()
    (code / "bedside").symlink_to(Path(__file__).resolve().parents[1])
    name = f"bedside-{version('bedside')}.dist-info"
    about = Path(str(distribution("bedside").locate_file(name)))
    if about.is_dir():
        (code / name).symlink_to(about.resolve())


def described(folder: Path, interpreter: Path) -> dict[str, JsonValue]:
    """The environment record of an interpreter that was built."""
    text = "from bedside.adapters.environment import environment; print(environment().model_dump_json())"
    environment = {**os.environ, "PYTHONPATH": str(folder / "code")}
    done = subprocess.run([str(interpreter), "-c", text], env=environment, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise ResourceError("The environment that was built does not run; remove its .venv and repeat.", code="INSTALL")
    found: dict[str, JsonValue] = json.loads(done.stdout)
    return found


def run_in(folder: Path, interpreter: Path, arguments: Sequence[str]) -> dict[str, JsonValue]:
    """Run a verb with `--json` in an environment that was built, and return what it printed.

    Raises:
        BedsideError: what the verb ended with, of the same kind and code.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder / "code")}
    command = [str(interpreter), "-m", "bedside", *arguments, "--json"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)  # noqa: S603
    try:
        said = json.loads(done.stdout)
    except ValueError:
        said = {}
    if done.returncode == 0 and isinstance(said, dict):
        return said
    error = said.get("error") if isinstance(said, dict) else None
    kind = next((kind for kind in _KINDS if kind.exit_code == done.returncode), BedsideError)
    if isinstance(error, dict):
        raise kind(str(error.get("sentence")), code=str(error.get("code")))
    raise kind(f"bedside {arguments[0]} ended with exit {done.returncode} in the environment that was built.", code="ENVIRONMENT")
