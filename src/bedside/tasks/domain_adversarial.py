"""A task is learned so that a network's features do not say where an image comes from."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import Field

from bedside.core.dataset import CaseRecord
from bedside.core.errors import UsageError
from bedside.core.lesson import Classroom, Lesson, Moment
from bedside.tasks.nested import WrappedTask

if TYPE_CHECKING:
    import torch

    from bedside.tasks.reversal import DomainNet

MOST_DOMAINS = 64
_UNKNOWN = -100
"""What torch's cross-entropy leaves out."""


class DomainAdversarial(WrappedTask):
    """Any task, learned against a head that tries to tell the domains of its training images (Ganin et al. 2016).

    The head sees the network's deepest features, averaged. It learns to tell domains apart, and its gradient reaches the network
    turned round, more and more during the training: so the features that help the task and do not tell the domain are kept. The
    head is thrown away, and the model that comes out is a plain one of the inner task.

    Attributes:
        task: what is learned.
        column: what tells the domain: "site", "scanner" or a column of the clinical table. A case of which it is not known
            teaches the task only. Rare domains count as much as frequent ones.
        weight: of the head's loss.
        steepness: of the schedule 2 / (1 + exp(-steepness * p)) - 1 over the share p of the training.
        hidden: width of the head.
    """

    part_name: ClassVar[Literal["domain_adversarial"]] = "domain_adversarial"

    column: Annotated[str, Field(min_length=1, max_length=64)] = "site"
    weight: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.1
    steepness: Annotated[float, Field(gt=0, le=100)] = 10.0
    hidden: Annotated[int, Field(ge=1, le=4096)] = 64

    def lesson(self, classroom: Classroom) -> Lesson:
        """Look up the domain of each case.

        Raises:
            UsageError: DOMAINS: the cases are not of two domains at least, or of too many.
        """
        found = {record.id: value for record in classroom.records if (value := self._domain(record)) is not None}
        counts = Counter(found.values())
        if not 2 <= len(counts) <= MOST_DOMAINS:
            raise UsageError(
                f"The cases to learn from are of {len(counts)} domains by their {self.column}, and there must be 2 to"
                f" {MOST_DOMAINS}; name another task.column, or train the inner task alone.",
                code="DOMAINS",
            )
        numbers = {name: number for number, name in enumerate(sorted(counts))}
        weights = tuple(len(found) / (len(counts) * counts[name]) for name in numbers)
        return _Adversary(self, super().lesson(classroom), {case: numbers[name] for case, name in found.items()}, weights)

    def _domain(self, record: CaseRecord) -> str | None:
        named = {"site": record.site, "scanner": record.scanner}
        value = named[self.column] if self.column in named else record.clinical.get(self.column)
        return None if value is None or value == "" else str(value)


class _Adversary(Lesson):
    """The lesson of a task, with a head that is fooled.

    Args:
        task: its settings.
        inner: the lesson of the task inside.
        domains: id of a case to the number of its domain.
        weights: of each domain, 1 on average over the cases.
    """

    def __init__(self, task: DomainAdversarial, inner: Lesson, domains: Mapping[str, int], weights: tuple[float, ...]) -> None:
        self.task, self.inner, self.domains, self.weights = task, inner, domains, weights

    def wrap(self, net: "torch.nn.Module", sample: "torch.Tensor") -> "torch.nn.Module":
        """Put the head behind the network."""
        from bedside.tasks.reversal import DomainNet

        whole = self.inner.wrap(net, sample)
        return DomainNet(whole, sample, domains=len(self.weights), hidden=self.task.hidden)

    def show(self, images: "torch.Tensor", labels: "torch.Tensor", moment: Moment) -> "tuple[torch.Tensor, torch.Tensor]":
        """As the inner task."""
        return self.inner.show(images, labels, moment)

    def added(self, whole: "torch.nn.Module", moment: Moment) -> "torch.Tensor":
        """The weighted cross-entropy of the domains of the patches, whose gradient is turned round before the network."""
        import torch
        from torch.nn import functional

        from bedside.tasks.reversal import strength

        pupil = cast("DomainNet", whole)
        said = pupil.said(strength(moment.progress, self.task.steepness))
        truth = torch.tensor([self.domains.get(case, _UNKNOWN) for case in moment.cases], device=said.device)
        weights = torch.tensor(self.weights, device=said.device)
        each = functional.cross_entropy(said.float(), truth, weights, ignore_index=_UNKNOWN, reduction="none")
        own = self.task.weight * each.sum() / len(moment.cases)
        more = self.inner.added(pupil.net, moment)
        return own if more is None else own + more
