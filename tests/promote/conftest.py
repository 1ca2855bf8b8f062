"""A study folder with a true ledger and store, filled by hand with what the earlier steps would write."""

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bedside.core.config import Promote
from bedside.core.digest import canonical_json, digest_json
from bedside.core.evidence import CaseTiming, Evidence
from bedside.core.ledger import Event, Ledger
from bedside.core.model import Model
from bedside.core.workspace import Workspace
from bedside.metrics.intervals import bootstrap_interval
from bedside.metrics.segmentation import DEFINITIONS
from bedside.promote.pipeline import Given
from bedside.promote.policy import freeze

Scores = Mapping[str, Mapping[str, float]]
PATIENTS = tuple(f"p{number:02d}" for number in range(30))
DATASET, CASES = digest_json("dataset"), {patient: digest_json(patient) for patient in PATIENTS}
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def level(value: float, *, labels: tuple[str, ...] = ("femur", "pelvis")) -> dict[str, dict[str, float]]:
    """Scores of every patient near a value, label -> patient -> value."""
    return {label: {p: value + 0.001 * (index % 7 - 3) for index, p in enumerate(PATIENTS)} for label in labels}


def make_evidence(scores: Scores, *, metric: str = "dice", model: str = "m" * 64, **changes: object) -> Evidence:
    """Evidence with these scores of one metric; any field can be replaced."""
    per_patient = {p: sum(row[p] for row in scores.values()) / len(scores) for p in next(iter(scores.values()))}
    labels = {**scores, "mean": per_patient}
    fields: dict[str, object] = {
        "model": model,
        "dataset": DATASET,
        "split": "test",
        "engine": {"name": "torch"},
        "rules": "r" * 64,
        "definitions": (DEFINITIONS[metric],),
        "scores": {metric: labels},
        "summaries": {metric: {label: bootstrap_interval(list(row.values()), resamples=200) for label, row in labels.items()}},
        "timings": {p: CaseTiming(seconds=1.0, peak_memory_mb=100.0) for p in PATIENTS},
    }
    return Evidence.model_validate({**fields, **changes})


class Study:
    """What ingest, train and evaluate leave behind. The clock goes on by one day with every event."""

    def __init__(self, folder: Path, rules: Promote) -> None:
        self.rules = rules
        self.days = 0
        self.workspace = Workspace(folder)
        self.workspace.__dict__["ledger"] = Ledger(folder / "ledger.jsonl", clock=self._clock)

    @property
    def ledger(self) -> Ledger:
        return self.workspace.ledger

    def _clock(self) -> datetime:
        self.days += 1
        return START + timedelta(days=self.days)

    def ingest(self) -> None:
        freeze(self.ledger, self.rules)
        for name, case in CASES.items():
            self.ledger.append("case_accepted", inputs={"image": digest_json("scan" + name)}, outputs={"case": case})
        self.ledger.append("ingested", inputs=CASES, outputs={"dataset": DATASET})

    def model(self, name: str) -> Model:
        """Put bytes into the store that no event speaks of."""
        with self.workspace.staging() as staged:
            (staged / "model.json").write_text(name)
            return Model(self.workspace.put(staged), self.workspace)

    def train(self, name: str, *, commit: str = "c" * 40, dataset: str = DATASET) -> Model:
        model = self.model(name)
        outputs = {"model": model.digest, "run": digest_json(["run", name])}
        self.ledger.append("trained", inputs={"dataset": dataset, "study": "s" * 64}, outputs=outputs, facts={"commit": commit})
        return model

    def evaluate(self, model: Model, scores: Scores, **changes: object) -> Evidence:
        """Read the test split, score and record."""
        changes = {"rules": self.rules.digest(), **changes}
        evidence = make_evidence(scores, model=model.digest, **changes)
        if evidence.split == "test":
            self.ledger.append("test_split_read", inputs={"dataset": evidence.dataset}, facts={"cases": len(PATIENTS)})
        with self.workspace.staging() as staged:
            (staged / "evidence.json").write_bytes(canonical_json(evidence.model_dump(mode="json")))
            stored = self.workspace.put(staged)
        self.ledger.append(
            "evaluated",
            inputs={"model": evidence.model, "dataset": evidence.dataset},
            outputs={"evidence": stored},
            facts={"split": evidence.split, "rules": evidence.rules},
        )
        return evidence

    def given(self, evidence: Evidence, baseline: Evidence | None = None) -> Given:
        """What a gate would be shown now."""
        return Given(evidence, baseline, self.ledger.verify(), tuple(self.ledger.events()), self.rules.digest())

    def actions(self) -> list[str]:
        return [event.action for event in self.ledger.events()]

    def last(self) -> Event:
        return list(self.ledger.events())[-1]


GATES: list[dict[str, object]] = [
    {"name": "provenance"},
    {"name": "non_inferiority", "margin": 0.01},
    {"name": "absolute", "floor": 0.8},
    {"name": "latency", "p95_seconds": 2.0},
]


RULES = Promote.model_validate({"gates": GATES})


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study after ingest, made once because every one of its events is forced to disk."""
    found = Study(tmp_path_factory.mktemp("ingested"), RULES)
    found.ingest()
    return found


@pytest.fixture
def study(tmp_path: Path, ingested: Study) -> Study:
    """A study with a dataset and frozen rules: all four gates."""
    found = Study(tmp_path, RULES)
    shutil.copy(ingested.ledger.path, found.ledger.path)
    found.days = ingested.days
    return found


@pytest.fixture(scope="session")
def evidence_of() -> Callable[..., Evidence]:
    """`make_evidence`."""
    return make_evidence


@pytest.fixture(scope="session")
def near() -> Callable[..., dict[str, dict[str, float]]]:
    """`level`."""
    return level


@pytest.fixture(scope="session")
def shown() -> Callable[..., Given]:
    """What a gate is shown where the ledger does not matter."""

    def show(candidate: Evidence, baseline: Evidence | None = None) -> Given:
        from bedside.core.ledger import Verification

        return Given(candidate, baseline, Verification(events=0, head="0:" + "0" * 64), (), candidate.rules)

    return show
