"""One patient at one time point, and what a model says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bedside.core.volume import Volume

ClinicalValue = str | float | int | bool | None


@dataclass(frozen=True, eq=False)
class Case:
    """Images and clinical values of one patient at one time point.

    Attributes:
        id: unique in its dataset, letters, digits, `.`, `_` and `-` only.
        patient: pseudonym; the unit of every split, interval and test.
        volumes: role ("image", "label", ...) to volume. Labels hold training ids 0..n-1 in the contract's order.
        clinical: name to value.
        site: where it was taken, or "" when unknown.
        scanner: manufacturer and model, or "" when unknown.
        acquisition: facts about the picture, by the keys of `core.dataset.ACQUISITION`.
    """

    id: str
    patient: str
    volumes: Mapping[str, Volume]
    clinical: Mapping[str, ClinicalValue] = field(default_factory=lambda: MappingProxyType({}))
    site: str = ""
    scanner: str = ""
    acquisition: Mapping[str, ClinicalValue] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def image(self) -> Volume:
        """The volume that models look at."""
        return self.volumes["image"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model said of a case.

    Attributes:
        value: for segmentation (I, J, K) uint8 training ids on the case's own grid.
        uncertainty: (I, J, K) float32 in 0..1 (1 - largest probability), or None where the engine gives none.
        model: digest of the model.
        case: id of the case.
        seconds: stage to wall-clock seconds: "preprocess", "infer", "postprocess".
    """

    value: NDArray[np.generic]
    model: str
    case: str
    uncertainty: NDArray[np.float32] | None = None
    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
