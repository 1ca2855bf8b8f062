"""Whether there is a training to go on with, and if it was asked something else, what."""

import json
from pathlib import Path

from pydantic import JsonValue

from bedside.core.digest import canonical_json
from bedside.core.errors import UsageError
from bedside.core.files import write_atomic
from bedside.core.workspace import Workspace
from bedside.train.checkpoint import differences, load_checkpoint

ASKED = "asked.json"


def keep_question(folder: Path, question: dict[str, JsonValue]) -> None:
    """Write beside the checkpoints what the training was asked.

    Raises:
        ResourceError: the disk is full.
    """
    write_atomic(folder / ASKED, canonical_json(question), doing="keeping the settings of a training")


def check_resumable(workspace: Workspace, folder: Path, question: dict[str, JsonValue]) -> None:
    """Refuse to go on where there is nothing to go on with.

    Raises:
        UsageError: NO_CHECKPOINT; CHECKPOINT_CONFIG, with the settings that differ, when another training is unfinished.
        IntegrityError: every checkpoint is damaged.
    """
    if load_checkpoint(folder) is not None:
        return
    others = [path for path in sorted(workspace.scratch.glob(f"train-*/{ASKED}")) if path.parent != folder]
    others = [path for path in others if load_checkpoint(path.parent) is not None]
    if not others:
        raise UsageError(
            "There is no checkpoint to resume from; leave --resume out, or add --or-start to begin where there is none.",
            code="NO_CHECKPOINT",
        )
    newest = max(others, key=lambda path: path.stat().st_mtime)
    different = differences(question, json.loads(newest.read_bytes()))
    raise UsageError(
        f"The unfinished training in this study has other settings: {different}. Set them back to resume it, or leave --resume"
        " out to begin a new one.",
        code="CHECKPOINT_CONFIG",
    )
