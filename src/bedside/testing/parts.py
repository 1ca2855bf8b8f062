"""What every part must keep, and networks, engines and gates besides."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from bedside.core.config import PartOf
from bedside.core.errors import BedsideError, IntegrityError, UsageError
from bedside.core.evidence import Verdict
from bedside.core.model import Model, put_model
from bedside.core.record import Part
from bedside.core.registry import kinds
from bedside.core.task import Engine, Gate, GateInput, Network, divisors
from bedside.core.workspace import Workspace
from bedside.testing.samples import SIDE, gate_example


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
