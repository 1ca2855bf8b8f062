"""What every test may ask for: a study folder, the real scans, a fixed seed."""

import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from bedside.core.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parent.parent
NO_SCANS = "REAL SCANS NOT FOUND"
NO_GIT = "GIT NOT FOUND"

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core already; two thread pools per core only slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("bedside", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bedside")


def scans() -> Path:
    """Where the real scans lie, whether or not they are there."""
    return Path(os.environ.get("BEDSIDE_DATA") or REPOSITORY.parent / "shared" / "data")


def need_scans() -> None:
    """Leave a test out, loudly, where there are no real scans."""
    if not scans().is_dir():
        pytest.skip(f"{NO_SCANS}: set BEDSIDE_DATA to the folder that holds them")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real"):
        need_scans()
    if item.get_closest_marker("git") and shutil.which("git") is None:
        pytest.skip(f"{NO_GIT}: this test needs it")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in large letters what was not tested, and why."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    others = Counter(reason for reason in reasons if NO_SCANS not in reason and NO_GIT not in reason)
    if others:
        terminalreporter.section("NOT EVERYTHING WAS TESTED", sep="!", red=True, bold=True)
        for reason, count in others.items():
            terminalreporter.write_line(f"{count} x {reason}")
    for what, remedy in ((NO_SCANS, "Set BEDSIDE_DATA to the folder that holds them."), (NO_GIT, "Install git.")):
        missed = sum(what in reason for reason in reasons)
        if missed:
            terminalreporter.section(what, sep="!", red=True, bold=True)
            terminalreporter.write_line(f"{what}: {missed} tests did not run. {remedy}")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real scans (BEDSIDE_DATA, or ../shared/data beside the checkout); without it the test is skipped loudly."""
    need_scans()
    return scans()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty study folder."""
    folder = tmp_path / "study"
    folder.mkdir()
    return Workspace(folder)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from the legacy generator; ours never do
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(0)
        if "PYTEST_XDIST_WORKER" in os.environ:
            torch.set_num_threads(1)


@pytest.fixture
def limited_file_size() -> Callable[[int], AbstractContextManager[None]]:
    """Within the block no file grows beyond a number of bytes: the kernel answers EFBIG, as a full disk answers ENOSPC."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit
