"""Conformance suites: what every task, network, engine and gate must keep, for those who write one.

    from bedside.testing import check_gate

    def test_my_gate_conforms():
        check_gate(MyGate(margin=0.02))

Our own tests run them over every registered part. A broken promise is an `AssertionError` that says which one. The suites need
no test framework, and import torch only where they use it.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from bedside.core.case import Case
from bedside.core.config import PartOf
from bedside.core.contract import Contract
from bedside.core.errors import BedsideError, IntegrityError, UsageError
from bedside.core.evidence import CaseTiming, Evidence, Interval, Verdict
from bedside.core.ledger import GENESIS, Event, Verification
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.record import Part
from bedside.core.registry import kinds
from bedside.core.task import Engine, FloatArray, Gate, GateInput, Network, Task, divisors
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace

CONTRACT = Contract(modality="MR", spacing_mm=(0.2, 5.0), labels={"background": 0, "anterior": 1, "posterior": 2})
SIDE = 16
"""Voxels along each axis of the windows that networks and engines are tried with; a part that needs more has `divisors`."""


def check_part(part: Part) -> None:
    """Check what holds for a part of any kind: its YAML is its constructor.

    Raises:
        AssertionError: the kind or name is missing, unknown settings are taken, or the settings do not give the part back.
    """
    assert part.kind in kinds(), f"kind is {part.kind!r}; it must be one of {', '.join(kinds())}"
    assert part.part_name, "part_name must be the name that stands in the YAML"
    written = json.loads(json.dumps(part.settings()))
    assert written["name"] == part.part_name, "settings() must begin with the part's name"
    settings = {key: value for key, value in written.items() if key != "name"}
    again = type(part).model_validate(settings)
    assert again == part, "the part does not come back from its own settings, so a stored study could not be recreated"
    assert hash(again) == hash(part), "equal parts must have equal hashes"
    _refuses(lambda: type(part).model_validate({**settings, "no_such_setting": 1}), "an unknown setting must be refused")
    for name in settings:
        _refuses(partial(setattr, part, name, None), f"the setting {name} can be changed; parts are frozen")
    assert isinstance(PartOf(part.kind).build(part), Part)


def _refuses(action: Callable[[], object], otherwise: str) -> None:
    try:
        action()
    except (ValueError, BedsideError):
        return
    raise AssertionError(otherwise)


# ---- task ------------------------------------------------------------------------------------------------------------------


def check_task(part: Part) -> None:
    """Check a task on a small labelled case.

    Raises:
        AssertionError: a shape or type is wrong, the loss does not lead downhill, an output is not finite or not repeatable.
    """
    check_part(part)
    task, case = cast("Task", part), sample_case()
    channels = task.out_channels(CONTRACT)
    assert channels >= 1, "out_channels must be at least 1"
    target = task.target(case)
    assert target.shape == case.image.shape[1:], (
        f"target is {target.shape}; it must lie on the case's grid {case.image.shape[1:]}"
    )
    _check_loss(task, target, channels)
    output = np.random.default_rng(0).normal(size=(channels, *target.shape)).astype(np.float32)
    _check_decoding(task, output)
    _check_decoding(task, (output * 1e4).astype(np.float32))
    assert task.metrics, "metrics must name at least one metric, the leading one first"
    assert all(isinstance(name, str) for name in task.metrics), "metrics are names"


def _check_loss(task: Task, target: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", channels: int) -> None:
    import torch

    output = torch.randn((2, channels, *target.shape), generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth = torch.from_numpy(np.stack([target, target]).copy())
    loss = task.loss(output, truth)
    assert loss.ndim == 0, "loss must be one number"
    before = loss.item()
    assert math.isfinite(before), "loss is not finite"
    (gradient,) = torch.autograd.grad(loss, output)
    assert bool(gradient.isfinite().all()), "the gradient of the loss is not finite"
    assert float(gradient.abs().sum()) > 0, "the loss does not depend on the output"
    step = 1e-2 * output.numel() ** 0.5 / float(gradient.norm())
    with torch.no_grad():
        after = task.loss(output - step * gradient, truth).item()
    assert after < before, "a small step against the gradient does not lower the loss"


def _check_decoding(task: Task, output: FloatArray) -> None:
    active = task.activate(output.copy())
    assert active.shape == output.shape, f"activate turned {output.shape} into {active.shape}; it must keep the shape"
    assert active.dtype == np.float32, f"activate gives {active.dtype}; it must give float32"
    assert np.isfinite(active).all(), "activate gives NaN or infinity for finite output"
    before = active.copy()
    value, uncertainty = task.decode(active)
    assert np.array_equal(active, before), "decode changed the output that was passed in"
    for name, array in (("value", value), ("uncertainty", uncertainty)):
        assert array.shape == output.shape[1:], f"decode's {name} is {array.shape}; it must be {output.shape[1:]}"
    assert uncertainty.dtype == np.float32, "uncertainty must be float32"
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1, "uncertainty must lie in 0..1"
    again, _ = task.decode(task.activate(output.copy()))
    assert np.array_equal(value, again), "decode gives another answer for the same output"
    box = (slice(1, None, 2), slice(2, -1), slice(None, 5))
    part, doubt = task.decode(active[(slice(None), *box)])
    assert part.dtype == value.dtype, "decode of a part of the volume gives another number type"
    assert np.array_equal(part, value[box]), "decode of a part of the volume says something else than of the whole"
    assert np.array_equal(doubt, uncertainty[box]), "decode of a part of the volume is of another uncertainty than of the whole"


# ---- network ---------------------------------------------------------------------------------------------------------------


def check_network(part: Part) -> None:
    """Check a network with one input and three output channels.

    Raises:
        AssertionError: the output has another shape, is not repeatable, mixes cases of a batch, a weight gets no gradient, or the
            weights cannot be stored as safetensors and loaded again.
    """
    import torch

    check_part(part)
    network = cast("Network", part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = network.build(1, 3)
        torch.manual_seed(0)
        twin = network.build(1, 3)
        images = torch.randn(2, 1, *_smallest_patch(divisors(part)))
    for name, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), f"the same seed gives other weights in {name}"
    output = net.train()(images)
    heads = output if isinstance(output, tuple | list) else (output,)
    assert heads[0].shape == (2, 3, *images.shape[2:]), f"the output is {tuple(heads[0].shape)}; it must be (2, 3) and the patch"
    divided = [side % coarse == 0 for head in heads for side, coarse in zip(images.shape[2:], head.shape[2:], strict=True)]
    assert all(divided), "the voxels of a lower resolution do not divide the patch"
    sum(head.square().mean() for head in heads).backward()
    idle = [name for name, weight in net.named_parameters() if weight.grad is None or not bool(weight.grad.isfinite().all())]
    assert not idle, f"weights that nothing trains, or without a finite gradient: {', '.join(idle[:3])}"
    net.eval()
    with torch.inference_mode():
        both, first, again = net(images), net(images[:1]), net(images)
    assert isinstance(both, torch.Tensor), "in evaluation mode a network has one output"
    assert bool(both.isfinite().all()), "the output is not finite"
    assert torch.equal(both, again), "the same images give another output in evaluation mode"
    assert torch.allclose(both[:1], first, atol=1e-4), "in evaluation mode a case must not depend on the others of its batch"
    _check_storing(net, twin.eval(), images)


def _smallest_patch(divisors: tuple[int, int, int]) -> tuple[int, int, int]:
    """At least `SIDE` voxels along each axis that is divided, and more than one voxel at the lowest resolution."""
    i, j, k = (max(SIDE, divisor) if divisor > 1 else 1 for divisor in divisors)
    return (2 * i, j, k) if (i, j, k) == divisors else (i, j, k)


def _check_storing(net: object, twin: object, images: object) -> None:
    import torch
    from safetensors.torch import load, save

    first, second = cast("torch.nn.Module", net), cast("torch.nn.Module", twin)
    second.load_state_dict(load(save(first.state_dict())), strict=True)
    with torch.inference_mode():
        assert torch.equal(first(images), second(images)), "stored and loaded again, the weights give another output"


# ---- engine ----------------------------------------------------------------------------------------------------------------


def check_engine(part: Part, model: Model) -> None:
    """Check an engine with a model of a format that it runs.

    Args:
        part: the engine.
        model: for example of `tiny_model`; its store is not written to.

    Raises:
        AssertionError: the output has another shape or is not repeatable, depends on the other windows of a batch, changed bytes
            are run, or a model of another format is not refused as wrong use.
    """
    check_part(part)
    engine, spec = cast("Engine", part), model.spec
    forward = engine.forward(model)
    windows = np.random.default_rng(0).normal(size=(2, spec.in_channels, *spec.patch)).astype(np.float32)
    before = windows.copy()
    output = forward(windows)
    wanted = (2, spec.out_channels, *spec.patch)
    assert output.shape == wanted, f"the output is {output.shape}; it must be {wanted}"
    assert output.dtype == np.float32, f"the output is {output.dtype}; it must be float32"
    assert np.isfinite(output).all(), "the output is not finite"
    assert np.array_equal(windows, before), "the windows that were passed in were changed"
    assert np.array_equal(output, forward(windows)), "the same windows give other bytes the second time"
    for index in range(2):
        alone = forward(windows[index : index + 1])
        scale = max(1.0, float(np.abs(output).max()))
        assert np.abs(alone[0] - output[index]).max() <= 1e-2 * scale, "a window's output depends on the others of its batch"
    assert np.array_equal(output, engine.forward(model)(windows)), "loaded again, the model gives other bytes"
    with tempfile.TemporaryDirectory() as folder:
        _check_refusals(engine, model, Workspace(Path(folder)))


def _check_refusals(engine: Engine, model: Model, scratch: Workspace) -> None:
    other = "onnx" if model.spec.format == "safetensors" else "safetensors"
    with scratch.staging() as staged:
        shutil.copyfile(model.weights, staged / ("model.onnx" if other == "onnx" else "weights.safetensors"))
        foreign = put_model(scratch, staged, model.spec.model_copy(update={"format": other}))
    _raises(UsageError, lambda: engine.forward(foreign), f"a model of the format {other} must be refused as wrong use")
    changed = scratch.store / model.digest
    shutil.copytree(model.folder, changed)
    weights = changed / model.weights.name
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55\xaa")
    _raises(
        IntegrityError, lambda: engine.forward(Model(model.digest, scratch)), "weights that changed under their digest were run"
    )


def _raises(kind: type[BedsideError], action: Callable[[], object], otherwise: str) -> None:
    try:
        action()
    except kind:
        return
    except BedsideError as error:
        raise AssertionError(f"{otherwise}; it raised {type(error).__name__}: {error}") from error
    raise AssertionError(otherwise)


# ---- gate ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GateExample:
    """What a gate is shown; every field is that of `bedside.core.task.GateInput`."""

    candidate: Evidence
    baseline: Evidence | None
    chain: Verification
    history: tuple[Event, ...]
    rules: str


def check_gate(part: Part) -> None:
    """Check a gate with good, bad, empty and lacking evidence.

    Raises:
        AssertionError: the verdict is not repeatable or gives no reason, evidence of nothing passes, a broken chain raises
            something, or a worse model passes where a better one is refused.
    """
    check_part(part)
    gate = cast("Gate", part)
    good, bad = gate_example(quality=0.9), gate_example(quality=0.2, seconds=500.0, missed=5)
    first = _verdict(part, gate, good)
    assert _verdict(part, gate, good) == first, "the same evidence gives another verdict the second time"
    assert first.passed or not _verdict(part, gate, bad).passed, "a worse and slower model passes where a better one is refused"
    assert not _verdict(part, gate, gate_example(patients=0)).passed, "evidence of no patient must never pass"
    _verdict(part, gate, gate_example(quality=0.9, baseline=False))
    _verdict(part, gate, gate_example(quality=0.9, patients=1))
    _verdict(part, gate, gate_example(quality=0.9, intact=False))


def _verdict(part: Part, gate: Gate, given: GateInput) -> Verdict:
    verdict = gate.judge(given)
    assert isinstance(verdict, Verdict), "judge must return a Verdict"
    assert verdict.gate == part.part_name, f"the verdict is signed {verdict.gate!r}; it must be the gate's name"
    assert verdict.because.strip().endswith("."), "because must be a sentence"
    assert "\n" not in verdict.because, "because must be one line"
    assert len(verdict.because) >= 20, "because must say why"
    Verdict.model_validate_json(verdict.model_dump_json())
    return verdict


# ---- samples ---------------------------------------------------------------------------------------------------------------


def sample_case() -> Case:
    """A made-up patient: (12, 14, 16) voxels of noise, with a label that holds every structure of `CONTRACT`."""
    shape, chance = (12, 14, 16), np.random.default_rng(0)
    label = np.zeros(shape, dtype=np.uint8)
    label[2:6, 3:9, 4:10], label[6:10, 3:9, 4:10] = 1, 2
    affine = np.diag([1.0, 0.8, 1.5, 1.0])
    image = (100 * label + chance.normal(50, 10, size=shape)).astype(np.float32)
    return Case("case-1", "patient-1", {"image": Volume.of(image, affine), "label": Volume.of(label, affine)})


def tiny_model(workspace: Workspace, *, network: Part, engine: Part) -> Model:
    """Store a model with seeded random weights in the format that `engine` names in its class attribute `model_format`.

    Raises:
        UsageError: the network cannot be written in that format.
    """
    import torch
    from safetensors.torch import save_file

    from bedside.accelerate.export import restage
    from bedside.engines.torch import TorchEngine

    spec = ModelSpec(
        study="sample",
        format="safetensors",
        task={"name": "segmentation"},
        network=cast("dict[str, str]", network.settings()),
        contract=CONTRACT,
        preprocessing=Preprocessing(),
        patch=(SIDE, SIDE, SIDE),
        overlap=0.5,
        in_channels=1,
        out_channels=3,
        dataset=GENESIS,
        run=GENESIS,
        study_digest=GENESIS,
        engine=cast("dict[str, str]", TorchEngine().settings()),
    )
    with torch.random.fork_rng(devices=[]), workspace.staging() as staged:
        torch.manual_seed(0)
        save_file(cast("Network", network).build(1, 3).state_dict(), staged / "weights.safetensors")
        model = put_model(workspace, staged, spec)
    return restage(model, engine, workspace=workspace)


def gate_example(
    *,
    quality: float = 0.9,
    seconds: float = 1.0,
    missed: int = 0,
    patients: int = 40,
    baseline: bool = True,
    intact: bool = True,
) -> GateExample:
    """What a gate is shown of a model of some quality (0..1), against a baseline of quality 0.9."""
    chain = Verification(events=0, head=f"0:{GENESIS}")
    if not intact:
        chain = chain.model_copy(update={"first_bad_line": 1, "problem": "the line was edited"})
    return GateExample(
        candidate=sample_evidence(quality, patients=patients, seconds=seconds, missed=missed, model="a" * 64),
        baseline=sample_evidence(0.9, patients=patients, model="b" * 64) if baseline else None,
        chain=chain,
        history=(),
        rules="c" * 64,
    )


def sample_evidence(
    quality: float, *, patients: int = 40, seconds: float = 1.0, missed: int = 0, model: str = "a" * 64
) -> Evidence:
    """Evidence with every metric of segmentation for both structures of `CONTRACT`; `quality` 1 is perfect, 0 worst."""
    from bedside.metrics.segmentation import DEFINITIONS

    chance = np.random.default_rng(0)
    who = [f"p{number}" for number in range(patients)]
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, definition in DEFINITIONS.items():
        per_patient = np.clip(quality + 0.02 * chance.standard_normal(patients), 0, 1)
        values = per_patient if definition.higher_is_better else 20 * (1 - per_patient)
        row = {patient: float(value) for patient, value in zip(who, values, strict=True)}
        scores[name] = {label: dict(row) for label in CONTRACT.structures[1:]}
    return Evidence(
        model=model,
        dataset="d" * 64,
        split="test",
        engine={"name": "torch"},
        rules="c" * 64,
        definitions=tuple(DEFINITIONS.values()),
        scores=scores,
        summaries={name: _summary(row) for name, row in scores.items()} if patients else {},
        missed={"anterior": tuple(who[:missed])},
        timings={patient: CaseTiming(seconds=seconds, peak_memory_mb=100) for patient in who},
    )


def _summary(row: Mapping[str, Mapping[str, float]]) -> dict[str, Interval]:
    found = {}
    for label in (*row, "mean"):
        values = np.array(list((row.get(label) or next(iter(row.values()))).values()))
        half = 2 * float(values.std()) / math.sqrt(len(values))
        mean = float(values.mean())
        found[label] = Interval(mean=mean, low=mean - half, high=mean + half, n=len(values), confidence=0.95)
    return found
