"""Claims about doing a run again: the same weights in another folder, and one sentence where that cannot be."""

import json
import shutil
import signal
import sys
from importlib import import_module

import pytest

from bedside import cli
from bedside.core.config import load
from bedside.core.dataset import Dataset
from bedside.core.digest import canonical_json, digest_file
from bedside.core.errors import IntegrityError, ResourceError, UsageError
from bedside.core.ports import MemoryStore
from bedside.core.run import PlannedSteps, Run, RunRecord
from bedside.core.workspace import Workspace
from bedside.evaluate.pipeline import evaluate
from bedside.recreate import check, plan, recreate
from bedside.second import find_run
from bedside.train.pipeline import train
from bedside.train.seeds import train_seeds

from .train.conftest import put_dataset, write_study

SECOND, SITTING = import_module("bedside.second"), import_module("bedside.train.sitting")
STEPS = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One finished run, copied for each test."""
    folder = write_study(tmp_path_factory.mktemp("made") / "balls", steps=STEPS, deterministic=True)
    config = load(folder)
    dataset = put_dataset(config.workspace, config.study.contract)
    run = train(config, dataset)
    evaluate(run.best(), dataset.cases("fold0"), settings=config.study.evaluate)
    return folder


@pytest.fixture
def config(made, tmp_path):
    shutil.copytree(made, tmp_path / "balls")
    return load(tmp_path / "balls")


@pytest.fixture
def run(config):
    return find_run(config.workspace, "latest")


def array_of(config, run):
    """One array of the run's dataset, writable."""
    path = next((config.workspace.store / run.record.dataset).glob("*.npy"))
    path.chmod(0o644)
    return path


def edited(config, run, **changes):
    """The run with another record, as if it had been so from the start."""
    record = RunRecord.model_validate({**run.record.model_dump(mode="json"), **changes})
    with config.workspace.staging() as staged:
        (staged / "run.json").write_bytes(canonical_json(record.model_dump(mode="json")))
        digest = config.workspace.put(staged)
    config.workspace.ledger.append("trained", outputs={"run": digest, "model": run.model})
    return Run(digest, run.model, config.workspace)


def test_a_run_done_again_in_another_folder_has_the_same_weights(config, run):
    found = recreate(config, run)
    assert found.same
    assert found.agrees
    assert found.environment_same
    assert found.differences == ()
    folder = config.workspace.folder.with_name(f"balls-recreated-{run.digest[:12]}")
    event = Workspace(folder).ledger.last("trained")
    assert digest_file(folder / "store" / event.outputs["model"] / "weights.safetensors") == found.weights_was
    assert load(folder).study == config.study
    line = config.workspace.ledger.last("recreated")
    assert line.inputs["run"] == run.digest
    assert line.facts["same"] is True
    assert config.workspace.ledger.verify().intact
    check(found)


