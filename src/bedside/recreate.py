"""A run done again from what was recorded of it, in a folder of its own, and compared with itself.

A deterministic run must give the same weights to the bit. Of another one the score must lie within what chance alone moves it:
the noise floor of `train --seeds` where the run is one of these trainings, else a stated tolerance.
"""

from pathlib import Path
from typing import cast

import numpy as np
from pydantic import JsonValue

from bedside.adapters.environment import Difference, commit, differences, environment
from bedside.adapters.rebuild import build, described, run_in
from bedside.core.config import Config, Evaluate
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_file, digest_json
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.evidence import MEAN, Evidence, load_evidence
from bedside.core.model import Model
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Part
from bedside.core.recreation import Recreated, RecreationPlan
from bedside.core.registry import registry
from bedside.core.run import Run, RunRecord
from bedside.core.seeds import COMPARED as SEEDS_COMPARED
from bedside.evaluate.pipeline import evaluate
from bedside.second import fetch, lay_out, target, values_of
from bedside.train.again import study_of
from bedside.train.pipeline import checkpoint_folder, prepare_again, train
from bedside.train.planned import kept_plan
from bedside.train.seeds import SeedSpread, best_score

EVENT = "recreated"
TOLERANCE = 0.01
"""Of a mean Dice, where no spread of seeds is known."""
COMPARED_CASES = 8


def plan(config: Config, run: Run, *, to: Path | None = None, score_only: bool = False) -> RecreationPlan:
    """Say what `recreate` would do, without doing it."""
    record = _record_of(config, run)
    was, now = record.environment, environment().model_dump(mode="json")
    here = config.workspace.store
    wanted = [record.dataset, *([run.model] if score_only else [])]
    if (here / record.dataset).is_dir():
        wanted = list(values_of(config, run, model=score_only))
    return RecreationPlan(
        run=run.digest,
        how="score" if score_only else "train",
        folder=str(target(config, run, to)),
        dataset=record.dataset,
        missing=tuple(digest for digest in wanted if not (here / digest).is_dir()),
        steps=record.steps,
        corrections=len(record.schedule) - 1,
        minutes_then=round(record.minutes, 2),
        deterministic=record.deterministic,
        environment_same=digest_json(now) == record.environment_digest,
        differences=_said(was, now, code=record.commit),
    )


def recreate(
    config: Config,
    run: Run,
    *,
    to: Path | None = None,
    score_only: bool = False,
    rebuild: bool = False,
    progress: Progress = SILENT,
) -> Recreated:
    """Do a run again in a second study folder, and write into the ledger how it compares.

    The same command goes on with a recreation that was interrupted.

    Args:
        config: of the study folder that knows the run.
        run: as `find_run` gave it.
        to: the second folder; None: one beside the study folder.
        score_only: score the recorded model again on the same split by the same settings instead of training.
        rebuild: do it in a virtual environment with the recorded packages, built in the second folder.
        progress: listener.

    Raises:
        IntegrityError: a value is missing or has changed and no remote has it; or NOT_YET: the model was never scored.
        Interrupted, ResourceError, UsageError: as `train`, `evaluate` and `adapters.rebuild.build`.
    """
    record = _record_of(config, run)
    folder = target(config, run, to)
    before = _evidence_of(config, run) if score_only else None
    study = study_of(record)
    if before is not None:
        study = study.model_copy(update={"evaluate": _settings(before)})
    second = lay_out(config, run, folder, study=study, model=score_only)
    interpreter, said = None, ""
    if rebuild:
        progress.start("building the run's environment", None)
        packages = cast("dict[str, str]", record.environment.get("packages", {}))
        built = build(folder, packages, python=str(record.environment.get("python", "")))
        interpreter, said = built.python, built.said
    now = environment().model_dump(mode="json") if interpreter is None else described(folder, interpreter)
    if before is not None:
        found = _scored_again(config, run, second, before=before, interpreter=interpreter, progress=progress)
    else:
        found = _trained_again(config, run, second, interpreter=interpreter, progress=progress)
    found = found.model_copy(
        update={
            "environment_same": digest_json(now) == record.environment_digest,
            "built": said,
            "differences": (*_said(record.environment, now, code=record.commit), *found.differences),
        }
    )
    _announce(config, found)
    return found


