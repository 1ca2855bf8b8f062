"""pip and uv: which of them is here, and which of them was told where packages come from.

Each honours its own settings only (pip.conf and PIP_*; uv.toml and UV_*), and one that was told nothing takes the public index,
where torch is the CUDA build. So the one that was told is asked first, pip where both or neither were. The other is asked next,
but never one that was told nothing after one that was told to leave the public index out.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

FILES = ("pip.conf",)
"""Settings of pip that stand in a virtual environment, and so have to be copied into another one."""
_PIP_TOLD = re.compile(r"\.(?:extra-index-url|index-url|find-links|no-index)=")
_PIP_CLOSED = re.compile(r"\.(?:index-url=|no-index='?(?:1|true|yes|on))", re.IGNORECASE)
_UV_CLOSED = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_OFFLINE")
_UV_TOLD = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")


@dataclass(frozen=True)
class Installer:
    """One way to install packages.

    Attributes:
        program: words that start it.
        told: whether it was told of an index or folder of packages.
        closed: whether it was told to leave the public index out.
    """

    name: Literal["pip", "uv"]
    program: tuple[str, ...]
    told: bool
    closed: bool

    def command(self, interpreter: Path, wanted: Path) -> list[str]:
        """Install the lines of a requirements file, and nothing that they depend on, for an interpreter."""
        if self.name == "uv":
            return [*self.program, "pip", "install", "--python", str(interpreter), "--no-deps", "-r", str(wanted)]
        to = [*self.program, "--python", str(interpreter), "install", "--no-user", "--no-input", "--no-compile"]
        return [*to, "--disable-pip-version-check", "--no-deps", "-r", str(wanted)]


def installers() -> tuple[Installer, ...]:
    """Those to ask, in turn."""
    found = [one for one in (_pip(), _uv(os.environ)) if one is not None]
    ordered = sorted(found, key=lambda one: not one.told)
    return tuple(one for one in ordered if one is ordered[0] or one.told or not ordered[0].closed)


def _pip() -> Installer | None:
    try:
        distribution("pip")  # to look for its module would make setuptools give way to Python's distutils in this process
    except PackageNotFoundError:
        return None
    program = (sys.executable, "-m", "pip")
    listed = subprocess.run([*program, "config", "list"], stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    said = listed.stdout.decode(errors="replace")
    return Installer("pip", program, told=bool(_PIP_TOLD.search(said)), closed=bool(_PIP_CLOSED.search(said)))


def _uv(environ: Mapping[str, str]) -> Installer | None:
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.is_file() else shutil.which("uv")
    if program is None:
        return None
    written = any(path.is_file() for path in _uv_files(environ))  # whatever stands in it: the careful answer
    told = written or any(environ.get(name) for name in _UV_TOLD)
    return Installer("uv", (program,), told=told, closed=written or any(environ.get(name) for name in _UV_CLOSED))


def _uv_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where uv looks for its settings (docs.astral.sh/uv/concepts/configuration-files)."""
    if environ.get("UV_NO_CONFIG"):
        return ()
    if named := environ.get("UV_CONFIG_FILE"):
        return (Path(named),)
    user = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    shared = [Path(folder) for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    return (Path("uv.toml"), *(folder / "uv" / "uv.toml" for folder in (user, *shared, Path("/etc"))))
