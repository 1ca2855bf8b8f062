"""Every registered part resolves and keeps the promises of its kind."""

import numpy as np
import pytest

from bedside.core.case import Case
from bedside.core.evidence import Verdict
from bedside.core.record import Part
from bedside.core.registry import kinds, registry
from bedside.core.task import GateInput
from bedside.core.workspace import Workspace
from bedside.networks.unet import UNet
from bedside.testing import check_engine, check_gate, check_network, check_part, check_task, gate_example, tiny_model

# what a part that cannot be made without settings is made with
SETTINGS: dict[tuple[str, str], dict[str, object]] = {
    ("gate", "absolute"): {"floor": 0.8},
    ("gate", "latency"): {"p95_seconds": 20},
    ("gate", "non_inferiority"): {"margin": 0.01},
    ("task", "distilled"): {"teacher": "0" * 64},
    ("task", "domain_adversarial"): {"task": {"name": "segmentation"}},
    ("task", "multi"): {"tasks": [{"task": {"name": "segmentation"}}, {"task": {"name": "masked_volume"}, "weight": 0.1}]},
    ("task", "region_segmentation"): {"regions": [{"name": "whole", "structures": [1, 2]}, {"name": "back", "structures": [2]}]},
    ("network", "dynunet"): {"features": 2, "levels": 3},
    ("network", "segresnet"): {"features": 2, "blocks": [1, 1]},
    ("network", "swin_unetr"): {"features": 12, "window": 2},
    ("network", "unet"): {"features": 2, "levels": 2},
}
EVERY_PART = [(kind, name) for kind in kinds() for name in registry(kind).names()]


def make(kind: str, name: str) -> Part:
    return registry(kind).resolve(name).model_validate(SETTINGS.get((kind, name), {}))


@pytest.mark.parametrize(("kind", "name"), EVERY_PART)
def test_every_registered_part_resolves_to_a_part_of_that_kind_and_name(kind: str, name: str) -> None:
    part = make(kind, name)
    assert (part.kind, part.part_name) == (kind, name)
    assert type(part).__doc__
    check_part(part)


@pytest.mark.parametrize("name", registry("task").names())
def test_every_task_conforms(name: str) -> None:
    check_task(make("task", name))


@pytest.mark.parametrize("name", registry("network").names())
def test_every_network_conforms(name: str) -> None:
    check_network(make("network", name))


@pytest.mark.parametrize("name", registry("engine").names())
def test_every_engine_conforms(name: str, workspace: Workspace) -> None:
    engine = make("engine", name)
    check_engine(engine, tiny_model(workspace, network=UNet(features=2, levels=2), engine=engine))


@pytest.mark.parametrize("name", registry("gate").names())
def test_every_gate_conforms(name: str) -> None:
    check_gate(make("gate", name))


class Careless(Part):
    """A gate that lets everything through."""

    kind = "gate"
    part_name = "careless"

    def judge(self, given: GateInput) -> Verdict:
        return Verdict(gate="careless", passed=True, because="It looked fine to everybody here.")


class Silent(Careless):
    """A gate that gives no reason."""

    def judge(self, given: GateInput) -> Verdict:
        return Verdict(gate="careless", passed=False, because="")


class Moody(Part):
    """A gate that judges by the order in which it is asked."""

    kind = "gate"
    part_name = "moody"

    def judge(self, given: GateInput) -> Verdict:
        _ASKED.append(1)
        return Verdict(gate="moody", passed=False, because=f"This is the answer to question {len(_ASKED)}.")


_ASKED: list[int] = []


@pytest.mark.parametrize(("gate", "said"), [(Careless(), "no patient"), (Silent(), "sentence"), (Moody(), "second time")])
def test_the_suite_finds_a_gate_that_does_not_conform(gate: Part, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_gate(gate)


class Restless(Part):
    """A task that answers by chance and forgets the case's grid."""

    kind = "task"
    part_name = "restless"

    def out_channels(self, contract: object) -> int:
        return 2

    def target(self, case: Case) -> np.ndarray:
        return case.image.array


def test_the_suite_finds_a_task_that_does_not_conform() -> None:
    with pytest.raises(AssertionError, match="case's grid"):
        check_task(Restless())


def test_the_suite_finds_an_engine_that_runs_what_it_should_refuse(workspace: Workspace) -> None:
    class Trusting(Part):
        kind = "engine"
        part_name = "trusting"

        def forward(self, model: object) -> object:
            return lambda windows: np.zeros((len(windows), 3, 16, 16, 16), dtype=np.float32)

    model = tiny_model(workspace, network=UNet(features=2, levels=2), engine=make("engine", "torch"))
    with pytest.raises(AssertionError, match="wrong use"):
        check_engine(Trusting(), model)


def test_the_sample_evidence_is_consistent_with_itself() -> None:
    given = gate_example()
    assert given.baseline is not None
    assert set(given.candidate.minus(given.baseline, "dice")) == {"anterior", "posterior"}
    assert given.candidate.summaries["dice"]["mean"].n == 40
