"""Claims about compiled steps: measured where it can pay, kept with the training, and nothing of them in any file."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from bedside.core.config import Train, load
from bedside.core.digest import digest_file
from bedside.core.errors import Interrupted, UsageError
from bedside.core.plan import Choice
from bedside.train import calibration, compiling
from bedside.train.calibration import calibrate
from bedside.train.checkpoint import load_checkpoint
from bedside.train.compiling import compile_steps, compiler_problem, decided, noted
from bedside.train.pipeline import checkpoint_folder, train

from .test_loop import learner
from .test_survive import at_step

MINUTES = {"minutes": 30.0, "precision": "fp32"}


def choice(value: str, because: str = "measured") -> Choice:
    return Choice(what="compile", value=value, because=because)


def found(monkeypatch, train_settings, *, seconds=(2.0, 1.0), repeats=False, choices=(), fails=None):
    """Calibrate with steps that take (plain, compiled) seconds and are compiled by name only."""

    def compile_(made):
        if fails is not None:
            raise fails
        made.compiled = True

    def timed(made, *, warm_up=2, timed=5):
        return [seconds[made.compiled]] * timed

    monkeypatch.setattr(calibration, "compile_steps", compile_)
    monkeypatch.setattr(calibration, "step_seconds", timed)
    monkeypatch.setattr(calibration, "fastest_precision", lambda make, wanted: (wanted, seconds[0]))
    asked = Train(**train_settings)
    plan = learner().plan.model_copy(
        update={"minutes": asked.minutes, "steps": asked.steps, "precision": asked.precision, "choices": choices}
    )
    return calibrate(lambda precision: SimpleNamespace(compiled=False), plan, asked, repeats=repeats)


@pytest.mark.parametrize(
    ("seconds", "value", "kept"), [((2.0, 1.0), "on", 1.0), ((1.0, 0.97), "off", 1.0), ((1.0, 2.0), "off", 1.0)]
)
def test_auto_keeps_what_is_clearly_quicker_and_plans_with_its_speed(monkeypatch, seconds, value, kept):
    result = found(monkeypatch, {**MINUTES, "compile": "auto"}, seconds=seconds)
    assert (result.compile.value, result.seconds) == (value, kept)
    assert f"{seconds[1]:.3g} s compiled and {seconds[0]:.3g} s" in result.compile.because


@pytest.mark.parametrize(
    ("asked", "because"),
    [
        ({"steps": 10, "precision": "fp32"}, "repeat"),
        ({"steps": 10, "deterministic": True}, "repeat"),
        ({"minutes": 3.0, "precision": "fp32"}, "not won back"),
    ],
)
def test_auto_measures_nothing_where_it_must_repeat_or_cannot_pay(monkeypatch, asked, because):
    result = found(monkeypatch, {**asked, "compile": "auto"}, fails=AssertionError("was tried"))
    assert result.compile.value == "off"
    assert because in result.compile.because


def test_without_a_compiler_auto_says_so_and_goes_on_and_on_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in compiler_problem()
    result = found(monkeypatch, {**MINUTES, "compile": "auto"}, fails=AssertionError("was tried"))
    assert (result.compile.value, result.compile.because) == ("off", compiler_problem())
    with pytest.raises(UsageError, match="no C\\+\\+ compiler") as caught:
        compile_steps(learner())
    assert (caught.value.code, caught.value.exit_code) == ("COMPILER", 2)


def test_what_cannot_be_compiled_or_does_not_fit_is_left_as_it_is_by_auto(monkeypatch):
    refused = found(monkeypatch, {**MINUTES, "compile": "auto"}, fails=compiling.refused("it cannot"))
    assert (refused.compile.value, "it cannot" in refused.compile.because) == ("off", True)
    starved = found(monkeypatch, {**MINUTES, "compile": "auto"}, fails=MemoryError())
    assert (starved.compile.value, "memory" in starved.compile.because) == ("off", True)
    with pytest.raises(RuntimeError, match="a defect"):
        found(monkeypatch, {**MINUTES, "compile": "auto"}, fails=RuntimeError("a defect"))


def test_a_training_that_is_done_again_follows_the_choice_of_the_first(monkeypatch):
    for value in ("on", "off"):
        result = found(monkeypatch, {**MINUTES, "compile": "auto"}, repeats=True, choices=(choice(value),))
        assert result.compile == choice(value)
    assert found(monkeypatch, {**MINUTES}).compile is None


def test_a_choice_takes_the_place_of_the_one_that_left_it_open():
    plan = learner().plan.model_copy(update={"choices": (choice("auto"), Choice(what="batch", value="2", because="asked for"))})
    assert decided(plan) is None
    later = noted(noted(plan, choice("on")), choice("on"))
    assert decided(later) == choice("on")
    assert [entry.what for entry in later.choices] == ["batch", "compile"]
    assert noted(plan, None) is plan


@pytest.fixture
def traced(monkeypatch):
    """Compile without a compiler: the step is traced, and its graph run as it is."""
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **named: plain(self, dynamic=False, backend="eager"))


def test_compiling_changes_neither_weights_nor_names_nor_chance(traced):
    one, two = learner(), learner()
    state = torch.get_rng_state()
    compile_steps(two)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(one.tensors()) == list(two.tensors())
    assert all(torch.equal(value, two.tensors()[name]) for name, value in one.tensors().items())
    for number in range(3):
        one.step(number, 10)
        two.step(number, 10)
    for name, value in one.tensors().items():
        torch.testing.assert_close(two.tensors()[name], value, rtol=1e-3, atol=1e-4)
    assert not any("_orig_mod" in name for name in two.tensors())


def stopped_and_resumed(config, dataset, monkeypatch):
    """Train to the end, then again with a stop in the middle; return both runs' weights and the second run."""
    whole = train(config, dataset)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, dataset, fresh=True)
    kept = load_checkpoint(checkpoint_folder(config.workspace, config.study, dataset))
    assert kept.position.compile == choice("on", "asked for")
    assert not any("_orig_mod" in name for name in kept.tensors)
    again = train(config, dataset, resume=True)
    return digest_file(whole.best().weights), digest_file(again.best().weights), again


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own modules, when inductor imports them
@pytest.mark.filterwarnings("ignore:.*[Dd]istutils")  # as above, where something else has imported setuptools or distutils before
def test_a_compiled_training_that_was_stopped_ends_with_the_weights_of_one_that_was_not(config, dataset, monkeypatch):
    config = load(config.workspace.folder, overrides=["train.compile=on", "train.steps=6"])
    whole, resumed, run = stopped_and_resumed(config, dataset, monkeypatch)
    assert resumed == whole
    assert choice("on", "asked for") in run.record.plan.choices
    with safe_open(run.best().weights, framework="pt") as file:
        assert not any("_orig_mod" in name for name in file.keys())  # noqa: SIM118 - not a dict
    plain = train(load(config.workspace.folder, overrides=["train.compile=off", "train.steps=6"]), dataset)
    assert [entry for entry in plain.record.plan.choices if entry.what == "compile"] == []
    with safe_open(run.best().weights, framework="pt") as one, safe_open(plain.best().weights, framework="pt") as two:
        assert list(one.keys()) == list(two.keys())


def test_the_choice_outlives_a_stop(config, dataset, monkeypatch, traced):
    config = load(config.workspace.folder, overrides=["train.compile=on", "train.steps=6"])
    whole, resumed, run = stopped_and_resumed(config, dataset, monkeypatch)
    assert resumed == whole
    assert choice("on", "asked for") in run.record.plan.choices
