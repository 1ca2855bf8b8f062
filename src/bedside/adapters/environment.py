"""What a result was computed in: versions, processor and code. No host name, no user, no paths."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

from bedside.core.digest import digest_bytes, digest_file, digest_json
from bedside.core.record import Record


class Environment(Record):
    """Versions and processor.

    Attributes:
        python: version of the interpreter.
        platform: operating system, its release, machine, C library.
        packages: every installed distribution, name to version, sorted by name.
        torch: version of torch with its build ("2.13.0+cpu"); "" when it is not installed.
        cpu_flags: SHA-256 of the processor's sorted feature flags: kernels, and so last digits, differ where it does.
        threads: processors that this process may run on.
    """

    python: str
    platform: str
    packages: dict[str, str]
    torch: str
    cpu_flags: str
    threads: int

    def digest(self) -> str:
        """The hash of the record."""
        return digest_json(self.model_dump(mode="json"))


def environment(*, threads: int | None = None) -> Environment:
    """Describe the environment of this process, without importing any of it.

    Args:
        threads: threads that are used; None: the processors this process may run on.
    """
    packages = {name.lower().replace("_", "-"): found.version for found in distributions() if (name := found.metadata["Name"])}
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()}-{platform.release()}-{platform.machine()}-{'-'.join(platform.libc_ver())}",
        packages=dict(sorted(packages.items())),
        torch=packages.get("torch", ""),
        cpu_flags=_cpu_flags(),
        threads=threads or len(os.sched_getaffinity(0)),
    )


def _cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return digest_bytes(" ".join(sorted(flags)).encode())


def commit(folder: Path | None = None) -> str:
    """Say which code this is.

    Args:
        folder: of the package's source; None: where bedside was imported from.

    Returns:
        The git commit that the folder was checked out from, with "+" when anything in it was edited or added since; where it is
        in no checkout, "bedside-VERSION+sha256:" and 12 digits of the digest of its `.py` files.
    """
    folder = folder or Path(__file__).parent.parent
    # a package installed into a virtual environment inside somebody's repository is not part of that repository
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None:
        head, changed = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
        if head:
            return head if changed == "" else f"{head}+"
    table = {path.relative_to(folder).as_posix(): digest_file(path) for path in sorted(folder.rglob("*.py"))}
    return f"bedside-{version('bedside')}+sha256:{digest_json(table)[:12]}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints, or None when there is no git or it refuses."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "--no-optional-locks", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed arguments, no shell
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
