"""Claims about folders in the making: a killed process leaves none for long, a living one keeps its own."""

import subprocess
import sys

KILLED = """
import os, signal, sys
from pathlib import Path
from bedside.core.workspace import Workspace
with Workspace(Path(sys.argv[1])).staging() as folder:
    (folder / "half").write_bytes(b"x" * 100)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(workspace):
    done = subprocess.run([sys.executable, "-c", KILLED, str(workspace.folder)], check=False)
    assert done.returncode == -9
    (left,) = workspace.store.glob(".staging-*")
    assert (left / "half").exists()
    with workspace.staging() as folder:
        assert not left.exists()
        (folder / "whole").write_bytes(b"y")
        digest = workspace.put(folder)
    assert [path.name for path in workspace.store.iterdir()] == [digest]


def test_a_folder_in_use_is_left_alone_by_others(workspace):
    with workspace.staging() as first, workspace.staging() as second:
        assert first != second
        assert first.is_dir()
    assert list(workspace.store.iterdir()) == []
