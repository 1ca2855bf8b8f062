"""Several models as one: the mean of what they say, window by window, so that memory does not grow with their number.

A model in the store whose record lists its members. Each member keeps its own engine and its own normalisation; what is averaged
is what each would average over its windows by itself (probabilities for segmentation), so an ensemble of one is its member, bit
for bit. Members are added in the order of their digests, whatever order they were named in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bedside.core.errors import UsageError
from bedside.core.model import Model, ModelSpec, put_model
from bedside.core.task import FloatArray, Forward
from bedside.core.workspace import Workspace
from bedside.engines.wrap import checked

EVENT = "ensembled"


@dataclass(frozen=True)
class Activated:
    """An engine's function with its output activated, window by window, as `SlidingWindow` does it.

    Attributes:
        forward: (B, C_in, I, J, K) to (B, C_out, I, J, K).
        activate: turns one window's raw output (C_out, I, J, K) into what is averaged; may overwrite it.
    """

    forward: Forward
    activate: Callable[[FloatArray], FloatArray]

    def __call__(self, windows: FloatArray) -> FloatArray:
        """Compute (B, C_out, I, J, K) float32 of (B, C_in, I, J, K)."""
        outputs = checked(self.forward, windows)
        for number, output in enumerate(outputs):
            outputs[number] = self.activate(output)
        return outputs


@dataclass(frozen=True)
class MemberMean:
    """The mean of what members say of each window; the outputs of two are held at once.

    Attributes:
        members: each (B, C, I, J, K) to (B, C_out, I, J, K), activated.
        channels: C of each where the windows hold one image for each member, one after the other; None: one image for all.
    """

    members: tuple[Forward, ...]
    channels: int | None = None

    def __call__(self, windows: FloatArray) -> FloatArray:
        """Compute (B, C_out, I, J, K) float32 of (B, C, I, J, K), or of (B, members * C, I, J, K)."""
        total = checked(self.members[0], self._seen(windows, 0))
        for number, member in enumerate(self.members[1:], start=1):
            total += checked(member, self._seen(windows, number))
        total /= np.float32(len(self.members))
        return total

    def _seen(self, windows: FloatArray, number: int) -> FloatArray:
        if self.channels is None:
            return windows
        return np.ascontiguousarray(windows[:, number * self.channels : (number + 1) * self.channels])


def members_of(model: Model) -> tuple[Model, ...]:
    """The members of an ensemble in the order they are added; of any other model, itself.

    Raises:
        IntegrityError: the ensemble's record has changed; the members are hashed when they are opened.
    """
    if model.spec.format != "ensemble":
        return (model,)
    return tuple(Model(digest, model.workspace) for digest in sorted(model.spec.members))


def make_ensemble(workspace: Workspace, members: Sequence[Model], *, study_digest: str) -> Model:
    """Store the ensemble of some models and write it into the ledger; made again it is the same.

    Args:
        workspace: with the store that holds them.
        members: models of one dataset, one task and one window; each is hashed.
        study_digest: of the study that asks for it.

    Raises:
        UsageError: ENSEMBLE: there are none, one is named twice or is an ensemble itself, or they differ in what must be equal.
        IntegrityError: a member is missing or its bytes have changed.
    """
    chosen = sorted(members, key=lambda member: member.digest)
    _check(chosen)
    first = chosen[0].spec
    spec = first.model_copy(
        update={
            "format": "ensemble",
            "network": {},
            "members": tuple(member.digest for member in chosen),
            "run": "",
            "parent": "",
            "study_digest": study_digest,
        }
    )
    with workspace.staging() as staged:
        model = put_model(workspace, staged, spec)
    before = workspace.ledger.last(EVENT)
    if before is None or before.outputs["model"] != model.digest:
        named = {f"member{number}": member.digest for number, member in enumerate(chosen)}
        workspace.ledger.append(
            EVENT, inputs={"dataset": first.dataset, **named}, outputs={"model": model.digest}, facts={"members": len(chosen)}
        )
    return model


def _check(members: Sequence[Model]) -> None:
    if not members:
        raise UsageError("An ensemble has one member at least; name models, or train the folds first.", code="ENSEMBLE")
    digests = [member.digest for member in members]
    if len(set(digests)) < len(digests):
        raise UsageError("A model is named twice; each counts once in an ensemble.", code="ENSEMBLE")
    first = members[0]
    for other in members:
        if other.spec.format == "ensemble":
            raise UsageError(f"{other.digest[:12]} is an ensemble itself; name its members instead.", code="ENSEMBLE")
        different = [name for name, value in _shared(first.spec).items() if value != _shared(other.spec)[name]]
        if different:
            raise UsageError(
                f"{first.digest[:12]} and {other.digest[:12]} differ in {', '.join(different)}; members of an ensemble share"
                " these. Set them in the study and train again.",
                code="ENSEMBLE",
            )


def _shared(spec: ModelSpec) -> dict[str, object]:
    """What members must have in common, by the words of people."""
    return {
        "dataset": spec.dataset,
        "contract": spec.contract,
        "task": spec.task,
        "spacing": spec.preprocessing.spacing_mm,
        "patch": spec.patch,
        "channels": (spec.in_channels, spec.out_channels),
        "overlap": spec.overlap,
        "mirror": spec.mirror,
    }