def _record_of(config: Config, run: Run) -> RunRecord:
    fetch(config, run.digest)
    return run.record


def _said(was: dict[str, JsonValue], now: dict[str, JsonValue], *, code: str) -> tuple[str, ...]:
    """Everything in which the place differs from the recorded one, in words."""
    found, here = differences(was, now), commit()
    changed = () if here == code else (Difference(what="code", was=code[:12], now=here[:12]),)
    return tuple(map(str, (*found, *changed)))


def _trained_again(config: Config, run: Run, second: Config, *, interpreter: Path | None, progress: Progress) -> Recreated:
    record = run.record
    dataset = Dataset(record.dataset, second.workspace)
    if kept_plan(checkpoint_folder(second.workspace, second.study, dataset)) is None:
        prepare_again(second, dataset, record)
    if interpreter is None:
        again = train(second, dataset, progress=progress)
    else:
        folder = second.workspace.folder
        progress.start("training in the environment that was built", None)
        said = run_in(folder, interpreter, ["train", str(folder), "--dataset", record.dataset])
        again = Run(str(said["run"]), str(said["model"]), second.workspace)
    fetch(config, run.model)
    was, now = digest_file(run.best().weights), digest_file(again.best().weights)
    found = Recreated(
        run=run.digest,
        model=run.model,
        dataset=record.dataset,
        how="trained",
        deterministic=record.deterministic,
        same=was == now,
        agrees=was == now,
        weights_was=was,
        weights_now=now,
        environment_same=True,
        differences=(),
        because=f"the weights are the same to the bit: {was[:12]}",
    )
    return found if found.same else _compared(config, run, again, found=found, progress=progress)


def _compared(config: Config, run: Run, again: Run, *, found: Recreated, progress: Progress) -> Recreated:
    """What two trainings with different weights have in common: how far weights and scores lie apart."""
    metric, was, now = _scores(run, again, progress)
    tolerance, source = noise_floor(config, run)
    within = abs(now - was) <= tolerance
    apart = _apart(run.best(), again.best())
    scored = f"{metric} {now:.4f}, was {was:.4f}"
    if found.deterministic:
        because = f"the run is deterministic and its weights differ ({apart}); {scored}"
    elif within:
        because = f"{scored}: within the {source}; {apart}"
    else:
        because = f"{scored}: {abs(now - was):.4f} apart, more than the {source}; {apart}"
    unlike = tuple(
        f"step {one.step} {one.code}: {one.said}" for one in run.record.incidents if one.code in {"SMALLER", "RESTORED"}
    )
    return found.model_copy(
        update={
            "agrees": within and not found.deterministic,
            "metric": metric,
            "score_was": was,
            "score_now": now,
            "tolerance": tolerance,
            "tolerance_from": source,
            "differences": (apart, *unlike),
            "because": because,
        }
    )


def _apart(one: Model, other: Model) -> str:
    from safetensors.numpy import load_file

    first, second = load_file(one.weights), load_file(other.weights)
    if first.keys() != second.keys():
        return "the weights have other names"
    apart = {name: float(np.abs(first[name] - second[name]).max(initial=0.0)) for name in first}
    changed = [name for name, size in apart.items() if size > 0 or not np.array_equal(first[name], second[name])]
    worst = max(apart, key=lambda name: apart[name])
    return f"{len(changed)} of {len(apart)} tensors differ, {worst} the most, by {apart[worst]:.2g}"


def _scores(run: Run, again: Run, progress: Progress) -> tuple[str, float, float]:
    """A score of both: of the left-out fold where one was, else over some development cases, which both have learned from."""
    fold = study_of(run.record).train.fold
    if fold is not None:
        return f"best mean Dice on fold {fold}", best_score(run), best_score(again)
    cases = Dataset(run.record.dataset, again.workspace).cases("calibrate", limit=COMPARED_CASES)
    both = [
        evaluate(model, cases, settings=study_of(run.record).evaluate, progress=progress) for model in (run.best(), again.best())
    ]
    lead = both[0].definitions[0].name
    first, second = (one.summaries[lead][MEAN].mean for one in both)
    return f"mean {lead} of {len(cases)} development cases", first, second


