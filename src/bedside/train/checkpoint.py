"""What a kill may not lose: one file per checkpoint, written atomically, the last two kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bedside.core.digest import digest_bytes
from bedside.core.errors import IntegrityError
from bedside.core.files import write_atomic
from bedside.core.record import Record
from bedside.core.run import CurvePoint, PlannedSteps

KEEP = 2
_NAME = re.compile(r"checkpoint-(\d{8})-([0-9a-f]{64})\.safetensors\Z")


class Position(Record):
    """Where a training stands.

    Attributes:
        step: steps done; total_steps: the whole schedule, measured once and then fixed.
        seconds: spent so far in all sittings; resumed: how often it was taken up again.
        precision: what "auto" was resolved to.
        seconds_per_step: as measured at the start.
        best_score: of the left-out fold, or None.
        schedule: the plan and its corrections.
    """

    step: int
    total_steps: int
    seconds: float
    resumed: int
    precision: str
    seconds_per_step: float
    best_score: float | None
    schedule: tuple[PlannedSteps, ...]
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A position and every tensor that the next step depends on, by name ("net.*", "ema.*", "adam.*", "best.*")."""

    position: Position
    tensors: Mapping[str, torch.Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and then remove all but the last two.

    The name carries the SHA-256 of the bytes, so a damaged file is seen when it is read.

    Raises:
        ResourceError: the disk is full; older checkpoints are intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = save(tensors, metadata={"position": checkpoint.position.model_dump_json()})
    path = folder / f"checkpoint-{checkpoint.position.step:08d}-{digest_bytes(data)}.safetensors"
    write_atomic(path, data, doing="writing a checkpoint")
    for old in _found(folder)[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint, or None when there is none.

    A damaged file is passed over for the one before it.

    Raises:
        IntegrityError: there are checkpoints and none is sound.
    """
    found = _found(folder)
    for path in reversed(found):
        checkpoint = _read(path)
        if checkpoint is not None:
            return checkpoint
    if found:
        raise IntegrityError(
            "Every checkpoint of this training is damaged; start it again with --fresh.", code="CHECKPOINT_DAMAGED"
        )
    return None


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint-*") if _NAME.match(path.name)) if folder.is_dir() else []


def _read(path: Path) -> Checkpoint | None:
    match = _NAME.match(path.name)
    if match is None or digest_bytes(path.read_bytes()) != match.group(2):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = Position.model_validate_json((file.metadata() or {}).get("position", ""))
            return Checkpoint(position, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a dict
    except (SafetensorError, ValidationError):
        return None
