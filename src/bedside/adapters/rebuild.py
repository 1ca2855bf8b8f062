"""A virtual environment with the packages that a run recorded, and a command of bedside run in it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path

from pydantic import JsonValue

from bedside.adapters.installers import FILES, installers
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

LOCK, WANTED, LOG = "environment.lock", "environment.wanted", "environment.log"
_NOT_FROM_AN_INDEX = frozenset({"bedside"})
_NO_ANSWER = re.compile(
    r"failed to fetch|dns error|connection (broken|refused)|timed out|network was disabled|name resolution", re.IGNORECASE
)
_KINDS = (UsageError, InputRejected, IntegrityError, GateRefused, ResourceError, UnsafeArtefact, Interrupted)
_LACKING = re.compile(r"no matching distribution|no version of|was not found in", re.IGNORECASE)
_PINNED = re.compile(r"\b[\w.-]+={2,3}[\w.!+-]+")
_NORMAL = re.compile(r"(?:[1-9]\d*!)?\d+(?:\.(?:0|[1-9]\d*))*(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?(?:\+[a-z0-9.]+)?\Z")
_MOST_NAMED = 5
_INSTALLED = (
    "import json; from importlib.metadata import distributions as all;"
    " print(json.dumps({n.lower().replace('_', '-'): d.version for d in all() if (n := d.metadata['Name'])}))"
)


@dataclass(frozen=True)
class Built:
    """A finished environment: its interpreter, and one sentence about how it was made."""

    python: Path
    said: str


def lock_of(packages: Mapping[str, str]) -> str:
    """The recorded packages as a requirements file, bedside itself left out: its code is known by commit."""
    return "".join(f"{name}{_sign(number)}{number}\n" for name, number in sorted(_asked(packages).items()))


def _asked(packages: Mapping[str, str]) -> dict[str, str]:
    return {name: number for name, number in packages.items() if name not in _NOT_FROM_AN_INDEX}


def _sign(number: str) -> str:
    """`===` compares letter by letter, where `==2.13.0` would also take 2.13.0+cpu; but only in the normal form of PEP 440."""
    return "===" if _NORMAL.match(number) else "=="


def build(folder: Path, packages: Mapping[str, str], *, python: str) -> Built:
    """Make `folder/.venv` with exactly these packages, to the build of torch; one that was made whole before is kept.

    pip and uv take packages from where they are configured to look (`installers`). Where one has not got them all, the other is
    asked for all of them anew. What was installed is read back and must be what was recorded.

    Args:
        folder: takes the environment, its lock and the log of the installers.
        packages: name to version, torch included, with its build ("2.13.0+cpu").
        python: version of the recorded interpreter; only its first two numbers have to be those of this one.

    Raises:
        UsageError: PYTHON: this interpreter is of another version.
        ResourceError: NO_INDEX: no package index answered; INSTALL: nobody has all packages in their versions; DISK_FULL.
    """
    here = ".".join(map(str, sys.version_info[:2]))
    if python.split(".")[:2] != here.split("."):
        raise UsageError(f"The run used Python {python} and this is {here}; start bedside with the former.", code="PYTHON")
    interpreter, lock = folder / ".venv" / "bin" / "python", folder / LOCK
    text = lock_of(packages)
    count = f"{len(text.splitlines())} packages"
    if interpreter.is_file() and lock.is_file() and lock.read_text(encoding="utf-8") == text:
        return Built(interpreter, f"{count}, kept from before")
    with disk_errors("building an environment"):
        folder.mkdir(parents=True, exist_ok=True)
        lock.unlink(missing_ok=True)  # what has a lock is whole
        write_atomic(folder / WANTED, text.encode(), doing="writing a lock")
        begun = time.monotonic()
        by = _by_any(folder, interpreter, _asked(packages))
        _link_code(folder)
        (folder / WANTED).rename(lock)
    return Built(interpreter, f"{count} by {by} in {time.monotonic() - begun:.0f} s")


def _by_any(folder: Path, interpreter: Path, packages: Mapping[str, str]) -> str:
    """Install with the first installer that has everything; its name, and why not with the ones before."""
    refused: dict[str, str] = {}
    said = ""
    for installer in installers():
        _make(folder)
        code, words = _ask(installer.command(interpreter, folder / WANTED))
        said += f"--- {installer.name}\n{words}\n"
        write_atomic(folder / LOG, said.encode(), doing="keeping the installer's message")
        if code == 0:
            problem = _unlike(interpreter, packages)
            if not problem:
                return " as ".join([installer.name, *(f"{name} {why}" for name, why in refused.items())])
        elif "no space left" in words.lower():
            raise ResourceError("The disk is full while packages are installed; free some space and repeat.", code="DISK_FULL")
        else:
            problem = _why(words)
        refused[installer.name] = problem
    shutil.rmtree(folder / ".venv", ignore_errors=True)
    raise _refusal(refused)


def _ask(command: Sequence[str]) -> tuple[int, str]:
    """Run an installer: how it ended, and its words. pip works in a process of its own, so both end where this one is stopped."""
    with subprocess.Popen(  # noqa: S603 - names and versions
        command,
        env=_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as running:
        try:
            words, _ = running.communicate()
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, words.decode(errors="replace")


def _make(folder: Path) -> None:
    """An empty environment, without an installer of its own; what pip is told of this one's indexes is told of it too."""
    place = folder / ".venv"
    shutil.rmtree(place, ignore_errors=True)
    made = subprocess.run(  # noqa: S603 - fixed arguments
        [sys.executable, "-m", "venv", "--without-pip", str(place)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if made.returncode:
        write_atomic(folder / LOG, made.stdout + made.stderr, doing="keeping a message")
        raise ResourceError(
            f"This Python cannot make virtual environments (its venv module says why in {LOG}); leave --environment out.",
            code="VENV",
        )
    for name in FILES:
        if (own := Path(sys.prefix) / name).is_file():
            shutil.copyfile(own, place / name)


def _environ() -> dict[str, str]:
    """This process's environment without what would install elsewhere, or take packages of elsewhere for installed ones."""
    astray = {
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_USER",
        "PIP_PYTHON",
        "UV_SYSTEM_PYTHON",
        "PYTHONPATH",
        "PYTHONHOME",
    }
    return {name: value for name, value in os.environ.items() if name not in astray}


def _unlike(interpreter: Path, packages: Mapping[str, str]) -> str:
    """What is installed otherwise than it was asked for; "" where nothing is."""
    listed = subprocess.run([str(interpreter), "-I", "-c", _INSTALLED], capture_output=True, check=True)  # noqa: S603
    there: dict[str, str] = json.loads(listed.stdout)
    names = sorted(name for name in packages.keys() | there.keys() if packages.get(name) != there.get(name))
    found = [f"{name} {there.get(name, 'not at all')}" for name in names]
    return f"installed {_named(found)} instead" if names else ""


def _why(words: str) -> str:
    if _NO_ANSWER.search(words):
        return "got no answer from an index"
    lines = [line for line in words.splitlines() if _LACKING.search(line)]
    missing = sorted({found.replace("===", "==").rstrip(".") for line in lines for found in _PINNED.findall(line)})
    return f"has not got {_named(missing)}" if missing else "did not finish"


def _named(found: Sequence[str]) -> str:
    return ", ".join(found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")


def _refusal(refused: Mapping[str, str]) -> ResourceError:
    said = "; ".join(f"{name} {why}" for name, why in refused.items())
    if refused and all("no answer" in why for why in refused.values()):
        return ResourceError(
            f"No package index answered, so the run's environment cannot be built here; leave --environment out, or configure one"
            f" for pip or uv. Their words are in {LOG}.",
            code="NO_INDEX",
        )
    return ResourceError(
        f"The run's environment cannot be built to the version: {said or 'neither pip nor uv is here'}. A build such as +cpu"
        " comes from an index or folder of its own (for pip PIP_INDEX_URL, PIP_FIND_LINKS or pip.conf; for uv UV_INDEX,"
        f" UV_FIND_LINKS or uv.toml); the installers' words are in {LOG}.",
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