def test_what_if_says_all_of_it_and_writes_nothing(config, run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    said = plan(config, run)
    assert (said.how, said.steps, said.missing, said.environment_same) == ("train", STEPS, (), True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_changed_byte_of_the_dataset_is_exit_4(config, run):
    path = array_of(config, run)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IntegrityError) as caught:
        recreate(config, run)
    assert (caught.value.exit_code, caught.value.code) == (4, "CHANGED")


def test_bytes_that_are_nowhere_are_one_sentence(config, run):
    shutil.rmtree(config.workspace.store / run.record.dataset)
    with pytest.raises(IntegrityError, match="no remote is configured") as caught:
        recreate(config, run)
    assert caught.value.code == "MISSING"
    assert caught.value.sentence.count(". ") == 0
    assert plan(config, run).missing == (run.record.dataset,)


def test_bytes_that_a_remote_has_are_fetched(config, run, monkeypatch):
    remote = MemoryStore(config.workspace.store)
    remote.push(run.record.dataset)
    path = array_of(config, run)
    path.write_bytes(b"damaged")
    site = config.site.model_copy(update={"versioning": "dvc"})
    monkeypatch.setattr(SECOND, "store_for", lambda _: remote)
    assert recreate(type(config)(config.study, site, config.workspace), run).same


def test_a_run_of_several_processes_is_laid_out_for_as_many_with_the_threads_of_all(config, run, tmp_path):
    shared = edited(config, run, processes=2, threads=3)
    second = SECOND.lay_out(config, shared, tmp_path / "second", study=config.study)
    assert (second.site.training_processes, second.site.threads) == (2, 6)


def test_a_difference_of_the_environment_is_listed(config, run):
    environment = json.loads(json.dumps(run.record.environment))
    environment["packages"]["numpy"] = "1.0.0"
    environment["python"] = "3.11.0"
    found = recreate(config, edited(config, run, environment=environment, environment_digest="0" * 64))
    assert found.same
    assert not found.environment_same
    assert any(line.startswith("packages numpy: was 1.0.0, is ") for line in found.differences)
    assert any(line.startswith("python: was 3.11.0, is ") for line in found.differences)


def test_a_deterministic_run_that_comes_out_otherwise_is_refused_by_name(config, run):
    plan_of = run.record.plan.model_dump(mode="json")
    other = edited(config, run, plan={**plan_of, "seed": 5})
    found = recreate(config, other)
    assert not found.same
    assert not found.agrees
    assert found.score_now is not None
    with pytest.raises(IntegrityError, match="tensors differ") as caught:
        check(found)
    assert (caught.value.code, caught.value.exit_code) == ("NOT_THE_SAME", 4)
    assert config.workspace.ledger.last("recreated").facts["agrees"] is False


def test_a_run_that_need_not_repeat_may_differ_by_the_noise_floor_of_its_seeds(config):
    overrides = ["train.fold=0", "train.deterministic=false", "train.validations=1"]
    config = load(config.workspace.folder, overrides=overrides)
    dataset = Dataset(config.workspace.ledger.last("ingested").outputs["dataset"], config.workspace)
    spread, _ = train_seeds(config, dataset, count=2)
    run = Run(spread.trainings[0].run, spread.trainings[0].model, config.workspace)
    other = edited(config, run, plan={**run.record.plan.model_dump(mode="json"), "seed": 1})
    found = recreate(config, other)
    assert found.score_now == spread.trainings[1].score
    assert found.tolerance_from.startswith("stated tolerance")
    assert recreate(config, run).same
    assert "noise floor of 2 seeds" in import_module("bedside.recreate").noise_floor(config, run)[1]


def test_a_budget_of_minutes_that_was_corrected_in_flight_is_replayed_to_the_step(config):
    """The machine's speed decided; the record says when, and doing it again asks no clock."""
    dataset = Dataset(config.workspace.ledger.last("ingested").outputs["dataset"], config.workspace)
    timed = load(
        config.workspace.folder,
        overrides=["train.steps=null", "train.minutes=1", "train.deterministic=false", "train.fold=0", "train.validations=2"],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SITTING.Sitting, "_steps_that_fit", lambda self, *_: 12)
        patch.setattr(SITTING.Replans, "due", lambda self, at: {(3, 12): 7, (5, 7): 9}.get((at.step, at.total_steps)))
        run = train(timed, dataset)
    corrected = (PlannedSteps(at=0, total=12), PlannedSteps(at=3, total=7), PlannedSteps(at=5, total=9))
    assert run.record.schedule == corrected
    found = recreate(timed, run)
    assert found.same
    folder = config.workspace.folder.with_name(f"balls-recreated-{run.digest[:12]}")
    again = find_run(Workspace(folder), "latest").record
    assert (again.schedule, again.steps) == (corrected, 9)
    assert [point.step for point in again.curve] == [point.step for point in run.record.curve]


def test_scoring_again_gives_every_score_to_the_bit(config, run):
    found = recreate(config, run, score_only=True)
    assert (found.how, found.same, found.agrees) == ("scored", True, True)
    assert found.score_now == found.score_was


def test_scoring_the_locked_split_again_is_a_reading_in_both_ledgers(config, run):
    dataset = Dataset(run.record.dataset, config.workspace)
    evaluate(run.best(), dataset.cases("test"), settings=config.study.evaluate)
    assert recreate(config, run, score_only=True).same
    folder = config.workspace.folder.with_name(f"balls-recreated-{run.digest[:12]}")
    for workspace, readings in ((config.workspace, 2), (Workspace(folder), 1)):
        assert sum(event.action == "test_split_read" for event in workspace.ledger.events()) == readings


@pytest.mark.parametrize("place", ["inside", "store/x", "."])
def test_a_run_is_never_recreated_in_its_own_study_folder(config, run, place):
    with pytest.raises(UsageError, match="beside it"):
        recreate(config, run, to=config.workspace.folder / place)


def test_a_folder_that_holds_something_else_is_left_alone(config, run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="something else"):
        recreate(config, run, to=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["abc", "ffffffffffff"])
def test_a_run_that_the_ledger_does_not_know_is_wrong_use(config, name):
    with pytest.raises(UsageError):
        find_run(config.workspace, name)


def test_without_a_package_index_it_is_said(config, run, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    environment = {**run.record.environment, "packages": {"numpy": "2.4.0"}}
    with pytest.raises(ResourceError, match="No package index answered") as caught:
        recreate(config, edited(config, run, environment=environment), rebuild=True)
    assert caught.value.code == "NO_INDEX"


@pytest.mark.slow
def test_a_run_done_again_in_an_environment_that_was_built_for_it_is_the_same_to_the_bit(config, run):
    """All recorded packages, torch in its build, from the indexes that this machine is configured for: two minutes, 1.6 GB."""
    try:
        found = recreate(config, run, rebuild=True)
    except ResourceError as error:
        if error.code != "NO_INDEX":
            raise
        pytest.skip("NO PACKAGE INDEX ANSWERED: configure one for pip or uv")
    assert (found.same, found.environment_same) == (True, True)
    assert found.built.startswith(f"{len(run.record.environment['packages']) - 1} packages by ")
    again = recreate(config, run, rebuild=True)
    assert again.built.endswith("kept from before")


def command(monkeypatch, capsys, *arguments):
    """Run the command line in this process: its exit code and what it printed."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    monkeypatch.setattr(sys, "argv", ["bedside", "recreate", *arguments, "--json"])
    try:
        return cli.run(), json.loads(capsys.readouterr().out)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_the_command_prints_the_verdict_and_exits_4_where_it_is_no(config, run, monkeypatch, capsys):
    folder = str(config.workspace.folder)
    code, said = command(monkeypatch, capsys, folder, "--score-only")
    assert (code, said["same"], said["how"]) == (0, True, "scored")
    other = edited(config, run, plan={**run.record.plan.model_dump(mode="json"), "seed": 5})
    code, said = command(monkeypatch, capsys, folder, "--run", other.digest[:12])
    assert (code, said["agrees"]) == (4, False)
    code, said = command(monkeypatch, capsys, folder, "--run", other.digest[:12], "--to", folder)
    assert (code, said["error"]["code"]) == (2, "FOLDER")
