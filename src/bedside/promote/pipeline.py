"""Put a model into production, if every gate lets it through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from bedside.core.config import Promote
from bedside.core.custody import lineage
from bedside.core.dataset import Dataset, Splits
from bedside.core.digest import canonical_json
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.evidence import Evidence, Verdict, load_evidence
from bedside.core.ledger import Event, Verification
from bedside.core.model import Model
from bedside.core.record import Record
from bedside.core.task import Gate
from bedside.core.workspace import Workspace
from bedside.promote.release import Release, production_at, production_now, rollback

__all__ = ["Given", "Promotion", "judge", "newest_evidence", "production_at", "production_now", "promote", "rollback"]


@dataclass(frozen=True)
class Given:
    """What the gates may look at (`bedside.core.task.GateInput`)."""

    candidate: Evidence
    baseline: Evidence | None
    chain: Verification
    history: tuple[Event, ...]
    rules: str
    splits: Mapping[str, Splits] = field(default_factory=dict)


class Promotion(Record):
    """What came of it.

    Attributes:
        passed: whether the model is in production now (from `judge`: whether it would be).
        verdicts: of every gate, also after one refused.
        model, evidence: digests of the candidate and of what was measured of it.
        rules: digest of the rules that decided.
        baseline: digest of the model it was compared with, "" if there was none.
        already: whether it was in production before, so that nothing was done; the verdicts are those of that time.
        event: number of the ledger event that says so, 0 from `judge`.
    """

    passed: bool
    verdicts: tuple[Verdict, ...]
    model: str
    evidence: str
    rules: str
    baseline: str = ""
    already: bool = False
    event: int = 0

    @property
    def refusals(self) -> tuple[Verdict, ...]:
        """The gates that refused."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)


def promote(model: Model, evidence: Evidence, rules: Promote) -> Promotion:
    """Ask every gate and, if all agree, put the model into production; either way the ledger says so.

    Promoting the model that is in production already does nothing and returns what decided then, so that repeating a command
    after a crash is safe.

    Args:
        model: the candidate; its bytes are hashed again.
        evidence: what `evaluate` measured of it, as it stands in the store.
        rules: gates and baseline.

    Raises:
        UsageError: the evidence is of another model (EVIDENCE) or not in the ledger (EVIDENCE); the baseline was not evaluated on
            the same split of the same dataset (NO_BASELINE).
        IntegrityError: stored bytes have changed, or the ledger is broken and no gate refused for it.
    """
    found = judge(model, evidence, rules)
    if found.already:
        return found
    event = model.workspace.ledger.append(
        "promoted" if found.passed else "promotion_refused",
        inputs={"model": found.model, "evidence": found.evidence},
        facts={
            "rules": found.rules,
            "baseline": found.baseline,
            "verdicts": [verdict.model_dump(mode="json") for verdict in found.verdicts],
        },
    )
    return found.model_copy(update={"event": event.seq})


def judge(model: Model, evidence: Evidence, rules: Promote) -> Promotion:
    """Ask every gate, so that one refusal does not hide another, and write nothing; see `promote`."""
    workspace = model.workspace
    workspace.get(model.digest)
    present = production_now(workspace)
    if present is not None and present.model == model.digest:
        return _already(workspace, present)
    history = tuple(workspace.ledger.events())
    recorded = _recorded(workspace, history, model, evidence)
    baseline = _baseline(workspace, history, evidence, _baseline_model(rules, present))
    splits = _splits(workspace, history, evidence)
    given = Given(evidence, baseline, workspace.ledger.verify(), history, rules.digest(), splits)
    verdicts = tuple(cast("Gate", gate).judge(given) for gate in rules.gates)
    passed = all(verdict.passed for verdict in verdicts)
    if passed and not given.chain.intact:
        raise IntegrityError(f"The ledger is broken at {given.chain}; no model is promoted on it.", code="LEDGER")
    return Promotion(
        passed=passed,
        verdicts=verdicts,
        model=model.digest,
        evidence=recorded,
        rules=given.rules,
        baseline=baseline.model if baseline else "",
    )


def _splits(workspace: Workspace, history: tuple[Event, ...], evidence: Evidence) -> dict[str, Splits]:
    """The splits of all that a model was trained or scored on; nothing is read where that is one dataset."""
    trained = {event.inputs.get("dataset", "") for event in lineage(history, evidence.model) if event.action == "trained"}
    if trained <= {evidence.dataset}:
        return {}
    here = [digest for digest in sorted({*trained, evidence.dataset} - {""}) if (workspace.store / digest).is_dir()]
    return {digest: Dataset(digest, workspace).splits for digest in here}


def newest_evidence(workspace: Workspace, model: str, *, dataset: str, split: str) -> Evidence | None:
    """The evidence of the newest evaluation of a model on a split, from the store; None if there was no such evaluation.

    Raises:
        IntegrityError: its bytes are missing or have changed.
    """
    history = tuple(workspace.ledger.events())
    return _newest(workspace, history, model, dataset=dataset, split=split)


def _newest(workspace: Workspace, history: tuple[Event, ...], model: str, *, dataset: str, split: str) -> Evidence | None:
    for event in reversed(history):
        where = event.inputs.get("model"), event.inputs.get("dataset"), event.facts.get("split")
        if event.action == "evaluated" and where == (model, dataset, split):
            return load_evidence(workspace, event.outputs["evidence"])
    return None


def _recorded(workspace: Workspace, history: tuple[Event, ...], model: Model, evidence: Evidence) -> str:
    """Digest under which the store holds this very evidence: what nobody recorded, or what was edited since, decides nothing."""
    if evidence.model != model.digest:
        raise UsageError(
            f"The evidence is of the model {evidence.model[:12]} and not of {model.digest[:12]}; evaluate this one.",
            code="EVIDENCE",
        )
    wanted = canonical_json(evidence.model_dump(mode="json"))
    for event in reversed(history):
        if event.action == "evaluated" and event.inputs.get("model") == model.digest:
            stored = load_evidence(workspace, event.outputs["evidence"])
            if canonical_json(stored.model_dump(mode="json")) == wanted:
                return event.outputs["evidence"]
    raise UsageError(
        f"This evidence of {model.digest[:12]} is not what an evaluation recorded; run bedside evaluate on it.", code="EVIDENCE"
    )


def _baseline_model(rules: Promote, present: Release | None) -> str:
    if rules.baseline != "released":
        return rules.baseline
    return present.model if present is not None else ""


def _baseline(workspace: Workspace, history: tuple[Event, ...], evidence: Evidence, model: str) -> Evidence | None:
    """Newest evidence of the model to compare with, on the candidate's split; None when there is no such model."""
    if not model:
        return None
    found = _newest(workspace, history, model, dataset=evidence.dataset, split=evidence.split)
    if found is None:
        raise UsageError(
            f"The model to compare with ({model[:12]}) was never evaluated on the {evidence.split} split of the dataset"
            f" {evidence.dataset[:12]}; run bedside evaluate on it first.",
            code="NO_BASELINE",
        )
    return found


def _already(workspace: Workspace, present: Release) -> Promotion:
    """Tell what decided when the model in production was promoted."""
    event = next(e for e in workspace.ledger.events() if e.seq == present.promoted)
    return Promotion(
        passed=True,
        verdicts=tuple(Verdict.model_validate(verdict) for verdict in cast("list[object]", event.facts["verdicts"])),
        model=present.model,
        evidence=present.evidence,
        rules=present.rules,
        baseline=str(event.facts["baseline"]),
        already=True,
        event=present.seq,
    )
