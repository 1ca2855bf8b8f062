"""One sitting of a training: from the start, or from a checkpoint, to the end or a signal."""

import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bedside.core.config import Study
from bedside.core.errors import Interrupted, ResourceError, UsageError
from bedside.core.lesson import PLAIN, Lesson
from bedside.core.plan import Plan
from bedside.core.progress import Progress
from bedside.core.run import Cost, CurvePoint, Incident, PlannedSteps
from bedside.core.site import Site
from bedside.core.task import Network, Task
from bedside.data.loader import Batch, Loader, NoBatchError
from bedside.data.patches import Example, PatchSampler
from bedside.train import randomness
from bedside.train.adapt import Layers, Start
from bedside.train.calibration import Calibration, calibrate
from bedside.train.checkpoint import (
    Checkpoint,
    Position,
    check_same,
    load_checkpoint,
    load_good,
    save_checkpoint,
    settings,
)
from bedside.train.compiling import compile_steps, noted
from bedside.train.device import loaders_for, own_device
from bedside.train.distributed import ALONE, RankError, Ranks
from bedside.train.loop import Learner, moments
from bedside.train.memory import check_ceiling, in_windows, is_out_of_memory, release, smaller
from bedside.train.meter import Meter, peak_memory_mb
from bedside.train.replans import Replans, Replay
from bedside.train.signals import Stop, kept_signals
from bedside.train.validate import score
from bedside.train.watchdog import stalled, watched

NOTE_EVERY_SECONDS = 1.0
CURVE_POINTS = 200
MOST_BAD_STEPS = 3
GOOD_STATES, GOOD_STEPS = 10, 25
"""A state to return to is kept ten times in a training, and not more often than every 25 steps."""
_log = logging.getLogger("bedside.train")


class _StoppedError(Exception):
    """A signal came while cases were scored."""


