"""Names of parts to classes. Text only until a part is asked for; plug-ins add theirs through entry points."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from bedside.core.errors import UsageError
from bedside.core.record import Part


class Registry:
    """One kind of part.

    Args:
        kind: "task", "network", "engine" or "gate"; plug-ins register under the entry-point group `bedside.<kind>s`.
        known: name to "module:attribute" of the parts that come with bedside.
    """

    def __init__(self, kind: str, known: Mapping[str, str]) -> None:
        self.kind = kind
        self._known = dict(known)

    def targets(self) -> dict[str, str]:
        """Every name with its "module:attribute"; a plug-in cannot replace a part that comes with bedside."""
        outside = {point.name: point.value for point in entry_points(group=f"bedside.{self.kind}s")}
        return dict(sorted((outside | self._known).items()))

    def names(self) -> tuple[str, ...]:
        """The known names, sorted."""
        return tuple(self.targets())

    def resolve(self, name: str) -> type[Part]:
        """Import the class behind a name.

        Raises:
            UsageError: the name is unknown; the sentence lists the known ones.
        """
        target = self._known.get(name) or self.targets().get(name)  # looking through what is installed takes long
        if target is None:
            raise UsageError(f"Unknown {self.kind} {name!r}; known: {', '.join(self.names())}.", code="UNKNOWN_PART")
        module, _, attribute = target.partition(":")
        part = getattr(import_module(module), attribute)
        if not (isinstance(part, type) and issubclass(part, Part)):
            raise UsageError(f"The {self.kind} {name!r} is not a bedside part: {target} is no subclass of Part.", code="BAD_PART")
        return part


_BUILT_IN = {
    "task": {
        "distilled": "bedside.tasks.distilled:Distilled",
        "domain_adversarial": "bedside.tasks.domain_adversarial:DomainAdversarial",
        "masked_volume": "bedside.tasks.masked_volume:MaskedVolume",
        "multi": "bedside.tasks.multi:MultiTask",
        "region_segmentation": "bedside.tasks.regions:RegionSegmentation",
        "segmentation": "bedside.tasks.segmentation:Segmentation",
    },
    "network": {
        "dynunet": "bedside.networks.unet:DynUNet",
        "segresnet": "bedside.networks.segresnet:SegResNet",
        "swin_unetr": "bedside.networks.swin:SwinUNETR",
        "unet": "bedside.networks.unet:UNet",
    },
    "engine": {
        "onnxruntime": "bedside.engines.onnxruntime:OnnxRuntimeEngine",
        "torch": "bedside.engines.torch:TorchEngine",
    },
    "gate": {
        "absolute": "bedside.promote.gates.absolute:Absolute",
        "latency": "bedside.promote.gates.latency:Latency",
        "non_inferiority": "bedside.promote.gates.non_inferiority:NonInferiority",
        "provenance": "bedside.promote.gates.provenance:Provenance",
        "superiority": "bedside.promote.gates.superiority:Superiority",
    },
}


@cache
def registry(kind: str) -> Registry:
    """Return the registry of a kind of part: "task", "network", "engine" or "gate"."""
    return Registry(kind, _BUILT_IN[kind])


def kinds() -> tuple[str, ...]:
    """The kinds of part there are."""
    return tuple(sorted(_BUILT_IN))
