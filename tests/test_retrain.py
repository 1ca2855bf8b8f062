"""Claims about training on newer data: plan and test patients stay, both models are compared, and harm by transfer is said."""

import shutil

import pytest

from bedside.core.config import load
from bedside.core.dataset import Dataset, Splits
from bedside.core.digest import digest_file
from bedside.core.errors import UsageError
from bedside.core.evidence import Interval
from bedside.core.model import Model
from bedside.retrain import plan, retrain
from bedside.second import find_run
from bedside.train.pipeline import train
from bedside.transfer import judge_transfer, verdict_of

from .train.conftest import put_dataset, write_study


def version(workspace, contract, before, *, cases=11, test=None, folds=None):
    """A later version: the first's patients where they were, the new ones in the test split and the folds."""
    old = before.splits
    placed = {*old.test, *(patient for fold in old.folds for patient in fold)}
    new = [name for name in (f"p{number}" for number in range(cases)) if name not in placed]
    splits = Splits(test=test or (*old.test, new[0]), folds=folds or ((*old.folds[0], *new[1:]), old.folds[1]))
    return put_dataset(workspace, contract, cases=cases, splits=splits)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with fold 0 left out, copied for each test."""
    folder = write_study(tmp_path_factory.mktemp("made") / "balls", steps=4, fold=0, validations=1)
    config = load(folder)
    train(config, put_dataset(config.workspace, config.study.contract))
    return folder


@pytest.fixture
def config(made, tmp_path):
    shutil.copytree(made, tmp_path / "balls")
    return load(tmp_path / "balls")


@pytest.fixture
def run(config):
    return find_run(config.workspace, "latest")


@pytest.fixture
def before(config, run):
    return Dataset(run.record.dataset, config.workspace)


@pytest.fixture
def later(config, before):
    return version(config.workspace, config.study.contract, before)


def test_old_and_new_model_are_compared_on_the_old_test_patients_and_on_the_new_ones(config, run, before, later):
    said = plan(config, run, later)
    assert (said.old_test_patients, said.new_test_patients, said.steps) == (2, 1, 4)
    found = retrain(config, run, later)
    assert [(row.of, row.n) for row in found.rows] == [
        ("old test patients", 2),
        ("new test patients", 1),
        ("all test patients", 3),
    ]
    old, new, both = found.rows
    assert both.old == pytest.approx((2 * old.old + new.old) / 3)
    assert all(row.difference.mean == pytest.approx(row.new - row.old) for row in found.rows)
    assert all(row.difference.low <= row.difference.mean <= row.difference.high for row in found.rows)
    record = find_run(config.workspace, found.run).record
    assert (record.dataset, record.steps, record.parent) == (later.digest, 4, "")
    same = {"network", "patch", "batch", "preprocessing", "seed", "precision", "learning_rate"}
    assert record.plan.model_dump(include=same) == run.record.plan.model_dump(include=same)
    line = config.workspace.ledger.last("retrained")
    assert line.facts["new_model"] == found.model
    assert [event.action for event in config.workspace.ledger.events()].count("rules_frozen") == 1


def test_fine_tuning_begins_with_the_old_model_and_its_control_by_chance_at_equal_budget(config, run, later):
    found = retrain(config, run, later, fine_tune=True, control=True)
    tuned = find_run(config.workspace, found.run)
    assert tuned.record.parent == run.model
    line = config.workspace.ledger.last("transfer_judged")
    control = find_run(config.workspace, line.inputs["control"])
    assert (control.record.parent, control.record.steps) == ("", tuned.record.steps)
    assert control.record.plan == tuned.record.plan
    assert line.facts["split"] == "fold0"
    assert found.verdict == line.facts["verdict"] == "no difference"  # two patients can never say more


def test_the_check_of_transfer_never_reads_the_locked_split_and_is_stored(config, run, before):
    tuned = train(load(config.workspace.folder, overrides=[f"train.from={run.model}"]), before)
    found, digest = judge_transfer(config, tuned)
    assert judge_transfer(config, tuned)[0].verdict == found.verdict
    assert (config.workspace.get(digest) / "transfer.json").is_file()
    actions = [event.action for event in config.workspace.ledger.events()]
    assert "test_split_read" not in actions
    control = Model(found.control, config.workspace)  # the first run was just that: the same plan and seed, by chance
    assert digest_file(control.weights) == digest_file(run.best().weights)
    assert set(found.differences) == set(before.splits.folds[0])


@pytest.mark.parametrize(
    ("low", "high", "better", "worse", "verdict"),
    [
        (0.01, 0.03, 0.01, 0.99, "transfer helps"),
        (-0.03, -0.01, 0.99, 0.01, "NEGATIVE TRANSFER"),
        (-0.01, 0.03, 0.01, 0.99, "no difference"),
        (0.01, 0.03, 0.06, 0.95, "no difference"),
        (-0.03, -0.01, 0.95, 0.06, "no difference"),
    ],
)
def test_help_or_harm_needs_the_interval_and_the_ranks(low, high, better, worse, verdict):
    interval = Interval(mean=(low + high) / 2, low=low, high=high, n=8, confidence=0.95)
    assert verdict_of(interval, better_p=better, worse_p=worse) == verdict


def test_a_version_without_an_old_test_patient_is_refused_by_name(config, run, before):
    moved, stays = before.splits.test
    folds = ((*before.splits.folds[0], moved, "p9", "p10"), before.splits.folds[1])
    other = version(config.workspace, config.study.contract, before, test=(stays, "p8"), folds=folds)
    with pytest.raises(UsageError, match=f"1 test patients of the old version .*{moved}") as caught:
        retrain(config, run, other)
    assert caught.value.code == "TEST_SET"


def test_a_version_that_tests_on_who_was_learned_from_is_refused(config, run, before):
    first, *others = before.splits.folds[0]
    folds = ((*others, "p8", "p9", "p10"), before.splits.folds[1])
    other = version(config.workspace, config.study.contract, before, test=(*before.splits.test, first), folds=folds)
    with pytest.raises(UsageError, match="learned from"):
        plan(config, run, other)


def test_the_same_version_a_control_without_a_parent_and_one_without_a_fold_are_wrong_use(config, run, before, later):
    with pytest.raises(UsageError, match="already"):
        retrain(config, run, before)
    with pytest.raises(UsageError) as caught:
        plan(config, run, later, control=True)
    assert caught.value.code == "NO_PARENT"
    whole = load(config.workspace.folder, overrides=["train.fold=null"])
    with pytest.raises(UsageError) as caught:
        plan(whole, train(whole, before), later, fine_tune=True, control=True)
    assert caught.value.code == "NO_FOLD"
