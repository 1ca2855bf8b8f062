"""The whole chain on a generated cohort, as the command `bedside demo` runs it."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import JsonValue

from bedside.accelerate.compare import Acceleration
from bedside.accelerate.pipeline import try_stages
from bedside.core.config import Config, load
from bedside.core.custody import History, verify
from bedside.core.dataset import Dataset
from bedside.core.errors import UsageError
from bedside.core.evidence import Evidence
from bedside.core.files import write_atomic
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.run import Run
from bedside.evaluate.pipeline import digest_of, evaluate
from bedside.evaluate.report import write_report
from bedside.ingest.cohort import write_phantom_cohort
from bedside.ingest.pipeline import ingest
from bedside.mirror import Mirrored, mirror
from bedside.promote.pipeline import Promotion, promote
from bedside.train.pipeline import train

SEED = 7


@dataclass(frozen=True, eq=False)
class Demo:
    """Everything that the chain gave."""

    dataset: Dataset
    run: Run
    evidence: Evidence
    evidence_digest: str
    report: Path
    promotion: Promotion
    acceleration: Acceleration
    mirrored: Mirrored
    history: History
    seconds: float

    def summary(self) -> dict[str, JsonValue]:
        """The digests and verdicts, for programs."""
        return {
            "dataset": self.dataset.digest,
            "run": self.run.digest,
            "model": self.run.model,
            "evidence": self.evidence_digest,
            "dice": self.evidence.summaries["dice"]["mean"].model_dump(mode="json"),
            "report": str(self.report),
            "promoted": self.promotion.passed,
            "acceleration": self.acceleration.model_dump(mode="json"),
            "not_mirrored": list(self.mirrored.failed),
            "verify": str(self.history.chain),
            "seconds": round(self.seconds, 1),
        }


class DemoPlan(Record):
    """What `demo --what-if` says would be done."""

    folder: str
    patients: int
    training_budget_minutes: float | None
    steps: tuple[str, ...]


def plan(folder: Path, *, patients: int, overrides: Sequence[str] = ()) -> DemoPlan:
    """Say what `demo` would do, without doing it."""
    with_settings = load(_embedded(), overrides=overrides, folder=folder)
    return DemoPlan(
        folder=str(folder),
        patients=patients,
        training_budget_minutes=with_settings.study.train.minutes,
        steps=("write DICOM cohort", "ingest", "train", "evaluate", "promote", "accelerate", "mirror", "verify"),
    )


def demo(folder: Path, *, patients: int = 36, overrides: Sequence[str] = (), progress: Progress = SILENT) -> Demo:
    """Generate a cohort as DICOM and take it through the chain. A second call in the same folder goes on where one stopped.

    Args:
        folder: study folder; made if it is not there.
        patients: of the cohort.
        overrides: settings, as in `core.config.load`.
        progress: listener.

    Raises:
        UsageError: the folder holds another study.
    """
    started = time.perf_counter()
    config = _prepare(folder, overrides)
    scans = config.workspace.scratch / f"cohort-{patients}-{SEED}"
    if not scans.exists():
        _write_cohort(scans, patients, progress)
    dataset = ingest(config, scans, progress=progress)
    run = train(config, dataset, progress=progress)
    evidence = evaluate(run.best(), dataset.cases("test"), settings=config.study.evaluate, progress=progress)
    report = write_report(evidence, config.workspace)
    promotion = promote(run.best(), evidence, config.promote)
    cases = dataset.cases("calibrate", limit=config.study.accelerate.cases)
    acceleration = try_stages(run.best(), cases, settings=config.study.accelerate, progress=progress)
    mirrored = mirror(config, progress=progress)
    return Demo(
        dataset=dataset,
        run=run,
        evidence=evidence,
        evidence_digest=digest_of(evidence),
        report=report,
        promotion=promotion,
        acceleration=acceleration,
        mirrored=mirrored,
        history=verify(config.workspace),
        seconds=time.perf_counter() - started,
    )


def _embedded() -> Path:
    return Path(str(files("bedside") / "demo.yaml"))


def _prepare(folder: Path, overrides: Sequence[str]) -> Config:
    """Put the embedded study into the folder, once."""
    target = folder / "study.yaml"
    wanted = _embedded().read_bytes()
    if target.exists() and target.read_bytes() != wanted:
        raise UsageError("The folder holds another study.yaml; give an empty folder to bedside demo --folder.", code="NOT_A_DEMO")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(target, wanted, doing="writing the study")
    return load(target, overrides=overrides)


def _write_cohort(scans: Path, patients: int, progress: Progress) -> None:
    """Write to a temporary place and rename, so that a killed demo leaves no half cohort."""
    temporary = scans.with_name(f".{scans.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_phantom_cohort(temporary, patients=patients, seed=SEED, progress=progress)
    temporary.rename(scans)
