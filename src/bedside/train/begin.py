"""What `train.from` names, found or taken into the store, so that a training always begins with a value that has a digest."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bedside.core.adapt import Origin
from bedside.core.config import Config, Study
from bedside.core.digest import canonical_json, digest_bytes, digest_json
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.files import write_atomic
from bedside.core.lesson import kept_task
from bedside.core.model import Model
from bedside.core.plan import Plan
from bedside.core.record import Part
from bedside.core.registry import registry
from bedside.core.task import Network, Task
from bedside.core.workspace import Workspace, read_json
from bedside.train.adapt import Layers, Start, head_of, layers_of, matching

if TYPE_CHECKING:
    from bedside.formats.bundle import ForeignWeights

ORIGIN, WEIGHTS = "origin.json", "weights.safetensors"
EVENT = "adopted"
_PREFIX = re.compile(r"[0-9a-f]{4,64}\Z")


@dataclass(frozen=True)
class Parent:
    """Weights in the store that a training begins with.

    Attributes:
        digest: of the model, or of the adopted weights.
        file: of the weights.
        classes: what its output channels are called; empty where nobody knows.
        model: the model; None for weights from outside.
    """

    digest: str
    file: Path
    classes: tuple[str, ...]
    model: Model | None


def settled(config: Config, *, keep: bool = True) -> Config:
    """The same study with `train.from` as a digest, and with the parent's network and grid where the study leaves them open.

    Args:
        config: of a study.
        keep: take weights from outside into the store; if not, only their digest is worked out.

    Raises:
        UsageError: NO_WEIGHTS, DIGEST or PARENT_FORMAT.
        InputRejected, UnsafeArtefact: what `formats.bundle.read_foreign` refuses.
    """
    asked = config.study.train.parent
    if asked is None:
        return config
    path = config.workspace.folder / asked
    if _PREFIX.match(asked) and not path.exists():
        digest = config.workspace.find(asked)
        parent = find_parent(config.workspace, digest)
        return Config(_as_parent(config.study, parent), config.site, config.workspace)
    from bedside.formats.bundle import read_foreign

    digest = _adopt(config.workspace, read_foreign(path), keep=keep)
    train = config.study.train.model_copy(update={"parent": digest})
    return Config(config.study.model_copy(update={"train": train}), config.site, config.workspace)


def _as_parent(study: Study, parent: Parent) -> Study:
    train: dict[str, object] = {"parent": parent.digest}
    rest: dict[str, object] = {}
    if parent.model is not None:
        spec = parent.model.spec
        if study.network is None:
            part = registry("network").resolve(str(spec.network.get("name")))
            rest["network"] = part.model_validate({key: value for key, value in spec.network.items() if key != "name"})
        if study.preprocess is None:
            rest["preprocess"] = spec.preprocessing
        if study.train.patch is None:
            train["patch"] = spec.patch
    return study.model_copy(update=rest | {"train": study.train.model_copy(update=train)})


def _adopt(workspace: Workspace, found: "ForeignWeights", *, keep: bool) -> str:
    """Put weights from outside into the store, once, and say in the ledger where they came from; return their digest."""
    origin = Origin(
        kind=found.kind, source=found.source, network=found.network, classes=found.classes, tensors=len(found.tensors)
    )
    files = {ORIGIN: canonical_json(origin.model_dump(mode="json")), WEIGHTS: save(dict(found.tensors))}
    digest = digest_json({name: digest_bytes(data) for name, data in sorted(files.items())})
    if not keep:
        return digest
    with workspace.staging() as staged:
        for name, data in files.items():
            write_atomic(staged / name, data, doing="storing weights")
        digest = workspace.put(staged)
    if workspace.ledger.last(EVENT, source=found.source) is None:
        facts: dict[str, JsonValue] = {"kind": origin.kind, "source": origin.source, "tensors": origin.tensors}
        workspace.ledger.append(EVENT, outputs={"weights": digest}, facts=facts)
    return digest


def find_parent(workspace: Workspace, digest: str) -> Parent:
    """Open the weights of a digest, every byte hashed again.

    Raises:
        UsageError: PARENT_FORMAT: it is no model with safetensors weights, and no adopted weights.
        IntegrityError: missing or changed.
    """
    folder = workspace.get(digest)
    if (folder / ORIGIN).is_file():
        try:
            origin = Origin.model_validate(read_json(folder / ORIGIN))
        except ValidationError as error:
            raise IntegrityError(f"{digest[:12]} holds no weights: its {ORIGIN} does not fit.", code="NOT_WEIGHTS") from error
        return Parent(digest, folder / WEIGHTS, origin.classes, None)
    if not (folder / WEIGHTS).is_file():
        raise UsageError(
            f"{digest[:12]} is no model with safetensors weights; train.from takes the digest that bedside train gave.",
            code="PARENT_FORMAT",
        )
    model = Model(digest, workspace)
    return Parent(digest, model.weights, model.spec.contract.structures, model)


def beginning(config: Config, plan: Plan, in_channels: int) -> tuple[Start | None, Layers | None]:
    """What a training begins with, and which layers learn when, for the network of its plan.

    Raises:
        UsageError: PARENT_MISMATCH, LAYERS.
        IntegrityError: the parent's bytes are missing or have changed, or are no weights.
    """
    study = config.study
    if study.train.parent is None and not study.train.layer_rates:
        return None, None
    task, network = cast("Task", study.task), cast("Network", plan.network)
    out_channels = task.out_channels(study.contract)
    with torch.random.fork_rng(devices=[]):
        net = network.build(in_channels, out_channels)
        head = head_of(network, in_channels, out_channels)
    start = None
    if study.train.parent is not None:
        parent = find_parent(config.workspace, study.train.parent)
        same = parent.classes == study.contract.structures and _same_task(parent, study.task)
        start = matching(net, _tensors(parent), parent=parent.digest, head=head, same=same)
    fresh = [name for name in net.state_dict() if start is not None and name not in start.tensors]
    return start, layers_of(study.train, net, fresh)


def _same_task(parent: Parent, task: Part) -> bool:
    return parent.model is None or parent.model.spec.task.get("name") == kept_task(task).part_name


def _tensors(parent: Parent) -> dict[str, torch.Tensor]:
    try:
        return cast("dict[str, torch.Tensor]", load_file(parent.file))
    except SafetensorError as error:
        raise IntegrityError(f"The weights of {parent.digest[:12]} cannot be read; store them again.", code="WEIGHTS") from error
