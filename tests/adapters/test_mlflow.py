"""MLflow mirrors a run completely, quietly, and without a hidden state."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.adapters.mlflow import MAX_KEY_CHARACTERS, MAX_PARAMETER_CHARACTERS, MlflowTracker, _key, _shortened
from bedside.core.errors import ResourceError, UsageError

FIRST_RUN = """\
import sys
from pathlib import Path
from bedside.adapters.mlflow import MlflowTracker
MlflowTracker("hip-ct", folder=Path(sys.argv[1])).log_run("first", parameters={"a": "1"}, metrics={"b": 1.0}, tags={})
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
from mlflow.telemetry.utils import is_telemetry_disabled
assert MLFLOW_DISABLE_TELEMETRY.get() is True
assert is_telemetry_disabled()
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A process that makes the database (MLflow takes seconds for that, so once for all tests) and mirrors one run."""
    folder = tmp_path_factory.mktemp("tracked")
    environment = {k: v for k, v in os.environ.items() if k not in {"CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY"}}
    environment["HOME"] = str(folder / "home")
    command = [sys.executable, "-c", FIRST_RUN, str(folder)]
    return folder, subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tracker(first_run: tuple[Path, subprocess.CompletedProcess[str]]) -> MlflowTracker:
    return MlflowTracker("hip-ct", folder=first_run[0])


def test_a_process_that_tracks_prints_nothing_and_reports_to_nobody(
    first_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = first_run
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (folder / "home").exists()


def test_a_run_is_mirrored_with_parameters_metrics_tags_and_the_report(tracker: MlflowTracker, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    report = tmp_path / "report.html"
    report.write_text("<h1>fine</h1>")
    run_id = tracker.log_run(
        "train",
        parameters={"train.minutes": "30"},
        metrics={"dice/anterior": 0.9, "hd95_mm/posterior": 1.5},
        tags={"commit": "abc", "dataset": "3f" * 32, "environment": "a1" * 32},
        files=[report],
    )
    client = MlflowClient(tracking_uri=tracker.uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train"
    assert run.data.params == {"train.minutes": "30"}
    assert run.data.metrics == {"dice/anterior": 0.9, "hd95_mm/posterior": 1.5}
    assert {"commit": "abc", "dataset": "3f" * 32}.items() <= run.data.tags.items()
    assert client.get_experiment(run.info.experiment_id).name == "hip-ct"
    assert [item.path for item in client.list_artifacts(run_id)] == ["report.html"]
    assert (tracker.folder / "mlartifacts" / run_id / "artifacts" / "report.html").read_text() == "<h1>fine</h1>"


def test_a_training_is_one_run_while_it_is_under_way_left_taken_up_again_and_recorded(tracker: MlflowTracker) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    experiment = client.get_experiment_by_name("hip-ct").experiment_id

    def runs() -> list[tuple[str, str]]:
        found = client.search_runs([experiment], filter_string="tags.training = 'train-ab'")
        return [(run.info.run_name, run.info.status) for run in found]

    tracker.log_live("train-ab", step=10, metrics={"live/loss": 0.5})
    assert runs() == [("train-ab", "RUNNING")]
    tracker.leave("train-ab")
    assert runs() == [("train-ab", "KILLED")]
    again = MlflowTracker("hip-ct", folder=tracker.folder)
    again.log_live("train-ab", step=20, metrics={"live/loss": 0.25})
    assert runs() == [("train-ab", "RUNNING")]
    run_id = tracker.log_run(
        "train-model", parameters={"a": "1"}, metrics={"loss": 0.2}, tags={"model": "m"}, training="train-ab"
    )
    assert runs() == [("train-model", "FINISHED")]
    run = client.get_run(run_id)
    assert run.data.metrics == {"live/loss": 0.25, "loss": 0.2}
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "live/loss")] == [(10, 0.5), (20, 0.25)]
    again.leave("another")
    other = MlflowTracker("hip-ct", folder=tracker.folder)
    other.log_live("train-ab", step=1, metrics={"live/loss": 0.9})  # trained once more: what is finished stays as it is
    assert sorted(runs()) == [("train-ab", "RUNNING"), ("train-model", "FINISHED")]


def test_no_run_is_left_active(tracker: MlflowTracker) -> None:
    import mlflow

    tracker.log_run("quiet", parameters={}, metrics={}, tags={})
    assert mlflow.active_run() is None


def test_many_long_and_oddly_named_values_all_arrive(tracker: MlflowTracker) -> None:
    from mlflow.tracking import MlflowClient

    long = "x" * 20_000
    parameters = {f"p{i}": str(i) for i in range(250)} | {
        "long": long,
        "../up": "1",
        "naïve 'name'": "2",
        "a" * 400: "3",
        "": "4",
    }
    run_id = tracker.log_run("many", parameters=parameters, metrics={"nan": float("nan")}, tags={"long": long})
    run = MlflowClient(tracking_uri=tracker.uri).get_run(run_id)
    assert len(run.data.params) == len(parameters)
    assert run.data.params["p249"] == "249"
    assert run.data.params["long"].endswith("]")
    assert len(run.data.params["long"]) == MAX_PARAMETER_CHARACTERS


def test_our_limits_are_those_of_the_installed_mlflow() -> None:
    from mlflow.utils import validation

    assert validation.MAX_PARAM_VAL_LENGTH >= MAX_PARAMETER_CHARACTERS
    assert validation.MAX_ENTITY_KEY_LENGTH >= MAX_KEY_CHARACTERS
    assert validation.MAX_PARAMS_TAGS_PER_BATCH >= 100


def test_two_long_values_that_differ_at_the_end_stay_different() -> None:
    assert _shortened("x" * 9000 + "a", 6000) != _shortened("x" * 9000 + "b", 6000)
    assert _shortened("short", 6000) == "short"


@given(st.text(max_size=600))
def test_any_text_becomes_a_key_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    _validate_metric_name(_key(name))
    _validate_param(_key(name), "1")


def test_a_file_that_is_not_there_is_said_before_anything_is_recorded(tracker: MlflowTracker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.html"):
        tracker.log_run("broken", parameters={}, metrics={}, tags={}, files=[tmp_path / "gone.html"])


def test_a_server_that_is_away_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = MlflowTracker("x", folder=tmp_path, uri="http://127.0.0.1:9")
    with pytest.raises(ResourceError, match="tracking_uri") as caught:
        tracker.log_run("run", parameters={}, metrics={}, tags={})
    assert "\n" not in caught.value.sentence


def test_a_database_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ResourceError, match="MLflow could not record"):
        MlflowTracker("x", folder=tmp_path).log_run("run", parameters={}, metrics={}, tags={})


def test_a_file_store_is_refused_when_configured_and_not_when_training_ends(tmp_path: Path) -> None:
    for uri in ("./mlruns", "file:///tmp/x", "ftp://x"):
        with pytest.raises(UsageError, match="tracking_uri"):
            MlflowTracker("x", folder=tmp_path, uri=uri)
