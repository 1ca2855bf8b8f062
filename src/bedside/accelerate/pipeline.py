"""Try faster forms of a model on real cases; keep those that are faster here and answer the same."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import JsonValue, ValidationError

from bedside.accelerate.compare import Acceleration, Comparison, StageResult, compare_case, judge, summarise, timed
from bedside.accelerate.export import restage
from bedside.core.config import Accelerate
from bedside.core.dataset import CaseSequence
from bedside.core.errors import GateRefused, InputRejected, IntegrityError, UnsafeArtefact, UsageError, disk_errors
from bedside.core.model import Model
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.workspace import Workspace
from bedside.engines.onnxruntime import available_threads
from bedside.engines.predict import CasePredictor, open_model
from bedside.engines.torch import TorchEngine

BASELINE = TorchEngine()


def try_stages(model: Model, cases: CaseSequence, *, settings: Accelerate, progress: Progress = SILENT) -> Acceleration:
    """Compare every stage with torch in eager float32 on the same cases, keep the accepted ones, and write all of it down.

    Each accepted stage becomes a model in the store and an `accelerated` event; a rejected one leaves a `stage_rejected` event
    and no bytes. The table of all stages is stored as `acceleration.json`.

    Args:
        model: safetensors weights.
        cases: development cases with labels; at most `settings.cases` of them are used, spread evenly.
        settings: which stages, and what they may cost.
        progress: hears one unit per case and run.

    Raises:
        UsageError: no cases, cases of the locked test split or without labels, a model that is not safetensors, or a stage that
            is the baseline.
    """
    chosen_cases = _spread(cases, settings.cases)
    _check(model, chosen_cases, settings.stages)
    baseline = open_model(model, engine=BASELINE)
    with _scratch(model.workspace) as scratch:
        trial = _Trial(baseline, chosen_cases, settings, progress)
        named = zip(stage_names(settings.stages), settings.stages, strict=True)
        results = [trial.run(name, engine, scratch) for name, engine in named]
        _keep([result.model for result in results if result.accepted], scratch, model.workspace)
    table = _table(model, chosen_cases, settings, results)
    _announce(table, model, chosen_cases)
    return table


def accelerate(
    model: Model, cases: CaseSequence, *, engine: str, precision: str = "fp32", settings: Accelerate | None = None
) -> Model:
    """Return the model in the form one engine runs, if that is faster here and answers the same.

    Args:
        model: safetensors weights.
        cases: development cases with labels.
        engine: name of the engine.
        precision: of its computation.
        settings: limits and repeats; its stages are not used.

    Raises:
        UsageError: there is no such engine or precision, or the cases cannot be used (see `try_stages`).
        GateRefused: the stage is rejected; the sentence says by what numbers.
    """
    part = _engine(engine, precision)
    given = settings.model_copy(update={"stages": (part,)}) if settings is not None else Accelerate(stages=(part,))
    (result,) = try_stages(model, cases, settings=given).stages
    if not result.accepted:
        raise GateRefused(f"Stage {result.name} is {result.because}.", code="STAGE_REJECTED")
    return Model(result.model, model.workspace)


def stage_name(engine: Part) -> str:
    """Engine and precision: "torch-bf16"."""
    precision = engine.settings().get("precision")
    return f"{engine.part_name}-{precision}" if precision else engine.part_name


def stage_names(engines: Sequence[Part]) -> tuple[str, ...]:
    """A name for each, with a number behind it where two share one ("torch-bf16-2")."""
    names: list[str] = []
    for engine in engines:
        name = stage_name(engine)
        before = sum(stage_name(other) == name for other in engines[: len(names)])
        names.append(f"{name}-{before + 1}" if before else name)
    return tuple(names)


class _StageFailed(Exception):
    """A stage that could not be made or could not answer; carries the sentence."""


@contextmanager
def _failing_is_rejection() -> Iterator[None]:
    try:
        yield
    except (InputRejected, IntegrityError, UnsafeArtefact, UsageError) as error:
        raise _StageFailed(error.sentence) from error


@dataclass(frozen=True)
class _Trial:
    """Stages being compared with the baseline on the same cases."""

    baseline: CasePredictor
    cases: CaseSequence
    settings: Accelerate
    progress: Progress

    def run(self, name: str, engine: Part, scratch: Workspace) -> StageResult:
        """Make the stage's model, measure it and judge it; what fails on the way is a rejection."""
        self.progress.start(f"comparing {name}", len(self.cases) * (1 + self.settings.repeats))
        digest, weights_bytes, measured = "", 0, None
        try:
            with _failing_is_rejection():
                candidate = restage(self.baseline.model, engine, workspace=scratch)
                stage = open_model(candidate, engine=engine)
            digest, weights_bytes = candidate.digest, candidate.weights_bytes
            measured = self._measure(stage)
            accepted, because = judge(measured, max_dice_change=self.settings.max_dice_change)
        except _StageFailed as error:
            accepted, because = False, f"rejected: {error}"
        return StageResult(
            name=name,
            engine=engine.settings(),
            model=digest,
            weights_bytes=weights_bytes,
            measured=measured,
            accepted=accepted,
            because=because,
        )

    def _measure(self, stage: CasePredictor) -> Comparison:
        """Answer every case once with both (which warms both up), then time both in turn; each run opens its case anew."""
        differences, slow, fast = [], [], []
        structures = self.baseline.model.spec.contract.structures
        for index in range(len(self.cases)):
            reference = self.cases[index].volumes["label"].array[0]
            before = self.baseline.answer(self.cases[index])
            with _failing_is_rejection():
                after = stage.answer(self.cases[index])
                differences.append(compare_case(before, after, reference, structures=structures))
            self.progress.advance(index + 1)
        done = len(self.cases)
        for _ in range(self.settings.repeats):
            for index in range(len(self.cases)):
                first, second = self.cases[index], self.cases[index]
                slow.append(timed(partial(self.baseline, first)))
                with _failing_is_rejection():
                    fast.append(timed(partial(stage, second)))
                done += 1
                self.progress.advance(done)
        return summarise(differences, slow, fast)


