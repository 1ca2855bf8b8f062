"""The same training on a newer version of the dataset, its plan and its test patients frozen, and both models compared.

The old model's test patients must be test patients of the new version too, and no patient that the old model learned from may be
one: else the comparison would favour one side.
"""

from bedside.core.config import Config
from bedside.core.dataset import Dataset
from bedside.core.errors import UsageError
from bedside.core.evidence import over_labels
from bedside.core.labels import check_meeting
from bedside.core.progress import SILENT, Progress
from bedside.core.run import Run
from bedside.core.transfer import Compared, Retrained, RetrainPlan
from bedside.evaluate.pipeline import evaluate
from bedside.metrics.intervals import bootstrap_interval
from bedside.promote.policy import freeze
from bedside.train.again import frozen_plan, frozen_study, study_of
from bedside.train.repeat import train_as
from bedside.transfer import check_judgeable, judge_transfer, paired

EVENT = "retrained"
_MOST_NAMED = 3


def plan(config: Config, run: Run, dataset: Dataset, *, fine_tune: bool = False, control: bool = False) -> RetrainPlan:
    """Say what `retrain` would do, without doing it; refuses what `retrain` would refuse."""
    before = Dataset(run.record.dataset, config.workspace)
    _check_task(config, run)
    check_frozen(before, dataset)
    _check_control(run, fine_tune=fine_tune, control=control)
    return RetrainPlan(
        from_run=run.digest,
        dataset=dataset.digest,
        development_cases_then=_development(before),
        development_cases_now=_development(dataset),
        old_test_patients=len(before.splits.test),
        new_test_patients=len(set(dataset.splits.test) - set(before.splits.test)),
        steps=run.record.steps,
        fine_tuned=fine_tune,
        control=control,
    )


def _development(dataset: Dataset) -> int:
    return sum(case.patient not in dataset.splits.test for case in dataset.manifest.cases)


def _check_control(run: Run, *, fine_tune: bool, control: bool) -> None:
    if control:
        check_judgeable(run.model if fine_tune else "", frozen_study(run.record).train.fold)


def _check_task(config: Config, run: Run) -> None:
    was, now = (str(getattr(study.task, "part_name", "")) for study in (study_of(run.record), config.study))
    if was != now:
        raise UsageError(
            f"The study's task was {was} and is {now} now; retrain repeats the old one, so set it back, or run bedside train.",
            code="OTHER_TASK",
        )


def check_frozen(before: Dataset, now: Dataset) -> None:
    """Refuse a version with other structures, or one in which the test set of the old one is not what it was.

    Raises:
        UsageError: SAME_DATA; LABEL_MAP; TEST_SET, with how many patients moved, and the names of some (pseudonyms).
    """
    if before.digest == now.digest:
        raise UsageError("The run was trained on this version already; ingest the new cases first (--add).", code="SAME_DATA")
    check_meeting(before.contract.label_map, now.contract.label_map, ())
    old, new = set(before.splits.test), set(now.splits.test)
    learned = {patient for fold in before.splits.folds for patient in fold}
    lost, leaked = sorted(old - new), sorted(learned & new)
    for patients, what in (
        (lost, "test patients of the old version are not test patients of the new one"),
        (leaked, "patients whom the old model learned from are test patients of the new version"),
    ):
        if patients:
            named = ", ".join(patients[:_MOST_NAMED]) + (", ..." if len(patients) > _MOST_NAMED else "")
            raise UsageError(
                f"{len(patients)} {what} ({named}); make the version with bedside ingest --add, which moves nobody.",
                code="TEST_SET",
            )
    if not old:
        raise UsageError("The old version has no test patients to compare on.", code="TEST_SET")


def retrain(
    config: Config, run: Run, dataset: Dataset, *, fine_tune: bool = False, control: bool = False, progress: Progress = SILENT
) -> Retrained:
    """Train what a run trained on another version of its dataset, and compare old and new model on the test patients of both.

    Args:
        config: of the study folder; its rules of promotion are frozen before the test split is read.
        run: the old one; its plan and number of steps are taken as they are.
        dataset: the new version.
        fine_tune: begin with the old model's weights instead of chance.
        control: with `fine_tune`: also train from scratch, and judge on the left-out fold whether that would have been better.
        progress: listener.

    Raises:
        UsageError: SAME_DATA, LABEL_MAP or TEST_SET (see `check_frozen`), OTHER_TASK, NO_PARENT, NO_FOLD; and what `train` and
            `evaluate` raise.
    """
    record = run.record
    before = Dataset(record.dataset, config.workspace)
    _check_task(config, run)
    check_frozen(before, dataset)
    _check_control(run, fine_tune=fine_tune, control=control)
    study = frozen_study(record)
    train = study.train.model_copy(update={"parent": run.model if fine_tune else None, "unfreeze": (), "layer_rates": {}})
    asked = Config(study.model_copy(update={"train": train}), config.site, config.workspace)
    new = train_as(asked, dataset, frozen_plan(record), progress=progress)
    transfer, digest = judge_transfer(config, new, progress=progress) if control else (None, "")
    metric, rows = _compared(config, run, new, old_test=set(before.splits.test), dataset=dataset, progress=progress)
    found = Retrained(
        run=new.digest,
        model=new.model,
        from_run=run.digest,
        from_model=run.model,
        dataset=dataset.digest,
        from_dataset=before.digest,
        fine_tuned=fine_tune,
        metric=metric,
        rows=rows,
        transfer=digest,
        verdict=transfer.verdict if transfer is not None else "",
    )
    config.workspace.ledger.append(
        EVENT,
        inputs={"run": run.digest, "model": run.model, "dataset": dataset.digest},
        facts={
            "new_model": new.model,
            "fine_tuned": fine_tune,
            "metric": metric,
            "verdict": found.verdict,
            "rows": [row.model_dump(mode="json") for row in rows],
        },
    )
    return found


def _compared(
    config: Config, old: Run, new: Run, *, old_test: set[str], dataset: Dataset, progress: Progress
) -> tuple[str, tuple[Compared, ...]]:
    """Score both models on the new version's test patients, and compare them by old, new and all of these."""
    freeze(config.workspace.ledger, config.promote)
    settings = config.study.evaluate
    first, second = (evaluate(run.best(), dataset.cases("test"), settings=settings, progress=progress) for run in (old, new))
    metric, differences = paired(second, first)
    means = [over_labels(evidence.scores[metric]) for evidence in (first, second)]
    groups = {
        "old test patients": sorted(set(differences) & old_test),
        "new test patients": sorted(set(differences) - old_test),
        "all test patients": sorted(differences),
    }
    return metric, tuple(
        Compared(
            of=name,
            n=len(patients),
            old=sum(means[0][patient] for patient in patients) / len(patients),
            new=sum(means[1][patient] for patient in patients) / len(patients),
            difference=bootstrap_interval(
                [differences[patient] for patient in patients],
                confidence=settings.confidence,
                resamples=settings.resamples,
                seed=settings.seed,
            ),
        )
        for name, patients in groups.items()
        if patients
    )
