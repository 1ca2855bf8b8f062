"""Did beginning with other weights help? A control from scratch at equal budget, and a paired test on the left-out fold.

The verdict is one of three. Help or harm is only said where the interval of the mean difference excludes 0 and a signed-rank test
at half its level agrees, which fewer than six patients never allow. The locked test split is not read. Both models chose their
best weights on the same fold, so that the choice favours neither.
"""

from bedside.core.config import Config
from bedside.core.dataset import Dataset
from bedside.core.errors import UsageError
from bedside.core.evidence import Evidence, Interval, over_labels
from bedside.core.progress import SILENT, Progress
from bedside.core.run import Run
from bedside.core.transfer import Transfer, TransferVerdict
from bedside.evaluate.pipeline import digest_of, evaluate
from bedside.metrics.intervals import bootstrap_interval, wilcoxon_p
from bedside.train.again import frozen_plan, frozen_study
from bedside.train.repeat import train_as

EVENT = "transfer_judged"
CONFIDENCE = 0.95


def judge_transfer(config: Config, run: Run, *, progress: Progress = SILENT) -> tuple[Transfer, str]:
    """Train the control of a fine-tuned run, compare both on the left-out fold, store the finding and return it with its digest.

    The control has the run's dataset, plan, seed and number of steps, and nothing of its parent. One that was trained before is
    taken as it is.

    Raises:
        UsageError: NO_PARENT: the run began by chance; NO_FOLD: no fold was left out; and what `train` and `evaluate` raise.
    """
    record = run.record
    study = frozen_study(record)
    check_judgeable(record.parent, study.train.fold)
    dataset = Dataset(record.dataset, config.workspace)
    scratch = study.train.model_copy(update={"parent": None, "unfreeze": (), "layer_rates": {}})
    asked = Config(study.model_copy(update={"train": scratch}), config.site, config.workspace)
    control = train_as(asked, dataset, frozen_plan(record), progress=progress)
    cases = dataset.cases(f"fold{study.train.fold}")
    settings = config.study.evaluate
    mine, theirs = (evaluate(one.best(), cases, settings=settings, progress=progress) for one in (run, control))
    metric, differences = paired(mine, theirs)
    values = [differences[patient] for patient in sorted(differences)]
    interval = bootstrap_interval(values, confidence=CONFIDENCE, resamples=settings.resamples, seed=settings.seed)
    better, worse = wilcoxon_p(values), wilcoxon_p([-value for value in values])
    verdict = verdict_of(interval, better_p=better, worse_p=worse)
    found = Transfer(
        model=run.model,
        control=control.model,
        parent=record.parent,
        dataset=dataset.digest,
        split=cases.split,
        steps=record.steps,
        plan=frozen_plan(record).digest(),
        metric=metric,
        differences=differences,
        interval=interval,
        better_p=better,
        worse_p=worse,
        verdict=verdict,
        because=f"{metric} {interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] beside a control from scratch"
        f" (n={interval.n} patients of {cases.split}, {record.steps} steps each, signed-rank p={min(better, worse):.2g})",
        evidence=digest_of(mine),
        control_evidence=digest_of(theirs),
    )
    return found, _stored(config, found)


def check_judgeable(parent: str, fold: int | None) -> None:
    """Refuse before any time is spent what could not be judged."""
    if not parent:
        raise UsageError("A control is for a training that begins with other weights; set train.from.", code="NO_PARENT")
    if fold is None:
        raise UsageError(
            "The control is compared on a fold that is left out, never on the locked test split, and train.fold is null; add"
            " --set train.fold=0.",
            code="NO_FOLD",
        )


def paired(one: Evidence, other: Evidence) -> tuple[str, dict[str, float]]:
    """The leading metric, and patient -> mean over structures of one minus other, positive where one is better.

    Raises:
        UsageError: the two were not measured on the same patients.
    """
    lead = one.definitions[0]
    sign = 1.0 if lead.higher_is_better else -1.0
    found = over_labels(one.minus(other, lead.name))
    return lead.name, {patient: sign * value for patient, value in found.items()}


def verdict_of(interval: Interval, *, better_p: float, worse_p: float) -> TransferVerdict:
    """What an interval of the mean difference and two one-sided tests say together."""
    level = (1.0 - interval.confidence) / 2.0
    if interval.low > 0.0 and better_p <= level:
        return "transfer helps"
    if interval.high < 0.0 and worse_p <= level:
        return "NEGATIVE TRANSFER"
    return "no difference"


def _stored(config: Config, found: Transfer) -> str:
    workspace = config.workspace
    digest = workspace.put_record("transfer.json", found, doing="storing a finding")
    before = workspace.ledger.last(EVENT)
    if before is None or before.outputs["transfer"] != digest:
        workspace.ledger.append(
            EVENT,
            inputs={"model": found.model, "control": found.control, "dataset": found.dataset},
            outputs={"transfer": digest},
            facts={
                "verdict": found.verdict,
                "metric": found.metric,
                "split": found.split,
                "mean": found.interval.mean,
                "low": found.interval.low,
                "high": found.interval.high,
                "patients": found.interval.n,
                "steps": found.steps,
            },
        )
    return digest
