"""What a result was computed in: versions, processor and code. No host name, no user, no paths."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path

from pydantic import Field, JsonValue

from bedside.core.digest import digest_bytes, digest_file, digest_json
from bedside.core.record import Record

NUMERIC = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "KMP_DETERMINISTIC_REDUCTION",
    "MKL_CBWR",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "OMP_DYNAMIC",
    "OMP_NUM_THREADS",
    "OMP_SCHEDULE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)
"""Environment variables of torch, OpenMP, MKL, oneDNN and OpenBLAS that change digits."""
_PLAIN = re.compile(r"[A-Za-z0-9_,.=+-]{1,64}\Z")


class Environment(Record):
    """Versions and processor.

    Attributes:
        python: version of the interpreter.
        platform: operating system, its release, machine, C library.
        packages: every installed distribution, name to version, sorted by name.
        torch: version of torch with its build ("2.13.0+cpu"); "" when it is not installed.
        cpu_flags: SHA-256 of the processor's sorted feature flags: kernels, and so last digits, differ where it does.
        threads: processors that this process may run on.
        instructions: what torch's kernels were chosen for ("AVX512", "AVX2", "DEFAULT"); "" without torch.
        libraries: of linear algebra and convolutions that torch was built with ("mkl", "mkldnn").
        settings: environment variables that change how numbers are computed, as they stood ("OMP_NUM_THREADS": "2").
    """

    python: str
    platform: str
    packages: dict[str, str]
    torch: str
    cpu_flags: str
    threads: int
    instructions: str = ""
    libraries: tuple[str, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)

    def digest(self) -> str:
        """The hash of the record."""
        return digest_json(self.model_dump(mode="json"))


def environment(*, threads: int | None = None) -> Environment:
    """Describe the environment of this process; torch is imported, for it alone knows which kernels it will take.

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
        instructions=_instructions() if "torch" in packages else "",
        libraries=_libraries() if "torch" in packages else (),
        settings=numeric_settings(os.environ),
    )


def numeric_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that change threads, kernels or the order of sums; a value that is no plain word is hidden."""
    found = {name: environ[name] for name in NUMERIC if name in environ}
    return {name: value if _PLAIN.match(value) else "other" for name, value in found.items()}


def _instructions() -> str:
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def _libraries() -> tuple[str, ...]:
    import torch

    found = {"mkl": torch.backends.mkl.is_available(), "mkldnn": torch.backends.mkldnn.is_available()}  # type: ignore[no-untyped-call]
    return tuple(name for name, there in found.items() if there)


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


class Difference(Record):
    """One thing in which two environments differ; "" where it is not there."""

    what: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: was {self.was or 'not there'}, is {self.now or 'not there'}"


def differences(was: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> tuple[Difference, ...]:
    """Name everything in which two recorded environments differ, tables row by row.

    What an older version did not record cannot differ.
    """
    found = []
    for key in sorted(was.keys() & now.keys()):
        one, other = was[key], now[key]
        if isinstance(one, dict) and isinstance(other, dict):
            rows = (Difference(what=f"{key} {name}", was=_said(one, name), now=_said(other, name)) for name in _names(one, other))
            found += [row for row in rows if row.was != row.now]
        elif one != other:
            found.append(Difference(what=key, was=_short(one), now=_short(other)))
    return tuple(found)


def _names(one: Mapping[str, JsonValue], other: Mapping[str, JsonValue]) -> list[str]:
    return sorted(one.keys() | other.keys())


def _said(table: Mapping[str, JsonValue], name: str) -> str:
    return str(table.get(name, ""))


def _short(value: JsonValue) -> str:
    """A value in a sentence; of a digest its beginning."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text
