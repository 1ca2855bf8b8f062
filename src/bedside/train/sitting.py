"""One sitting of a training: from the start, or from a checkpoint, to the end or a signal."""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from bedside.core.config import Study
from bedside.core.errors import Interrupted, ResourceError
from bedside.core.plan import Plan
from bedside.core.progress import Progress
from bedside.core.run import CurvePoint, PlannedSteps
from bedside.core.task import Network, Task
from bedside.data.patches import Example, PatchSampler
from bedside.train.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from bedside.train.loop import Learner, fastest_precision, moments
from bedside.train.validate import foreground_dice

NOTE_EVERY_SECONDS = 1.0
REPLAN_AT = (0.08, 0.25, 0.5, 0.75, 0.9)
REPLAN_BEYOND = 0.1
CURVE_POINTS = 200


class Replans:
    """Keeps a budget of minutes on a machine whose speed changes: says when the number of steps has to be corrected.

    At a few fixed shares of the budget the speed since the last look is extrapolated; a plan that is off by more than 10 % is
    corrected. With `train.steps` there is no budget and nothing is ever corrected.
    """

    def __init__(self, position: Position, minutes: float | None) -> None:
        self.budget_seconds = 60 * minutes if minutes is not None else None
        self.seconds, self.step = position.seconds, position.step

    def due(self, position: Position) -> int | None:
        """Return the corrected total after this step, or None where the plan stands."""
        budget = self.budget_seconds
        if budget is None or position.step >= position.total_steps or position.step == self.step:
            return None
        if not any(self.seconds < share * budget <= position.seconds for share in REPLAN_AT):
            return None
        rate = (position.seconds - self.seconds) / (position.step - self.step)
        self.seconds, self.step = position.seconds, position.step
        total = position.step + max(1, int((budget - position.seconds) / rate))
        return total if abs(total - position.total_steps) > REPLAN_BEYOND * position.total_steps else None


