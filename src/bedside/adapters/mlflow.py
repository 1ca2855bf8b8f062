"""MLflow as `Tracker`: a mirror of runs for people to look at. Nothing is ever read back from it but its own ids.

Only `MlflowClient` is used: the fluent API keeps a hidden active run. MLflow's usage reports are switched off before it is
imported, and its loggers and warnings stay out of our output.
"""

import hashlib
import logging
import os
import posixpath
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bedside.core.errors import ResourceError, UsageError, disk_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Limits of mlflow.utils.validation (3.17). Beyond them a server refuses or, worse, cuts without a word.
MAX_KEY_CHARACTERS = 250
MAX_PARAMETER_CHARACTERS = 6000
MAX_TAG_CHARACTERS = 8000
_PER_BATCH = 100
TRAINING = "training"
"""The tag by which the run of a training that is under way is found again."""


class MlflowTracker:
    """Mirrors runs of one study as one experiment.

    Args:
        experiment: name of the experiment: the study's.
        folder: the study folder, which holds `mlflow.db` and `mlartifacts/` unless `uri` names a server.
        uri: of a tracking server ("http://...", "sqlite:///..."); None: `sqlite:///<folder>/mlflow.db`.
    """

    def __init__(self, experiment: str, *, folder: Path, uri: str | None = None) -> None:
        self.experiment = experiment
        self.folder = folder.absolute()
        self.uri = uri or f"sqlite:///{self.folder / 'mlflow.db'}"
        self._client: MlflowClient | None = None
        self._live: dict[str, str] = {}
        if urlsplit(self.uri).scheme not in {"http", "https", "sqlite", "postgresql", "mysql"}:
            raise UsageError(
                "tracking_uri must begin with http:, https:, sqlite:, postgresql: or mysql:; MLflow has no file store any more.",
                code="TRACKING_URI",
            )

    def log_run(
        self,
        name: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        files: Sequence[Path] = (),
        training: str = "",
    ) -> str:
        """Record one finished run and return MLflow's id of it: that of `training`, if it was logged while it was under way.

        Keys are brought to MLflow's alphabet (letters, digits, `_-. :/`). A value longer than MLflow keeps is cut, and ends in
        the SHA-256 of the whole so that two of them can still be told apart.

        Raises:
            ResourceError: the disk is full, or the server cannot be reached; the run itself is not affected.
            UsageError: a file to attach is not there.
        """
        absent = [path.name for path in files if not path.is_file()]
        if absent:
            raise UsageError(f"A file to attach to the run is not there: {', '.join(absent)}.", code="NO_FILE")
        with _quiet(), _mapped():
            client = self._connect()
            experiment = self._experiment_id(client)
            run = self._under_way(client, experiment, training) if training else ""
            if run:
                client.update_run(run, name=name)
            else:
                run = str(client.create_run(experiment, run_name=name).info.run_id)
            self._log_values(client, run, parameters, metrics, tags)
            for path in files:
                client.log_artifact(run, str(path))
            client.set_terminated(run)
            return run

    def log_live(self, training: str, *, step: int, metrics: Mapping[str, float]) -> None:
        """Add numbers to the run of a training that is under way, or was left and goes on; without one it is made.

        Raises:
            ResourceError: the disk is full, or the server cannot be reached.
        """
        from mlflow.entities import Metric

        with _quiet(), _mapped():
            client = self._connect()
            if training not in self._live:
                experiment = self._experiment_id(client)
                run = self._under_way(client, experiment, training)
                if run:
                    client.update_run(run, status="RUNNING")
                else:
                    run = str(client.create_run(experiment, run_name=training, tags={TRAINING: training}).info.run_id)
                self._live[training] = run
            now_ms = int(time.time() * 1000)
            numbers = [Metric(_key(name), value, now_ms, step) for name, value in metrics.items()]
            client.log_batch(self._live[training], metrics=numbers)

    def leave(self, training: str) -> None:
        """Mark the run of a training as killed; it is taken up again if the training goes on, or is recorded.

        Raises:
            ResourceError: the disk is full, or the server cannot be reached.
        """
        run = self._live.pop(training, "")
        if run:
            with _quiet(), _mapped():
                self._connect().set_terminated(run, status="KILLED")

    def _under_way(self, client: "MlflowClient", experiment: str, training: str) -> str:
        """The id of its run that has not finished; "" where there is none."""
        wanted = f"tags.{TRAINING} = '{training}' and attributes.status != 'FINISHED'"
        found = client.search_runs([experiment], filter_string=wanted, max_results=1)
        return str(found[0].info.run_id) if found else ""

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def _experiment_id(self, client: "MlflowClient") -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        local = urlsplit(self.uri).scheme == "sqlite"
        place = (self.folder / "mlartifacts").as_uri() if local else None
        return str(client.create_experiment(self.experiment, artifact_location=place))

    def _log_values(
        self,
        client: "MlflowClient",
        run: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        params = [Param(_key(name), _shortened(value, MAX_PARAMETER_CHARACTERS)) for name, value in parameters.items()]
        numbers = [Metric(_key(name), value, now_ms, 0) for name, value in metrics.items()]
        labels = [RunTag(_key(name), _shortened(value, MAX_TAG_CHARACTERS)) for name, value in tags.items()]
        for start in range(0, max(len(params), len(numbers), len(labels)), _PER_BATCH):
            part = slice(start, start + _PER_BATCH)
            client.log_batch(run, metrics=numbers[part], params=params[part], tags=labels[part])


def _key(name: str) -> str:
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "_-. :/") else "_" for c in name) or "_"
    if posixpath.normpath(clean) != clean or clean.startswith(("/", ".")):  # MLflow takes a key for a path
        clean = clean.replace("/", "_").replace(".", "_")
    return clean if len(clean) <= MAX_KEY_CHARACTERS else f"{clean[: MAX_KEY_CHARACTERS - 13]}-{_sha256(name)[:12]}"


def _shortened(value: str, limit: int) -> str:
    if len(value) <= limit:
        return value
    ending = f"... [{len(value)} characters, sha256 {_sha256(value)}]"
    return value[: limit - len(ending)] + ending


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's, alembic's and SQLAlchemy's own chatter from people; what fails is raised all the same.

    Comes before the first import of MLflow, which reads these variables then.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for name in ("alembic", "mlflow", "mlflow.store.db.utils", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _mapped() -> Iterator[None]:
    """Turn what MLflow and its database raise into our errors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with disk_errors("mirroring the run to MLflow"):
            yield
    except (MlflowException, SQLAlchemyError) as error:
        if "disk is full" in str(error).lower():
            raise ResourceError(
                "The disk is full while mirroring the run to MLflow; the run itself is kept.", code="DISK_FULL"
            ) from error
        raise ResourceError(
            "MLflow could not record the run (server away, or its database is of another version); the run itself is kept."
            " Check tracking_uri in site.yaml, or set tracking: off.",
            code="TRACKER",
        ) from error
