"""What ingest writes into the ledger, each fact once: repeating a step that a kill cut short adds only what is missing."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import JsonValue

from bedside.core.config import Promote
from bedside.core.custody import PARENT
from bedside.core.dataset import CaseRecord, Manifest
from bedside.core.digest import digest_json
from bedside.core.errors import disk_errors
from bedside.core.ledger import Entry
from bedside.core.workspace import Workspace
from bedside.ingest.assess import Accepted
from bedside.ingest.quarantine import Refusal


class Records:
    """The part of a study's ledger that ingest knows; read once, so hold `alone(workspace)` while using it.

    Args:
        workspace: the study folder; nothing is written before something is to be said.

    Attributes:
        certificates: digests of certificates of de-identification, oldest first.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._ledger = workspace.ledger
        self._rules = ""
        self._datasets: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._known: set[tuple[str, ...]] = set()
        self.certificates: list[str] = []
        self._known |= {("case", digest) for digest in self._ledger.digests("case_accepted", "case")}
        for event in self._ledger.events(besides="case_accepted"):
            if event.action == "rules_frozen":
                self._rules = event.outputs.get("rules", "")
            elif event.action == "ingested":
                self._datasets[str(event.facts.get("receipt"))] = event.outputs.get("dataset", "")
                self._parents[event.outputs.get("dataset", "")] = event.inputs.get(PARENT, "")
            elif event.action == "quarantined":
                self._known.add(("refusal", event.inputs.get("received", ""), str(event.facts.get("code"))))
            elif event.action == "deidentified":
                self.certificates.append(event.outputs.get("certificate", ""))
            elif event.action == "duplicate":
                self._known.add(("duplicate", event.inputs.get("received", "")))

    def dataset(self, receipt: str) -> str:
        """The dataset that the same files under the same rules gave before, or ""."""
        return self._datasets.get(receipt, "")

    def line(self, dataset: str) -> Iterator[tuple[str, str]]:
        """Yield a dataset and its parent, then those of the version before, and so on; no manifest is read."""
        while dataset and dataset in self._parents:
            parent = self._parents[dataset]
            yield dataset, parent
            dataset = parent

    def freeze(self, promote: Promote) -> None:
        """Fix the rules of promotion, unless the last ones fixed are the same."""
        digest = promote.digest()
        if digest != self._rules:
            self._ledger.append("rules_frozen", outputs={"rules": digest}, facts={"rules": promote.model_dump(mode="json")})
            self._rules = digest

    def refused(self, *refusals: Refusal) -> None:
        """Say that received bytes lie in quarantine."""
        self._ledger.append_all(
            [
                Entry(
                    "quarantined",
                    inputs={"received": one.received},
                    facts={"code": one.code, "sentence": one.sentence, "files": len(one.files)},
                )
                for one in refusals
                if self._new("refusal", one.received, one.code)
            ]
        )

    def repeated(self, received: str, files: int) -> None:
        """Say that received bytes were there before."""
        if self._new("duplicate", received):
            self._ledger.append("duplicate", inputs={"received": received}, facts={"files": files})

    def ingested(self, dataset: str, receipt: str, accepted: Iterable[Accepted], manifest: Manifest) -> None:
        """Say what a stored dataset was made of: every case that came with it, then the whole, with the version it adds to."""
        cases = {PARENT: manifest.parent} if manifest.parent else {}
        entries = []
        for one in sorted(accepted, key=lambda one: one.record.id):
            cases[one.record.id] = case_digest(one.record)
            if self._new("case", cases[one.record.id]):
                entries.append(
                    Entry(
                        "case_accepted",
                        inputs={role: volume.source for role, volume in one.record.volumes.items()},
                        outputs={"case": cases[one.record.id]},
                        facts=_facts(one),
                    )
                )
        self._ledger.append_all(entries)
        if self._datasets.get(receipt) != dataset:
            own = manifest.batch or manifest
            facts: dict[str, JsonValue] = {
                "receipt": receipt,
                "received": own.received,
                "accepted": own.accepted,
                "rejected": {**own.rejected},
                "duplicates": own.duplicates,
                "dropped": manifest.batch.dropped if manifest.batch else 0,
            }
            self._ledger.append("ingested", inputs=cases, outputs={"dataset": dataset}, facts=facts)

    def _new(self, *fact: str) -> bool:
        known = fact in self._known
        self._known.add(fact)
        return not known


def _facts(accepted: Accepted) -> dict[str, JsonValue]:
    """What the ledger says of a case; its notes only where it has some."""
    record = accepted.record
    facts: dict[str, JsonValue] = {"case": record.id, "label_apart_mm": round(accepted.label_apart_mm, 6)}
    return {**facts, "notes": [*record.notes]} if record.notes else facts


def case_digest(record: CaseRecord) -> str:
    """One digest for a case: its record names its arrays by their content."""
    return digest_json(record.model_dump(mode="json"))


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Wait until no other process ingests into this study; a process that dies lets go by itself."""
    with disk_errors("starting to ingest"):
        workspace.scratch.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workspace.scratch / "ingest.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
