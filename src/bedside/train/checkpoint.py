"""What a kill may not lose: one file per checkpoint, written atomically, the last two kept.

Beside those that time and signals ask for there are the states to return to when a training goes wrong: written at fixed steps,
so that which one there is depends on the step only. Both kinds are checkpoints, and a training goes on from the newest sound one.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bedside.core.digest import digest_bytes
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.files import write_atomic
from bedside.core.plan import Choice, Plan
from bedside.core.record import Record
from bedside.core.run import Cost, CurvePoint, Incident, PlannedSteps
from bedside.train.randomness import Randomness

KEEP = 2
_NAME = re.compile(r"(checkpoint|good)-(\d{8})-([0-9a-f]{64})\.safetensors\Z")
_OF_THE_MACHINE = {"machine", "memory_mb", "predicted_memory_mb", "fingerprint", "choices"}
"""What a plan says of the place it was made for: another place may go on."""
_MOST_NAMED = 4


class Position(Record):
    """Where a training stands.

    Attributes:
        step: steps done; total_steps: the whole schedule, measured once and then fixed.
        seconds: spent so far in all sittings; resumed: how often it was taken up again.
        precision: what "auto" was resolved to; processes: that computed together.
        seconds_per_step: as measured at the start.
        best_score: of the left-out fold, or None.
        schedule: the plan and its corrections.
        losses: sum and number of the losses since the last point of the curve.
        micro_batch, patch, and the window that cases are scored in: smaller than planned, for want of memory; None: as planned.
        bad_steps: how many steps in a row were skipped until here; returned_to: step of the state that was last returned to.
        incidents: what had to be dealt with; cost: what it took so far.
        compile: whether steps are compiled, and why; None: nobody asked.
    """

    step: int
    total_steps: int
    seconds: float
    resumed: int
    precision: str
    seconds_per_step: float = 0.0
    best_score: float | None = None
    schedule: tuple[PlannedSteps, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    losses: tuple[float, int] = (0.0, 0)
    micro_batch: int | None = None
    patch: tuple[int, int, int] | None = None
    window: tuple[int, int, int] | None = None
    bad_steps: int = 0
    returned_to: int | None = None
    processes: int = 1
    incidents: tuple[Incident, ...] = ()
    cost: Cost = Cost()
    compile: Choice | None = None

    @property
    def minutes_left(self) -> float:
        """Of work from here to the end, at the speed so far."""
        return (self.total_steps - self.step) * self.seconds / max(1, self.step) / 60


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that the next step depends on.

    The place of the sampler and of the schedule is the step itself: both are functions of it.

    Attributes:
        position: where the training stands.
        tensors: by name ("net.*", "ema.*", "adam.*"), and the weights that scored best ("best.*").
        random: the states of all generators; scaler: of the gradients, in half precision.
        plan: of the training, without what was made smaller later.
        passed_over: how many newer files were damaged when it was loaded.
    """

    position: Position
    tensors: Mapping[str, torch.Tensor]
    random: Randomness | None = None
    scaler: Mapping[str, float] | None = None
    plan: Mapping[str, JsonValue] | None = None
    passed_over: int = 0


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, good: bool = False) -> Path:
    """Write a checkpoint and then remove all but the last two of its kind.

    The name carries the SHA-256 of the bytes, so a damaged file is seen when it is read.

    Args:
        folder: of the training.
        checkpoint: what is written.
        good: a state to return to.

    Raises:
        ResourceError: the disk is full; older checkpoints are intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    metadata = {"position": checkpoint.position.model_dump_json()}
    metadata |= {name: json.dumps(value) for name, value in (("scaler", checkpoint.scaler), ("plan", checkpoint.plan)) if value}
    if checkpoint.random is not None:
        metadata["random"] = checkpoint.random.model_dump_json()
    data = save(tensors, metadata=metadata)
    kind = "good" if good else "checkpoint"
    path = folder / f"{kind}-{checkpoint.position.step:08d}-{digest_bytes(data)}.safetensors"
    write_atomic(path, data, doing="writing a checkpoint")
    for old in _found(folder, kind)[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint, or None when there is none.

    A damaged file is passed over for the one before it, and counted.

    Raises:
        IntegrityError: there are checkpoints and none is sound.
    """
    found = _found(folder)
    for number, path in enumerate(reversed(found)):
        checkpoint = _read(path)
        if checkpoint is not None:
            return replace(checkpoint, passed_over=number)
    if found:
        raise IntegrityError(
            "Every checkpoint of this training is damaged; start it again with --fresh.", code="CHECKPOINT_DAMAGED"
        )
    return None


def newest_position(folder: Path) -> Position | None:
    """Where the newest readable checkpoint stands, without reading its tensors; None where there is none."""
    for path in reversed(_found(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                return Position.model_validate_json((file.metadata() or {}).get("position", ""))
        except (OSError, SafetensorError, ValidationError):
            continue
    return None


def load_good(folder: Path, *, until: int) -> Checkpoint | None:
    """Return the newest state to return to, of step `until` at most, or None when there is none yet."""
    kept = (_read(path) for path in reversed(_found(folder, "good")))
    return next((found for found in kept if found is not None and found.position.step <= until), None)


def settings(plan: Plan) -> dict[str, JsonValue]:
    """What of a plan a checkpoint depends on."""
    return plan.model_dump(mode="json", exclude=_OF_THE_MACHINE)


def check_same(plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that another plan made.

    Raises:
        UsageError: CHECKPOINT_CONFIG, with each key that differs, what is asked and what was.
    """
    if checkpoint.plan is None:
        return
    different = differences(settings(plan), dict(checkpoint.plan))
    if different:
        raise UsageError(
            f"The checkpoint belongs to a training with other settings: {different}. Set them back, or start again with --fresh.",
            code="CHECKPOINT_CONFIG",
        )


def differences(asked: Mapping[str, JsonValue], was: Mapping[str, JsonValue]) -> str:
    """Name the keys in which two trees differ, with both values; "" when there are none."""
    now, before = dict(_leaves("", asked)), dict(_leaves("", was))
    keys = [key for key in sorted(now.keys() | before.keys()) if now.get(key) != before.get(key)]
    named = [f"{key} (asked {json.dumps(now.get(key))}, was {json.dumps(before.get(key))})" for key in keys[:_MOST_NAMED]]
    return ", ".join(named) + (f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else "")


def _leaves(where: str, value: JsonValue | Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{where}.{key}" if where else key, inner)
    else:
        yield where, value


def _found(folder: Path, kind: str = "*") -> list[Path]:
    """Files of a kind, the oldest first; of one step those that time asked for come last."""
    named = [(match, path) for path in folder.glob(f"{kind}-*") if (match := _NAME.match(path.name))] if folder.is_dir() else []
    return [path for match, path in sorted(named, key=lambda item: (item[0].group(2), item[0].group(1) == "checkpoint"))]


def _read(path: Path) -> Checkpoint | None:
    match = _NAME.match(path.name)
    if match is None or digest_bytes(path.read_bytes()) != match.group(3):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            position = Position.model_validate_json(told.get("position", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            random = Randomness.model_validate_json(told["random"]) if "random" in told else None
            scaler, plan = (json.loads(told.get(name, "null")) for name in ("scaler", "plan"))
            return Checkpoint(position, tensors, random, scaler, plan)
    except (SafetensorError, ValidationError):
        return None