@dataclass
class Sitting:
    """What one process does of a training.

    Attributes:
        study: what is asked; plan: what is done; folder: of the checkpoints; progress: listener.
        examples: to learn from; left_out: to validate on, may be empty.
    """

    study: Study
    plan: Plan
    folder: Path
    progress: Progress
    examples: list[Example]
    left_out: list[Example]
    learner: Learner = field(init=False)
    position: Position = field(init=False)
    best: dict[str, torch.Tensor] = field(init=False, default_factory=dict)

    def run(self) -> None:
        """Do every step that is left."""
        found = load_checkpoint(self.folder)
        if found is None:
            self._begin()
        else:
            self._resume(found)
        started, before = time.perf_counter(), self.position.seconds
        saved_at = noted_at = started
        replans = Replans(self.position, self.plan.minutes)
        self.progress.start("training", self.position.total_steps)
        losses: list[float] = []
        with _signals() as stop:
            while self.position.step < self.position.total_steps:
                losses.append(self.learner.step(self.position.step, self.position.total_steps))
                now = time.perf_counter()
                self._advance(before + now - started)
                if self._is_scored() or self._is_curve_point():
                    self._mark(losses, score=self._is_scored())
                    losses = []
                self._follow(replans.due(self.position))
                if now - noted_at > NOTE_EVERY_SECONDS or self.position.step == self.position.total_steps:
                    self.progress.advance(self.position.step, f"loss {losses[-1]:.3f}" if losses else self._note())
                    noted_at = now
                if stop.received or now - saved_at > 60 * self.study.train.checkpoint_minutes:
                    self._save()
                    saved_at = now
                if stop.received:
                    raise Interrupted(
                        f"Stopped at step {self.position.step} of {self.position.total_steps} and saved;"
                        " the same command goes on from there."
                    )

    def _begin(self) -> None:
        plan = self.plan
        precision, seconds = fastest_precision(self._make_learner, plan.precision)
        total = plan.steps
        if total is None:
            validation = self._seconds_of_validation(precision) * self.study.train.validations if self.left_out else 0.0
            total = max(1, int((60 * (plan.minutes or 0) - validation) / seconds))
        self.learner = self._make_learner(precision)
        self.position = Position(
            step=0,
            total_steps=total,
            seconds=0.0,
            resumed=0,
            precision=precision,
            seconds_per_step=seconds,
            best_score=None,
            schedule=(PlannedSteps(at=0, total=total),),
            curve=(),
        )

    def _resume(self, found: Checkpoint) -> None:
        self.position = found.position.model_copy(update={"resumed": found.position.resumed + 1})
        self.learner = self._make_learner(found.position.precision)
        self.learner.restore(dict(found.tensors))
        self.best = {name: value for name, value in found.tensors.items() if name.startswith("best.")}

    def _make_learner(self, precision: str) -> Learner:
        """A learner with the seed's fresh weights, the same at every call."""
        plan = self.plan
        task: Task = self.study.task  # type: ignore[assignment]
        network: Network = plan.network  # type: ignore[assignment]
        torch.manual_seed(plan.seed)
        net = network.build(self.examples[0].image.shape[0], task.out_channels(self.study.contract))
        sampler = PatchSampler(self.examples, plan.patch, plan.batch, plan.foreground, plan.seed)
        return Learner(net, task, sampler, plan, precision)

    def _seconds_of_validation(self, precision: str) -> float:
        learner = self._make_learner(precision)
        start = time.perf_counter()
        self._score(learner, self.left_out[:1])
        return (time.perf_counter() - start) * len(self.left_out)

    def _score(self, learner: Learner, examples: list[Example]) -> float:
        return foreground_dice(learner.ema, examples, task=learner.task, patch=self.plan.patch)

    def _advance(self, seconds: float) -> None:
        self.position = self.position.model_copy(update={"step": self.position.step + 1, "seconds": seconds})

    def _follow(self, total: int | None) -> None:
        """Take up a corrected number of steps: the learning rate falls to zero at the new end."""
        if total is not None:
            plan = PlannedSteps(at=self.position.step, total=total)
            update = {"total_steps": total, "schedule": (*self.position.schedule, plan)}
            self.position = self.position.model_copy(update=update)
            self.progress.start("training", total)

    def _is_scored(self) -> bool:
        return bool(self.left_out) and self.position.step in moments(self.position.total_steps, self.study.train.validations)

    def _is_curve_point(self) -> bool:
        every = max(1, self.position.total_steps // CURVE_POINTS)
        return self.position.step % every == 0 or self.position.step == self.position.total_steps

    def _mark(self, losses: list[float], *, score: bool) -> None:
        """Add a point to the curve; keep the averaged weights if they score best on the left-out fold."""
        value = self._score(self.learner, self.left_out) if score else None
        if value is not None and (self.position.best_score is None or value > self.position.best_score):
            self.best = {f"best.{name}": tensor.clone() for name, tensor in self.learner.ema.state_dict().items()}
            self.position = self.position.model_copy(update={"best_score": value})
        mean = sum(losses) / len(losses) if losses else float("nan")
        point = CurvePoint(step=self.position.step, minutes=round(self.position.seconds / 60, 3), loss=mean, score=value)
        self.position = self.position.model_copy(update={"curve": (*self.position.curve, point)})

    def _note(self) -> str:
        scores = [point.score for point in self.position.curve if point.score is not None]
        return f"dice {scores[-1]:.3f}" if scores else ""

    def _save(self) -> None:
        save_checkpoint(self.folder, Checkpoint(self.position, self.learner.tensors() | self.best))
        used = peak_memory_mb()
        if used > self.plan.memory_mb:
            raise ResourceError(
                f"Training used {used:.0f} MB of memory and train.memory_gb allows {self.plan.memory_mb:.0f} MB;"
                " make train.patch or train.batch smaller, or raise the ceiling. The last checkpoint is saved.",
                code="MEMORY",
            )

    def weights(self) -> dict[str, torch.Tensor]:
        """What is kept: the best on the left-out fold, else the last average."""
        if self.best:
            return {name.removeprefix("best."): value for name, value in self.best.items()}
        return dict(self.learner.ema.state_dict())


@dataclass
class _Stop:
    received: int = 0


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a flag that is looked at between steps (main thread only)."""
    stop = _Stop()

    def remember(number: int, _frame: FrameType | None) -> None:
        stop.received = number

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, remember) for number in wanted}
    except ValueError:  # not the main thread: whoever runs the threads handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
