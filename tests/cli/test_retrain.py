"""Claims about `bedside retrain` and `bedside train --control`: what they print, how they end, what they refuse.

Two patients a fold: enough for every sentence, and never enough to say that other weights helped or harmed.
"""

import json
import shutil
import sys

import pytest

from bedside import cli
from bedside.core.config import load
from bedside.core.dataset import Dataset, Splits
from bedside.core.digest import digest_file
from bedside.core.model import Model
from bedside.core.transfer import Retrained, RetrainPlan, Transfer
from bedside.second import find_run
from bedside.train.pipeline import train

from ..train.conftest import put_dataset, write_study  # noqa: TID252 - the study that trains in a second


def later(workspace, contract, before, *, test):
    """A version of eleven cases: those of `before` where they were, unless `test` says otherwise, the new ones in a fold."""
    old = before.splits
    placed = {*test, *(patient for fold in old.folds for patient in fold)}
    learn = [name for name in (f"p{number}" for number in range(11)) if name not in placed]
    folds = tuple(tuple(p for p in fold if p not in test) for fold in ((*old.folds[0], *learn), old.folds[1]))
    return put_dataset(workspace, contract, cases=11, splits=Splits(test=test, folds=folds))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with fold 0 left out, and a later version of its dataset: once, and copied for each test."""
    folder = write_study(tmp_path_factory.mktemp("made") / "balls", steps=2, fold=0, validations=1)
    config = load(folder)
    dataset = put_dataset(config.workspace, config.study.contract)
    train(config, dataset)
    later(config.workspace, config.study.contract, dataset, test=(*dataset.splits.test, "p8"))
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
def bedside(config, monkeypatch, capsys):
    """Run a verb on the study here; returns exit code, stdout and stderr."""

    def ask(verb: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bedside", verb, str(config.workspace.folder), *words])
        code = cli.run()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return ask


def actions(config):
    return [event.action for event in config.workspace.ledger.events()]


def test_retrain_prints_old_and_new_model_by_patients_and_as_json_what_its_record_says(config, run, bedside):
    code, out, _ = bedside("retrain", "--from", run.digest[:8], "--data", "latest", "--json")
    found = Retrained.model_validate(json.loads(out))
    assert code == 0
    assert found.model_dump(mode="json") == json.loads(out)
    assert (found.from_run, found.from_model, found.fine_tuned, found.verdict) == (run.digest, run.model, False, "")
    assert [(row.of, row.n) for row in found.rows] == [
        ("old test patients", 2),
        ("new test patients", 1),
        ("all test patients", 3),
    ]
    code, out, _ = bedside("retrain", "--from", run.model[:8])  # the training is there already: only scored and shown
    assert code == 0
    assert all(word in out for word in ("old test patients", "old dice", "new dice", found.model[:12], run.model[:12]))


def test_fine_tuned_with_a_control_it_says_the_verdict_and_still_exits_0(config, run, bedside):
    code, out, _ = bedside("retrain", "--from", run.digest, "--fine-tune", "--control")
    assert code == 0
    assert "control from scratch: no difference" in out
    line = config.workspace.ledger.last("transfer_judged")
    assert line.outputs["transfer"][:12] in out


def test_train_control_prints_the_verdict_and_as_json_the_stored_finding(config, run, before, bedside):
    words = ("--dataset", before.digest, "--set", f"train.from={run.model}", "--control")
    code, out, _ = bedside("train", *words, "--json")
    said = json.loads(out)
    found = Transfer.model_validate({key: value for key, value in said.items() if key != "transfer"})
    assert code == 0
    assert (found.parent, found.split, found.verdict) == (run.model, "fold0", "no difference")
    control = Model(found.control, config.workspace)  # which is the first run again: by chance, with its plan and seed
    assert digest_file(control.weights) == digest_file(run.best().weights)
    stored = json.loads((config.workspace.get(said["transfer"]) / "transfer.json").read_bytes())
    assert stored == found.model_dump(mode="json")
    code, out, _ = bedside("train", *words)
    assert code == 0
    assert "no difference: dice " in out
    assert "beside a control from scratch" in out
    assert "test_split_read" not in actions(config)


def test_what_if_says_it_and_writes_nothing(config, run, bedside):
    before = actions(config)
    code, out, _ = bedside("retrain", "--from", run.digest[:8], "--fine-tune", "--control", "--what-if", "--json")
    planned = RetrainPlan.model_validate(json.loads(out))
    assert code == 0
    assert (planned.old_test_patients, planned.new_test_patients, planned.steps) == (2, 1, 2)
    code, out, _ = bedside("retrain", "--what-if")
    assert (code, "bedside retrain would do this" in out) == (0, True)
    assert actions(config) == before


def refused(said):
    """Exit code, error code and sentence of one JSON document that stderr repeats in words."""
    code, out, err = said
    error = json.loads(out)["error"]
    assert error["sentence"] in err
    return code, error["code"], error["sentence"]


@pytest.mark.parametrize(
    ("words", "name", "part"),
    [
        (["--from", "ffffffff"], "DIGEST", "no run by this name"),
        (["--from", "abc"], "DIGEST", "no run by this name"),
        (["--data", "ffffffff"], "", ""),
        (["--control"], "NO_PARENT", "train.from"),
    ],
)
def test_what_there_is_not_is_wrong_use(config, bedside, words, name, part):
    before = actions(config)
    code, found, sentence = refused(bedside("retrain", *words, "--json"))
    assert code == 2
    assert name in found
    assert part in sentence
    assert actions(config) == before


def test_the_data_of_the_old_run_and_another_test_split_are_refused(config, run, before, bedside):
    assert refused(bedside("retrain", "--data", before.digest, "--json"))[:2] == (2, "SAME_DATA")
    moved = before.splits.test[0]
    lost = later(config.workspace, config.study.contract, before, test=(*before.splits.test[1:], "p8"))
    code, name, sentence = refused(bedside("retrain", "--data", lost.digest, "--json"))
    assert (code, name) == (2, "TEST_SET")
    assert f"1 test patients of the old version are not test patients of the new one ({moved})" in sentence
    learned = before.splits.folds[0][0]
    leaked = later(config.workspace, config.study.contract, before, test=(*before.splits.test, learned))
    code, name, sentence = refused(bedside("retrain", "--data", leaked.digest, "--json"))
    assert (code, name) == (2, "TEST_SET")
    assert f"learned from are test patients of the new version ({learned})" in sentence


def test_other_labels_and_another_task_are_refused_before_anything_is_trained(config, run, before, bedside):
    other = config.study.contract.model_copy(update={"labels": {"background": 0, "box": 1}})
    made = later(config.workspace, other, before, test=(*before.splits.test, "p8"))
    for words in (["--what-if"], []):
        code, name, sentence = refused(bedside("retrain", "--data", made.digest, "--json", *words))
        assert (code, name) == (2, "LABEL_MAP")
        assert "ball" in sentence
    for words in (["--what-if"], []):
        task = ["--set", "task={name: region_segmentation, regions: [{name: all, structures: [1]}]}"]
        code, name, sentence = refused(bedside("retrain", "--json", *task, *words))
        assert (code, name) == (2, "OTHER_TASK")
        assert "was segmentation and is region_segmentation" in sentence
    assert actions(config).count("trained") == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "NO_PARENT"),
        (["--set", "train.from={run}", "--set", "train.fold=null"], "NO_FOLD"),
        (["--set", "train.from={run}", "--seeds", "2"], "USAGE"),
        (["--set", "train.from={run}", "--on", "slurm"], "USAGE"),
    ],
)
def test_a_control_that_could_not_be_judged_is_refused_before_any_step(config, run, bedside, words, name):
    said = refused(bedside("train", "--control", "--json", *(word.format(run=run.model) for word in words)))
    assert said[:2] == (2, name)
    assert actions(config).count("trained") == 1
