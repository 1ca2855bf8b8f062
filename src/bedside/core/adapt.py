"""Settings of a training that begins with another model's weights: which layers learn when, and how fast."""

from typing import Annotated, Literal

from pydantic import Field

from bedside.core.record import Record

LayerPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?\[\]-]{1,200}$")]
"""Names of weights as in a shell ("skip_layers.*"), or the beginning of them up to a dot ("output_block")."""
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
LayerRates = dict[LayerPattern, Rate]


class Unfreeze(Record):
    """From a moment of the training on, these layers learn too.

    Attributes:
        at: share of the steps that are done by then; the first entry of a list begins at 0.
        layers: patterns of names of weights, or "decoder", or "all".
    """

    at: Annotated[float, Field(ge=0, lt=1)]
    layers: Literal["decoder", "all"] | Annotated[tuple[LayerPattern, ...], Field(min_length=1)]


class Matched(Record):
    """What of another model's weights a training began with.

    Attributes:
        parent: digest of the model, or of the weights that were taken into the store.
        taken: how many of the network's tensors; of: how many it has.
        fresh: names of those that began by chance, the first few.
        fresh_count: how many; unused: how many tensors of the parent have no place.
        head: whether the output head began by chance because the classes differ, or are not known to be the same.
    """

    parent: str
    taken: int
    of: int
    fresh: tuple[str, ...]
    fresh_count: int
    unused: int
    head: bool

    @property
    def said(self) -> str:
        """One sentence for people."""
        named = f" ({', '.join(self.fresh)}{', ...' if self.fresh_count > len(self.fresh) else ''})" if self.fresh else ""
        head = "; the output head is new, for the classes are others" if self.head else ""
        left = f"; {self.unused} of the parent have no place here" if self.unused else ""
        return f"{self.taken} of {self.of} tensors come from {self.parent[:12]}, {self.fresh_count} begin anew{named}{left}{head}"


class Origin(Record):
    """`origin.json` beside weights that came from outside.

    Attributes:
        kind: "safetensors" or "bundle"; source: SHA-256 of what was received.
        network: class of the network as a bundle names it, classes: names of its output channels; "" and empty where unknown.
        tensors: how many.
    """

    kind: str
    source: str
    network: str
    classes: tuple[str, ...]
    tensors: int