def _engine(name: str, precision: str) -> Part:
    part = registry("engine").resolve(name)
    try:
        return part.model_validate({"precision": precision})
    except ValidationError as error:
        raise UsageError(f"The engine {name} has no precision {precision!r}; see bedside schema.", code="PRECISION") from error


def _spread(cases: CaseSequence, limit: int) -> CaseSequence:
    """At most `limit` cases, spread evenly over the sequence."""
    records = cases.records
    if len(records) > limit:
        records = tuple(records[round(position)] for position in np.linspace(0, len(records) - 1, limit))
    return CaseSequence(cases.dataset, cases.split, records)


def _check(model: Model, cases: CaseSequence, stages: Sequence[Part]) -> None:
    if cases.split == "test":
        raise UsageError("Engines are chosen on development cases; the locked test split is not for choosing.", code="SPLIT")
    if not cases.records or any("label" not in record.volumes for record in cases.records):
        raise UsageError(
            "A stage is judged by its Dice against the ground truth; give at least one case, all with labels.", code="CASES"
        )
    if model.spec.format != "safetensors":
        raise UsageError(
            f"{model.digest[:12]} is already an {model.spec.format} export; accelerate the model it was made from.", code="FORMAT"
        )
    if any(engine.settings() == BASELINE.settings() for engine in stages):
        raise UsageError(
            f"The stage {stage_name(BASELINE)} is the baseline itself; name another precision or engine.", code="STAGE"
        )


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Workspace]:
    """A workspace for candidates, emptied afterwards: what is rejected never enters the store."""
    workspace.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=workspace.scratch, prefix="accelerate-"))
    try:
        yield Workspace(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(digests: Sequence[str], scratch: Workspace, workspace: Workspace) -> None:
    """Copy accepted candidates into the store."""
    for digest in digests:
        with workspace.staging() as staged, disk_errors("storing a model"):
            for path in scratch.get(digest).iterdir():
                shutil.copyfile(path, staged / path.name)
            stored = workspace.put(staged)
        assert stored == digest


def _table(model: Model, cases: CaseSequence, settings: Accelerate, results: Sequence[StageResult]) -> Acceleration:
    accepted = [(result.measured.speed_ratio, result) for result in results if result.accepted and result.measured is not None]
    best = max(accepted, key=lambda pair: pair[0])[1] if accepted else None
    return Acceleration(
        model=model.digest,
        weights_bytes=model.weights_bytes,
        dataset=cases.dataset.digest,
        split=cases.split,
        cases=len(cases),
        repeats=settings.repeats,
        max_dice_change=settings.max_dice_change,
        threads=available_threads(),
        baseline=stage_name(BASELINE),
        stages=tuple(results),
        chosen=best.name if best else stage_name(BASELINE),
        chosen_model=best.model if best else model.digest,
    )


def _announce(table: Acceleration, model: Model, cases: CaseSequence) -> None:
    """Store the table, then tell the ledger, one event per stage."""
    workspace = model.workspace
    evidence = workspace.put_record("acceleration.json", table, doing="storing a comparison")
    for stage in table.stages:
        facts: dict[str, JsonValue] = {"stage": stage.name, "because": stage.because}
        inputs = {"model": model.digest, "dataset": cases.dataset.digest}
        if stage.accepted:
            outputs = {"model": stage.model, "evidence": evidence}
            workspace.ledger.append(
                "accelerated", inputs=inputs, outputs=outputs, facts=facts | {"chosen": stage.name == table.chosen}
            )
        else:
            workspace.ledger.append("stage_rejected", inputs=inputs, outputs={"evidence": evidence}, facts=facts)