@dataclass
class Sitting:
    """What one process does of a training.

    Attributes:
        study: what is asked; planned: what is done; folder: of the checkpoints; progress: listener.
        examples: to learn from; left_out: to validate on, may be empty.
        site: how many processes make batches.
        ranks: the processes that compute together, this is the first; lesson: what the task brings beside its loss.
        start: weights to begin with; layers: which of them learn when; replay: a schedule to follow to the step.
        plan: as planned, or smaller where memory ran out.
    """

    study: Study
    planned: Plan
    folder: Path
    progress: Progress
    examples: list[Example]
    left_out: list[Example]
    site: Site = field(default_factory=Site)
    start: Start | None = None
    layers: Layers | None = None
    replay: Replay | None = None
    ranks: Ranks = ALONE
    lesson: Lesson = PLAIN
    plan: Plan = field(init=False)
    learner: Learner = field(init=False)
    loader: Loader = field(init=False)
    meter: Meter = field(init=False)
    position: Position = field(init=False)
    best: dict[str, torch.Tensor] = field(init=False, default_factory=dict)

    def run(self) -> None:
        """Do every step that is left.

        Raises:
            Interrupted: a signal came; saved.
            ResourceError: STALLED, DISK_FULL, OUT_OF_MEMORY, MEMORY or WORKER; what was saved before is intact.
            UsageError: DIVERGED, CHECKPOINT_CONFIG.
        """
        self.plan = self.planned
        with kept_signals() as stop:
            found = load_checkpoint(self.folder)
            if found is None:
                self._begin()
            else:
                self._resume(found)
            self._open_loader()
            try:
                self._work(stop)
            except RankError:
                if not self.ranks.sharded:
                    self._save()
                raise
            except NoBatchError as error:
                self._save()
                raise stalled(error, self.loader, folder=self.folder, step=self.position.step) from error
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise ResourceError(
                    "Memory ran out outside of the training steps; give more memory, or validate on smaller cases. The last"
                    " checkpoint is intact.",
                    code="OUT_OF_MEMORY",
                ) from error
            finally:
                self.loader.close()
            self.best = self.best or self._averaged()
            cost = self.meter.cost()
            took = self.position.seconds_per_step or (cost.step_seconds + cost.data_seconds) / self.position.step
            self.position = self.position.model_copy(update={"cost": cost, "seconds_per_step": took})

    def _work(self, stop: Stop) -> None:
        started, before = time.perf_counter(), self.position.seconds
        saved_at = noted_at = started
        replans = self.replay or Replans(self.position, self.plan.minutes)
        self.progress.start("training", self.position.total_steps)
        interval = 60 * self.study.train.checkpoint_minutes
        while True:
            now = time.perf_counter()
            if self._is_mark():
                if self._is_scored() and now - saved_at > interval / 2:
                    self._save()
                    saved_at = now
                self._try_to_mark(stop)
                self._follow(replans.due(self.position))
            if stop.received or now - saved_at > interval or self.position.step == self.position.total_steps:
                self._save()
                saved_at = now
            if stop.received:
                raise Interrupted(
                    f"Stopped at step {self.position.step} of {self.position.total_steps} and saved;"
                    " the same command goes on from there."
                )
            if self.position.step == self.position.total_steps:
                return
            loss = self._do_step()
            now = time.perf_counter()
            self._advance(before + now - started, loss)
            if not self._is_mark():
                self._follow(replans.due(self.position))
            if now - noted_at > NOTE_EVERY_SECONDS or self.position.step == self.position.total_steps:
                self.progress.advance(self.position.step, self.meter.live(self.position, loss, training=self.folder.name))
                noted_at = now

    def _begin(self) -> None:
        count = self.ranks.count
        self.position = Position(step=0, total_steps=0, seconds=0.0, resumed=0, precision="fp32", processes=count)
        self.meter = Meter(Cost(), self.site.watts_per_core)
        while True:
            try:
                found = calibrate(self._make_learner, self.plan, self.study.train, repeats=self.replay is not None)
                total = self.plan.steps or self._steps_that_fit(found)
                update = {"total_steps": total, "precision": found.precision, "seconds_per_step": found.seconds}
                update |= {"schedule": (PlannedSteps(at=0, total=total),), "compile": found.compile}
                self.position = self.position.model_copy(update=update)
                self.learner = self._start()
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            self._make_smaller()
        if self.start is not None:
            self._note("BEGUN_FROM", self.start.matched.said)

    def _steps_that_fit(self, found: Calibration) -> int:
        if self.replay is not None:
            return self.replay.first
        learner = self._make_learner(found.precision)
        started = time.perf_counter()
        for example in self.left_out[:1]:
            self._score_one(learner.averaged(), example)
        validation = (time.perf_counter() - started) * len(self.left_out) * self.study.train.validations
        return max(1, int((60 * (self.plan.minutes or 0) - validation) / found.seconds))

    def _resume(self, found: Checkpoint) -> None:
        check_same(self.planned, found)
        self.ranks.check_count(found.position.processes)
        self.position = found.position.model_copy(update={"resumed": found.position.resumed + 1})
        self.meter = Meter(found.position.cost, self.site.watts_per_core)
        smaller = {name: value for name in ("micro_batch", "patch") if (value := getattr(found.position, name)) is not None}
        self.plan = self.planned.model_copy(update=smaller)
        self.learner = self._start()
        self.learner.restore(dict(found.tensors), found.scaler)
        self.learner.bad_steps = found.position.bad_steps
        self.best = {name: value for name, value in found.tensors.items() if name.startswith("best.")}
        if found.random is not None:
            randomness.put_back(found.random)
        if found.passed_over:
            files = "checkpoint is" if found.passed_over == 1 else f"{found.passed_over} checkpoints are"
            self._note("CHECKPOINT_DAMAGED", f"the newest {files} damaged; the one of step {found.position.step} is taken")

    def _start(self) -> Learner:
        """The learner of the training, compiled where that was decided."""
        learner, choice = self._make_learner(self.position.precision), self.position.compile
        self.plan = noted(self.plan, choice)
        if choice is not None and choice.value == "on":
            compile_steps(learner)
        return learner

    def _make_learner(self, precision: str) -> Learner:
        """A learner with the seed's fresh weights, the same at every call."""
        plan = self.plan
        task: Task = self.study.task  # type: ignore[assignment]
        network: Network = plan.network  # type: ignore[assignment]
        randomness.seed_all(plan.seed)
        net = network.build(self.examples[0].image.shape[0], task.out_channels(self.study.contract))
        if self.start is not None:
            self.start.begin(net)
        device = own_device(self.site, self.ranks.rank, self.planned.memory_mb)
        return Learner(net, task, self._sampler(), plan, precision, self.layers, self.ranks, self.lesson, device)

    def _sampler(self) -> PatchSampler:
        return PatchSampler(self.examples, self.plan.patch, self.plan.batch, self.plan.foreground, self.plan.seed)

    def _open_loader(self) -> None:
        workers, seconds = loaders_for(self.site, self.plan), self.study.train.stall_seconds
        self.loader = Loader(self.learner.recipe, workers=workers, seconds=seconds)

    def _do_step(self) -> float:
        """Do the next step, in smaller pieces if memory runs out."""
        while True:
            try:
                batch = self._take()
                started = time.perf_counter()
                loss = self.learner.step(self.position.step, self.position.total_steps, batch)
                self.meter.step_seconds += time.perf_counter() - started
                self.meter.steps += 1
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            self._make_smaller()
        if self.learner.bad_steps:
            self._skipped(batch)
        return loss

    def _take(self) -> Batch:
        started = time.perf_counter()
        with watched(1.5 * self.loader.seconds if self.loader.workers else self.loader.seconds):
            batch = self.loader.take(self.position.step)
        self.meter.data_seconds += time.perf_counter() - started
        self.meter.augment_seconds += batch.seconds
        while self.loader.replaced:
            self._note("WORKER_REPLACED", f"a loader process died and another took its place ({self.loader.replaced.pop()})")
        return batch

    def _make_smaller(self) -> None:
        """Take the next rung down and carry everything over; fails when there is none."""
        self.ranks.check_alone_for_less_memory()
        self.plan, incident = smaller(self.plan, self.position.step)
        patch = self.plan.patch if self.plan.patch != self.planned.patch else None
        micro = self.plan.micro_batch if self.plan.micro_batch != self.planned.micro_batch else None
        self.position = self.position.model_copy(update={"micro_batch": micro, "patch": patch})
        self._note(incident.code, incident.said)
        if not hasattr(self, "learner"):
            release()
            return
        self.learner.optimizer.zero_grad()
        self.learner.plan, self.learner.sampler = self.plan, self._sampler()
        release()
        if hasattr(self, "loader"):
            self.loader.close()
            self._open_loader()

    def _skipped(self, batch: Batch) -> None:
        """Say which cases a step was skipped for; return to the last good state after three in a row."""
        step, names = self.position.step, self.learner.sampler.cases(self.position.step)
        own = zip(self.learner.recipe.cases(step), batch.images, strict=True)
        broken = tuple(name for name, image in own if not bool(torch.isfinite(image).all()))
        said = "a voxel of its cases is not finite" if broken else "the loss or its gradient is not finite"
        self._note("NOT_FINITE", f"step {step} was skipped: {said}", broken or names)
        if self.learner.bad_steps >= MOST_BAD_STEPS:
            self._return()

    def _return(self) -> None:
        """Take up the last good state and go on behind the steps that failed; twice to the same state is no progress."""
        good = load_good(self.folder, until=self.position.step)
        step = 0 if good is None else good.position.step
        failed = self.position.incidents[-MOST_BAD_STEPS:]
        cases = tuple(sorted({case for incident in failed for case in incident.cases}))
        if self.position.returned_to == step:
            raise UsageError(
                f"The loss is not finite again and again (last at step {self.position.step}, with {', '.join(cases)}), also after"
                f" returning to step {step}; look at these cases, or lower train.learning_rate.",
                code="DIVERGED",
            )
        if good is None:
            self.learner = self._start()
        else:
            self.learner.restore(dict(good.tensors), good.scaler)
            self.learner.bad_steps = 0
        self.position = self.position.model_copy(update={"returned_to": step})
        self._note("RESTORED", f"{MOST_BAD_STEPS} steps in a row failed; the weights of step {step} are taken up again", cases)

    def _note(self, code: str, said: str, cases: tuple[str, ...] = ()) -> None:
        """Write an incident down, in the log and for the run record."""
        incident = Incident(step=self.position.step, code=code, said=said, cases=tuple(dict.fromkeys(cases)))
        self.position = self.position.model_copy(update={"incidents": (*self.position.incidents, incident)})
        named = f" (cases {', '.join(incident.cases)})" if incident.cases else ""
        _log.warning("%s%s", said, named)

    def _score_one(self, net: nn.Module, example: Example) -> float:
        """Score a case, in smaller windows from now on if memory runs out."""
        task: Task = self.study.task  # type: ignore[assignment]
        attempt = partial(score, net, example, task, self.lesson)
        value, window, said = in_windows(attempt, self.position.window or self.plan.patch, self.plan.network)
        if said:
            self.position = self.position.model_copy(update={"window": window})
            self._note("SMALLER", said, (example.id,))
        return value

    def _score(self, stop: Stop) -> float:
        """Mean over the left-out cases; given up between two of them when a signal comes."""
        started = time.perf_counter()
        scores = []
        self.learner.optimizer.zero_grad()  # gradients of the last step take memory
        net = self.learner.averaged()
        for example in self.left_out:
            if stop.received:
                raise _StoppedError
            scores.append(self._score_one(net, example))
        self.meter.validation_seconds += time.perf_counter() - started
        return sum(scores) / len(scores)

    def _advance(self, seconds: float, loss: float) -> None:
        total, count = self.position.losses
        losses = (total, count) if self.learner.bad_steps else (total + loss, count + 1)
        update = {"step": self.position.step + 1, "seconds": seconds, "losses": losses, "bad_steps": self.learner.bad_steps}
        self.position = self.position.model_copy(update=update)
        every = max(GOOD_STEPS, self.position.total_steps // GOOD_STATES)
        if self.position.step % every == 0 and not self.learner.bad_steps:
            self._save(good=True)

    def _follow(self, total: int | None) -> None:
        """Take up a corrected number of steps: the learning rate falls to zero at the new end."""
        if total is not None:
            plan = PlannedSteps(at=self.position.step, total=total)
            update = {"total_steps": total, "schedule": (*self.position.schedule, plan)}
            self.position = self.position.model_copy(update=update)
            self.progress.start("training", total)

    def _is_scored(self) -> bool:
        return bool(self.left_out) and self.position.step in moments(self.position.total_steps, self.study.train.validations)

    def _is_mark(self) -> bool:
        """Whether a point of the curve belongs here and is not there yet."""
        step, total = self.position.step, self.position.total_steps
        there = bool(self.position.curve) and self.position.curve[-1].step == step
        belongs = self._is_scored() or step % max(1, total // CURVE_POINTS) == 0 or step == total
        return step > 0 and belongs and not there

    def _try_to_mark(self, stop: Stop) -> None:
        """Add a point to the curve; keep the averaged weights if they score best on the left-out fold.

        When a signal comes meanwhile nothing is added, and going on begins with the scoring.
        """
        try:
            value = self._score(stop) if self._is_scored() else None
        except _StoppedError:
            return
        if value is not None and (self.position.best_score is None or value > self.position.best_score):
            self.best = self._averaged()
            self.position = self.position.model_copy(update={"best_score": value})
        total, count = self.position.losses
        mean = total / count if count else float("nan")
        point = CurvePoint(step=self.position.step, minutes=round(self.position.seconds / 60, 3), loss=mean, score=value)
        update = {"curve": (*self.position.curve, point), "losses": (0.0, 0)}
        self.position = self.position.model_copy(update=update)

    def _save(self, *, good: bool = False) -> None:
        self.position = self.position.model_copy(update={"cost": self.meter.cost()})
        tensors, scaler = self.learner.tensors() | self.best, self.learner.scaler_state()
        checkpoint = Checkpoint(self.position, tensors, randomness.now(), scaler, settings(self.planned))
        save_checkpoint(self.folder, checkpoint, good=good)
        check_ceiling(peak_memory_mb() if self.learner.device.type == "cpu" else 0.0, self.plan)  # else torch is held to it

    def weights(self) -> dict[str, torch.Tensor]:
        """What is kept of a training that is done: the best on the left-out fold, else the last average."""
        return {name.removeprefix("best."): value for name, value in self.best.items()}

    def _averaged(self) -> dict[str, torch.Tensor]:
        return {f"best.{name}": value.clone() for name, value in self.learner.averaged().state_dict().items()}
