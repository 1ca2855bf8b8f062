"""Protocols of the parts that steps are written against."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside.core.case import Case, Prediction
from bedside.core.contract import Contract
from bedside.core.dataset import Splits
from bedside.core.evidence import Evidence, Verdict
from bedside.core.ledger import Event, Verification
from bedside.core.model import Model

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]

Forward = Callable[[FloatArray], FloatArray]
"""What an engine makes of weights: (B, C_in, I, J, K) float32 to (B, C_out, I, J, K) float32, one window each."""


class Task(Protocol):
    """What is asked of the model."""

    def out_channels(self, contract: Contract) -> int:
        """Channels of the network's output."""
        ...

    def target(self, case: Case) -> NDArray[np.generic]:
        """What the output is compared with in training: (I, J, K) on the case's grid."""
        ...

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """Scalar loss of (B, C, I, J, K) output against (B, I, J, K) target."""
        ...

    def activate(self, output: FloatArray) -> FloatArray:
        """Turn raw output (C, I, J, K) into what is averaged over windows (probabilities for segmentation); may overwrite it."""
        ...

    def decode(self, output: FloatArray) -> tuple[NDArray[np.generic], FloatArray]:
        """Turn averaged output (C, I, J, K) into the answer and its uncertainty, each (I, J, K).

        Voxel by voxel: it is called on boxes of a volume as they become ready, and the boxes must say what the whole would.
        """
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that judge it, the leading one first."""
        ...


class Network(Protocol):
    """An architecture: its settings are its fields.

    One that cannot take a patch of any size has a property `divisors`, see the function of that name.
    """

    def build(self, in_channels: int, out_channels: int) -> "torch.nn.Module":
        """Make the network with fresh weights: (B, C_in, I, J, K) to (B, C_out, I, J, K).

        With deep supervision it gives in training mode, and only there, several outputs, the one of full resolution first.
        """
        ...


def least_patches(network: object) -> int:
    """How many patches must pass a network at once: a batch norm of one patch would be an instance norm in training only."""
    return 2 if getattr(network, "norm", "") == "batch" else 1


def divisors(network: object) -> tuple[int, int, int]:
    """What the sides of a network's patch must be multiples of, axis by axis: its `divisors`, or its `divisor` for all axes."""
    one = getattr(network, "divisor", 1)
    i, j, k = getattr(network, "divisors", (one, one, one))
    return i, j, k


class Predictor(Protocol):
    """What an engine makes of a model: a case in, an answer out. Checks the contract itself."""

    def __call__(self, case: Case) -> Prediction:
        """Predict one case.

        Raises:
            InputRejected: the case breaks the model's contract.
        """
        ...


class Engine(Protocol):
    """Runs models of one format."""

    model_format: ClassVar[Literal["safetensors", "onnx"]]

    def forward(self, model: Model) -> Forward:
        """Load the weights and return the function that computes one batch of windows.

        Raises:
            UsageError: the engine does not run this format.
            UnsafeArtefact: the file could reach outside itself.
        """
        ...


class GateInput(Protocol):
    """What a gate may look at."""

    @property
    def candidate(self) -> Evidence:
        """Evidence of the model that asks for promotion."""
        ...

    @property
    def baseline(self) -> Evidence | None:
        """Evidence of the model in production on the same split; None when nothing is in production."""
        ...

    @property
    def chain(self) -> Verification:
        """State of the ledger."""
        ...

    @property
    def history(self) -> tuple[Event, ...]:
        """Events of the ledger."""
        ...

    @property
    def rules(self) -> str:
        """Digest of the promotion rules now in force."""
        ...

    @property
    def splits(self) -> Mapping[str, Splits]:
        """Who was in which split, by digest of the dataset: of all that the candidate was trained or scored on and the store has.

        Empty where it was trained on nothing but the dataset that it was scored on.
        """
        ...


class Gate(Protocol):
    """One rule of promotion."""

    def judge(self, given: GateInput) -> Verdict:
        """Look at the evidence and say yes or no, and why, in a sentence."""
        ...
