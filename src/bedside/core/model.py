"""Weights and all that is needed to use them, as a record. A model has no `predict`: engines make predictors of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from bedside.core.contract import Contract, PositiveMm
from bedside.core.digest import canonical_json
from bedside.core.errors import IntegrityError
from bedside.core.files import write_atomic
from bedside.core.record import Record
from bedside.core.workspace import Workspace, read_json


class Preprocessing(Record):
    """What is done to an image before a network sees it; the same at training, evaluation and the bedside.

    Axes are always turned to the closest RAS+ first (no interpolation).

    Attributes:
        spacing_mm: resample to this spacing (i, j, k after the turn); None keeps each case's own.
        clip: limits that values are clipped to; None: none.
        normalise: "zscore" subtracts the mean and divides by the standard deviation of the case; "clip" maps the clip limits
            to -1..1.
    """

    spacing_mm: tuple[PositiveMm, PositiveMm, PositiveMm] | None = None
    clip: tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]] | None = None
    normalise: Literal["zscore", "clip"] = "zscore"

    @model_validator(mode="after")
    def _limits_are_apart(self) -> Self:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"clip goes from {self.clip[0]:g} to {self.clip[1]:g}; the first must be the lower one")
        return self


class ModelSpec(Record):
    """Everything about a model but its weights.

    Attributes:
        study: name of the study.
        format: "safetensors" (weights.safetensors, for `network`), "onnx" (model.onnx, one file, no external data) or "ensemble"
            (no weights: the mean of its members).
        task, network: the parts as {name, settings}.
        contract: what an input must look like.
        preprocessing: what is done to it.
        patch: (I, J, K) voxels of one window.
        overlap: of neighbouring windows at prediction, as a fraction of the patch.
        mirror: whether predictions are averaged over the volume and its left-right mirror image.
        in_channels, out_channels: of the network.
        dataset, run: digests of what it was trained on and by; `study_digest`: of the resolved study.
        parent: digest of the model it was made from ("" for a trained one).
        engine: the engine it is meant for, as {name, settings}.
        members: digests of the models that an ensemble is the mean of.
    """

    study: str
    format: Literal["safetensors", "onnx", "ensemble"]
    task: dict[str, JsonValue]
    network: dict[str, JsonValue]
    contract: Contract
    preprocessing: Preprocessing
    patch: tuple[int, int, int]
    overlap: float
    mirror: bool = False
    in_channels: int
    out_channels: int
    dataset: str
    run: str
    study_digest: str
    parent: str = ""
    engine: dict[str, JsonValue]
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model in the store. `open` re-hashes its bytes; there is no other way in."""

    digest: str
    workspace: Workspace

    @cached_property
    def folder(self) -> Path:
        """The model's folder, hashed again on first use."""
        return self.workspace.get(self.digest)

    @cached_property
    def spec(self) -> ModelSpec:
        """The record beside the weights."""
        try:
            return ModelSpec.model_validate(read_json(self.folder / "model.json"))
        except ValidationError as error:
            raise IntegrityError(
                f"{self.digest[:12]} is not a model: its model.json does not fit.", code="NOT_A_MODEL"
            ) from error

    @property
    def weights(self) -> Path:
        """The file of weights: safetensors or ONNX."""
        return self.folder / ("weights.safetensors" if self.spec.format == "safetensors" else "model.onnx")

    @property
    def weights_bytes(self) -> int:
        """Size of the weights on disk."""
        return self.weights.stat().st_size


def put_model(workspace: Workspace, staged: Path, spec: ModelSpec) -> Model:
    """Write `model.json` beside the weights that lie in `staged`, store the folder and return the model."""
    write_atomic(staged / "model.json", canonical_json(spec.model_dump(mode="json")), doing="storing a model")
    return Model(workspace.put(staged), workspace)
