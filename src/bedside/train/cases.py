"""The cases that a training learns from or is judged by, read, checked and normalised once for all trainings."""

from dataclasses import dataclass

from bedside.core.dataset import CaseSequence
from bedside.core.model import Preprocessing
from bedside.core.progress import Progress
from bedside.core.run import Incident
from bedside.core.task import Task
from bedside.data.patches import Example
from bedside.train.prepared import case_key, open_prepared, prepared_folder


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prepared cases; arrays are memory maps, so memory does not grow with the dataset.

    Attributes:
        examples: in the order of the dataset.
        damaged: ids of those whose files were not as they had been written, and were prepared again.
    """

    examples: list[Example]
    damaged: tuple[str, ...]

    def incidents(self) -> tuple[Incident, ...]:
        """What a run record says of it."""
        said = "prepared files were not as they had been written; their cases were prepared again"
        return (Incident(step=0, code="PREPARED_AGAIN", said=said, cases=self.damaged),) if self.damaged else ()


def prepare_cases(cases: CaseSequence, *, preprocessing: Preprocessing, task: Task, progress: Progress) -> Prepared:
    """Prepare the cases that no training has prepared in this way, and open the others.

    Raises:
        ResourceError: the disk is full, or it does not give back what was written.
    """
    progress.start("preparing cases", len(cases))
    place, version = prepared_folder(cases.dataset.workspace), cases.dataset.digest
    examples, damaged = [], []
    for number, (record, case) in enumerate(zip(cases.records, cases, strict=True), start=1):
        key = case_key(record, case, dataset=version, preprocessing=preprocessing, task=task)
        example, was_damaged = open_prepared(place / key[:32], case, preprocessing=preprocessing, task=task)
        examples.append(example)
        damaged += [case.id] if was_damaged else []
        progress.advance(number)
    return Prepared(examples, tuple(damaged))
