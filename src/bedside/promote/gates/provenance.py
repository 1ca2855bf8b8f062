"""Where the model comes from is known, and the rules were fixed before the test split was looked at."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from bedside.core.custody import PARENT, lineage, versions
from bedside.core.evidence import Evidence, Verdict
from bedside.core.ledger import Event
from bedside.core.record import Part
from bedside.core.task import GateInput
from bedside.promote.policy import Freezing, freezing

_MOST_NAMED = 3


class Provenance(Part):
    """The chain of custody holds from the candidate back to accepted scans.

    It refuses unless all of this is in the ledger, and names everything that is not: the chain is intact; the model was made by a
    training with a known code commit; the dataset that it was trained on is the one that it was scored on, or a version that this
    one was made from and none of whose patients outside its test split is in the test split now, so that no patient of the test
    split can have been trained on; every case of these versions was accepted; the evidence is of the locked test split and was
    recorded; and the rules now in force were frozen before the split was read for it.

    Attributes:
        clean_code: whether a model trained from an edited checkout (commit ends in "+") is refused too.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "provenance"

    clean_code: bool = False

    def judge(self, given: GateInput) -> Verdict:
        """Walk the ledger from the candidate back to the scans."""
        evidence = given.candidate
        behind = lineage(given.history, evidence.model)
        trained = [event for event in behind if event.action == "trained"]
        scans = sum(event.action == "case_accepted" for event in behind)
        rules = freezing(given.history, rules=given.rules, model=evidence.model, dataset=evidence.dataset)
        problems = [
            *([] if given.chain.intact else [f"the ledger is broken at {given.chain}"]),
            *self._code(evidence.model, trained),
            *_data(given, trained),
            *_rules(evidence, given.rules, rules),
        ]
        commits = sorted({str(event.facts.get("commit") or "") for event in trained})
        earlier = _others(evidence.dataset, trained)
        before = f" and the earlier version {', '.join(digest[:12] for digest in earlier)} of the dataset" if earlier else ""
        return Verdict(
            gate=self.part_name,
            passed=not problems,
            because=(
                f"The model's origin is not proven: {'; '.join(problems)}."
                if problems
                else f"The ledger ({given.chain.events} events) is intact and leads from the model back to {scans} accepted scans"
                f" through code {', '.join(map(_short, commits))}{before}; the rules were frozen (event {rules.frozen})"
                f" before the test split was read (event {rules.read}, reading number {rules.reads})."
            ),
            numbers={
                "events": given.chain.events,
                "scans": scans,
                "commits": list(commits),
                "trained_on_earlier": list(earlier),
                "problems": list(problems),
                "freezing": rules.model_dump(mode="json"),
            },
        )

    def _code(self, model: str, trained: Sequence[Event]) -> Iterator[str]:
        if not trained:
            yield f"no training in the ledger made the model {model[:12]}"
        for event in trained:
            commit = str(event.facts.get("commit") or "")
            if not commit.strip("+"):
                yield f"the training of event {event.seq} recorded no code commit"
            elif self.clean_code and commit.endswith("+"):
                yield f"the training of event {event.seq} ran edited code ({_short(commit)})"


def _others(dataset: str, trained: Sequence[Event]) -> tuple[str, ...]:
    """What a model and those that it began with were trained on beside the dataset that it was scored on."""
    return tuple(sorted({event.inputs.get("dataset", "") for event in trained} - {dataset}))


def _data(given: GateInput, trained: Sequence[Event]) -> Iterator[str]:
    dataset = given.candidate.dataset
    line = versions(given.history, dataset)
    others = _others(dataset, trained)
    for other in others:
        if other in line:
            yield from _tested(given, other)
        else:
            yield (
                f"it was trained on another dataset than the one it was scored on ({dataset[:12]}) and all that this was made"
                " from, so it may have seen patients of the test split"
            )
    if trained:
        strange = [digest for other in others for digest in versions(given.history, other)]
        yield from _ingested(given.history, tuple(dict.fromkeys((*line, *strange))))


def _tested(given: GateInput, earlier: str) -> Iterator[str]:
    """Whom the model may have learned from in an earlier version and is tested on now: nobody, where that can be seen."""
    dataset = given.candidate.dataset
    absent = [digest[:12] for digest in (earlier, dataset) if digest not in given.splits]
    if absent:
        yield (
            f"the store has not got the splits of the dataset {' and '.join(absent)}, so it may have seen patients of the test"
            " split"
        )
        return
    learned = {patient for fold in given.splits[earlier].folds for patient in fold}
    both = sorted(learned & set(given.splits[dataset].test))
    if both:
        named = ", ".join(both[:_MOST_NAMED]) + (", ..." if len(both) > _MOST_NAMED else "")
        yield f"{len(both)} patients of the test split ({named}) were in a fold of {earlier[:12]}, which it was trained on"


def _ingested(history: Sequence[Event], datasets: Sequence[str]) -> Iterator[str]:
    """Versions that no ingest made, and cases that nobody accepted."""
    accepted = {event.outputs.get("case") for event in history if event.action == "case_accepted"}
    for dataset in datasets:
        made = [event for event in history if event.action == "ingested" and event.outputs.get("dataset") == dataset]
        if not made:
            yield f"no ingest in the ledger made the dataset {dataset[:12]} that it was trained or scored on"
        for event in made:
            own = [case for name, case in event.inputs.items() if name != PARENT]
            unknown = sum(case not in accepted for case in own)
            if unknown or not event.inputs:
                yield f"{unknown} of {len(own)} cases of the dataset were never accepted"


def _rules(evidence: Evidence, rules: str, found: Freezing) -> Iterator[str]:
    if evidence.split != "test":
        yield f"the evidence is of the split {evidence.split}, and only the locked test split decides"
    elif evidence.rules != rules:
        stood = f"the rules {evidence.rules[:12]} stood" if evidence.rules else "no rules stood"
        yield f"{stood} when the test split was read, and those in force now are {rules[:12]}"
    elif found.evaluated is None:
        yield "the ledger has no evaluation of this model under these rules"
    elif found.read is None:
        yield f"the ledger has no reading of the test split before the evaluation (event {found.evaluated})"
    elif not found.in_time:
        yield f"these rules were not the ones frozen when the test split was read (event {found.read})"


def _short(commit: str) -> str:
    edited = " with uncommitted changes" if commit.endswith("+") else ""
    name = commit.removesuffix("+")
    return (name[:12] if len(name) == 40 else name) + edited
