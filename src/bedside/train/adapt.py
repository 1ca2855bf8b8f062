"""Beginning with another model's weights: what of them fits, which layers learn when, and how fast."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from bedside.core.adapt import LayerRates, Matched, Unfreeze
from bedside.core.config import Train
from bedside.core.errors import UsageError
from bedside.core.task import Network

LEAST_SHARE = 0.5
"""Weights of which fewer than this share of the network's tensors fit are those of another network."""
MOST_NAMED = 3
WRAPPERS = ("module.", "model.", "net.", "network.", "backbone.")
DECODER = (
    "*.upsample.*",
    "output_block.*",
    "deep_supervision_heads.*",
    "model.2.*",
    "*.submodule.2.*",
    "up_layers.*",
    "decoder*",
    "out.*",
)
"""Names of what stands behind the deepest level, in the networks that come with bedside."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a training begins with instead of chance.

    Attributes:
        tensors: those of the parent that fit, by the network's names.
        matched: what fits and what does not.
    """

    tensors: Mapping[str, torch.Tensor]
    matched: Matched

    @torch.no_grad()
    def begin(self, net: nn.Module) -> None:
        """Put the parent's weights into a network that was built by chance."""
        state = net.state_dict()
        for name, value in self.tensors.items():
            state[name].copy_(value)


@dataclass(frozen=True)
class Layers:
    """Which weights learn from when on, and at what share of the learning rate.

    Attributes:
        rates: name of a weight to its factor, where it is not 1.
        stages: (share of the steps, names that learn from then on); empty: all of them learn.
    """

    rates: Mapping[str, float]
    stages: tuple[tuple[float, frozenset[str]], ...] = ()

    def groups(self, net: nn.Module) -> list[dict[str, object]]:
        """The network's weights for an optimizer, one group for each factor."""
        by_factor: dict[float, list[nn.Parameter]] = {}
        for name, parameter in net.named_parameters():
            by_factor.setdefault(self.rates.get(name, 1.0), []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in by_factor.items()]

    def learning(self, share: float) -> frozenset[str]:
        """Names of the weights that learn when this share of the steps is done."""
        return frozenset().union(*(names for at, names in self.stages if at <= share))

    def freeze(self, net: nn.Module, share: float) -> None:
        """Let just these weights take part in the next step; a norm whose weights rest keeps its running means too."""
        if not self.stages:
            return
        learning = self.learning(share)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in learning)
        for module in net.modules():
            own = list(module.parameters(recurse=False))
            if own and next(module.buffers(recurse=False), None) is not None:
                module.train(any(parameter.requires_grad for parameter in own))


def matching(net: nn.Module, weights: Mapping[str, torch.Tensor], *, parent: str, head: frozenset[str], same: bool) -> Start:
    """Find which of the parent's tensors fit a network, by name and shape.

    Args:
        net: as the training builds it.
        weights: of the parent; a wrapper's prefix before every name ("module.") does not matter.
        parent: digest.
        head: names of the network's tensors whose shape follows the number of classes.
        same: whether the parent's classes are those of the training; if not, the head begins by chance.

    Raises:
        UsageError: PARENT_MISMATCH: fewer than half of the network's tensors fit.
    """
    target = net.state_dict()
    tables = [weights, *({_bare(name, prefix): value for name, value in weights.items()} for prefix in WRAPPERS)]
    fitting = max((_fitting(target, table) for table in tables), key=len)
    unused = len(weights) - len(fitting)
    taken = {name: value for name, value in fitting.items() if same or name not in head}
    fresh = [name for name in target if name not in taken]
    if 2 * len(fitting) < len(target):
        raise UsageError(
            f"Only {len(fitting)} of the network's {len(target)} tensors have their name and shape in train.from"
            f" ({', '.join(fresh[:MOST_NAMED])}, ... do not); take its network, or begin without it.",
            code="PARENT_MISMATCH",
        )
    matched = Matched(
        parent=parent,
        taken=len(taken),
        of=len(target),
        fresh=tuple(fresh[:MOST_NAMED]),
        fresh_count=len(fresh),
        unused=unused,
        head=bool(head & set(fresh)),
    )
    return Start({name: value.to(target[name].dtype) for name, value in taken.items()}, matched)


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)


def _fitting(target: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weights[name] for name in target if name in weights and weights[name].shape == target[name].shape}


def head_of(network: Network, in_channels: int, out_channels: int) -> frozenset[str]:
    """Names of the tensors whose shape follows the number of classes."""
    shapes = [
        {name: value.shape for name, value in network.build(in_channels, count).state_dict().items()}
        for count in (out_channels, out_channels + 1)
    ]
    return frozenset(name for name, shape in shapes[0].items() if shapes[1].get(name) != shape)


def layers_of(train: Train, net: nn.Module, fresh: Iterable[str]) -> Layers | None:
    """What the study says of single layers, by the names of a network; None where it says nothing.

    Args:
        train: the study's settings.
        net: the network.
        fresh: names of weights that the parent did not give: they always learn.

    Raises:
        UsageError: LAYERS: a pattern fits no weight of the network, or nothing would learn.
    """
    if not train.unfreeze and not train.layer_rates:
        return None
    names = [name for name, _ in net.named_parameters()]
    stages = _stages(train.unfreeze, names, frozenset(fresh) & set(names))
    return Layers(_rates(train.layer_rates, names), stages)


def _rates(asked: LayerRates, names: list[str]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for pattern, factor in asked.items():
        rates |= dict.fromkeys(_named(pattern, names), factor)
    return rates


def _stages(asked: tuple[Unfreeze, ...], names: list[str], always: frozenset[str]) -> tuple[tuple[float, frozenset[str]], ...]:
    stages = [(0.0, always)] if asked and always else []
    for entry in asked:
        patterns = {"all": ("*",), "decoder": DECODER}[entry.layers] if isinstance(entry.layers, str) else entry.layers
        found = [_matches(pattern, names) if entry.layers == "decoder" else _named(pattern, names) for pattern in patterns]
        together = frozenset().union(*found)
        if not together:
            raise UsageError('This network has nothing that "decoder" names; give patterns of its weights.', code="LAYERS")
        stages.append((entry.at, together))
    return tuple(stages)


def _matches(pattern: str, names: list[str]) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]


def _named(pattern: str, names: list[str]) -> list[str]:
    found = _matches(pattern, names)
    if not found:
        raise UsageError(
            f"No weight of the network is called {pattern}; they are called {', '.join(names[:2])}, ..., {names[-1]}.",
            code="LAYERS",
        )
    return found