def noise_floor(config: Config, run: Run) -> tuple[float, str]:
    """What chance of the seed moves a score by: of the trainings that this run is one of, else the stated tolerance."""
    for event in reversed(list(config.workspace.ledger.events())):
        if event.action == SEEDS_COMPARED and (config.workspace.store / event.outputs["spread"]).is_dir():
            spread = SeedSpread.model_validate_json((config.workspace.get(event.outputs["spread"]) / "seeds.json").read_bytes())
            if run.digest in {one.run for one in spread.trainings}:
                return spread.noise_floor, f"noise floor of {len(spread.trainings)} seeds, {spread.noise_floor:.4f}"
    return TOLERANCE, f"stated tolerance of {TOLERANCE} (train --seeds 3 would measure one)"


def _evidence_of(config: Config, run: Run) -> Evidence:
    events = [e for e in config.workspace.ledger.events() if e.action == "evaluated" and e.inputs.get("model") == run.model]
    if not events:
        raise UsageError(
            "The model of this run was never scored; run bedside evaluate, or leave --score-only out.", code="NOT_YET"
        )
    digest = events[-1].outputs["evidence"]
    fetch(config, digest)
    return load_evidence(config.workspace, digest)


def _settings(evidence: Evidence) -> Evaluate:
    return Evaluate.model_validate({name: evidence.settings[name] for name in Evaluate.model_fields if name in evidence.settings})


def _scored_again(
    config: Config, run: Run, second: Config, *, before: Evidence, interpreter: Path | None, progress: Progress
) -> Recreated:
    """Score the recorded model on the same split; a reading of the locked split is written into both ledgers."""
    model, dataset = Model(run.model, second.workspace), Dataset(run.record.dataset, second.workspace)
    if before.split == "test":
        Dataset(run.record.dataset, config.workspace).cases("test")
    own = before.engine == model.spec.engine
    if interpreter is None:
        engine = None if own else _engine(before)
        after = evaluate(model, dataset.cases(before.split), settings=_settings(before), engine=engine, progress=progress)
    elif own:
        folder = second.workspace.folder
        said = run_in(folder, interpreter, ["evaluate", str(folder), "--model", run.model, "--split", before.split])
        after = load_evidence(second.workspace, str(said["evidence"]))
    else:
        raise UsageError("The model was scored with another engine than its own; leave --environment out.", code="ENGINE")
    lead = before.definitions[0].name
    was, now = before.summaries[lead][MEAN].mean, after.summaries[lead][MEAN].mean
    tolerance, source = noise_floor(config, run)
    same, within = after.scores == before.scores, abs(now - was) <= tolerance
    scored = f"mean {lead} on {before.split} {now:.4f}, was {was:.4f}"
    return Recreated(
        run=run.digest,
        model=run.model,
        dataset=run.record.dataset,
        how="scored",
        deterministic=run.record.deterministic,
        same=same,
        agrees=same or within,
        metric=f"mean {lead} on {before.split}",
        score_was=was,
        score_now=now,
        tolerance=tolerance,
        tolerance_from=source,
        environment_same=True,
        differences=(),
        because=f"every score of every patient is the same to the bit; {scored}"
        if same
        else f"{scored}: {'within' if within else 'more apart than'} the {source}",
    )


def _engine(evidence: Evidence) -> Part:
    settings = {name: value for name, value in evidence.engine.items() if name != "name"}
    return registry("engine").resolve(str(evidence.engine.get("name"))).model_validate(settings)


def _announce(config: Config, found: Recreated) -> None:
    facts = found.model_dump(mode="json", exclude={"run", "model", "dataset"})
    inputs = {"run": found.run, "model": found.model, "dataset": found.dataset}
    config.workspace.ledger.append(EVENT, inputs=inputs, facts=facts)


def check(found: Recreated) -> None:
    """Raise where the recreation does not agree with its run.

    Raises:
        IntegrityError: NOT_THE_SAME, with what decided and what differs.
    """
    if not found.agrees:
        where = f" What differs here: {'; '.join(found.differences)}." if found.differences else ""
        raise IntegrityError(f"The run was not recreated: {found.because}.{where}", code="NOT_THE_SAME")
