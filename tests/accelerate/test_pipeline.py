"""Claims about stages: kept if faster here and the same, else rejected by name; all of it in the ledger."""

import time
from typing import ClassVar

import numpy as np
import pytest

from bedside.accelerate.compare import Acceleration
from bedside.accelerate.pipeline import accelerate, stage_names, try_stages
from bedside.core.config import Accelerate
from bedside.core.custody import verify
from bedside.core.errors import GateRefused, UnsafeArtefact, UsageError
from bedside.core.model import Model
from bedside.core.registry import registry
from bedside.core.workspace import read_json
from bedside.engines.onnxruntime import OnnxRuntimeEngine
from bedside.engines.predict import open_model
from bedside.engines.torch import TorchEngine


class Slow(TorchEngine):
    """Right, but it takes its time."""

    part_name: ClassVar[str] = "slow"

    def forward(self, model):
        inner = super().forward(model)

        def compute(windows):
            time.sleep(0.05)
            return inner(windows)

        return compute


class Biased(TorchEngine):
    """Fast, but it leans towards one structure."""

    part_name: ClassVar[str] = "biased"
    channel: int = 1
    bias: float = 0.2

    def forward(self, model):
        inner = super().forward(model)

        def compute(windows):
            output = inner(windows).copy()
            output[:, self.channel] += self.bias
            return output

        return compute


class Blown(TorchEngine):
    """Gives infinity somewhere."""

    part_name: ClassVar[str] = "blown"

    def forward(self, model):
        def compute(windows):
            output = np.zeros((len(windows), 3, *windows.shape[2:]), dtype=np.float32)
            output[0, 0, 8, 8, 8] = np.inf
            return output

        return compute


class Refusing(TorchEngine):
    """Will not open anything."""

    part_name: ClassVar[str] = "refusing"

    def forward(self, model):
        raise UnsafeArtefact("This engine opens no file.")


class Listener:
    """A progress that keeps what it hears."""

    def __init__(self):
        self.started = []
        self.heard = []

    def start(self, what, total):
        self.started.append((what, total))

    def advance(self, done, note=""):
        self.heard.append(done)


def settings(*stages, cases=2, repeats=2, **more):
    return Accelerate(stages=stages, cases=cases, repeats=repeats, **more)


def test_a_faster_stage_that_answers_the_same_is_kept_and_can_be_verified(model, dataset):
    listener = Listener()
    wanted = settings(OnnxRuntimeEngine(), cases=3)
    table = try_stages(model, dataset.cases("development"), settings=wanted, progress=listener)
    (stage,) = table.stages
    assert stage.accepted, stage.because
    assert (stage.name, table.chosen, table.chosen_model) == ("onnxruntime-fp32", "onnxruntime-fp32", stage.model)
    assert stage.measured.max_difference < 1e-4
    assert stage.measured.mean_difference <= stage.measured.max_difference
    assert stage.measured.voxels == 3 * 30 * 18 * 14
    assert stage.measured.flip_share < 1e-3
    assert stage.measured.dice["anterior"].baseline == stage.measured.dice["posterior"].baseline == 1.0
    assert stage.measured.seconds_stage.n == stage.measured.seconds_baseline.n == 6
    assert stage.measured.seconds_stage.p50 < stage.measured.seconds_baseline.p50
    assert listener.started == [("comparing onnxruntime-fp32", 9)]
    assert listener.heard == list(range(1, 10))

    kept = Model(stage.model, model.workspace)
    assert (kept.spec.parent, kept.weights_bytes) == (model.digest, stage.weights_bytes)
    case = dataset.cases("development")[0]
    assert np.mean(open_model(kept)(case).value != case.volumes["label"].array[0]) < 1e-3

    event = model.workspace.ledger.last("accelerated")
    assert event.inputs == {"model": model.digest, "dataset": dataset.digest}
    assert event.outputs["model"] == stage.model
    assert event.facts == {"stage": "onnxruntime-fp32", "because": stage.because, "chosen": True}
    stored = model.workspace.get(event.outputs["evidence"]) / "acceleration.json"
    assert Acceleration.model_validate(read_json(stored)) == table
    assert [found.action for found in verify(model.workspace, stage.model).events] == ["accelerated"]


def test_a_wrong_stage_is_rejected_by_name_and_leaves_no_model(model, dataset):
    before = set(model.workspace.digests())
    table = try_stages(model, dataset.cases("development"), settings=settings(Biased()))
    (stage,) = table.stages
    assert not stage.accepted
    assert "Dice of anterior moves by" in stage.because
    assert stage.measured.dice["anterior"].difference < -0.005
    assert stage.measured.flips > 0
    assert (table.chosen, table.chosen_model) == ("torch-fp32", model.digest)
    (evidence,) = set(model.workspace.digests()) - before
    event = model.workspace.ledger.last("stage_rejected")
    assert event.facts == {"stage": "biased-fp32", "because": stage.because}
    assert event.inputs["model"] == model.digest
    assert event.outputs == {"evidence": evidence}
    assert model.workspace.ledger.last("accelerated") is None
    assert list(model.workspace.scratch.iterdir()) == []


def test_a_slow_stage_is_rejected_as_not_faster_here(model, dataset):
    (stage,) = try_stages(model, dataset.cases("development"), settings=settings(Slow())).stages
    assert not stage.accepted
    assert stage.because.startswith("rejected: not faster here (p50 ")
    assert stage.measured.speed_ratio < 1
    assert (stage.measured.max_difference, stage.measured.flips) == (0.0, 0)


def test_one_failing_stage_does_not_stop_the_next(model, dataset):
    stages = (Blown(), Refusing(), Slow())
    table = try_stages(model, dataset.cases("fold0"), settings=settings(*stages, cases=1, repeats=1))
    blown, refused, slow = table.stages
    assert "NaN or infinity" in blown.because
    assert blown.measured is None
    assert (refused.because, refused.measured) == ("rejected: This engine opens no file.", None)
    assert slow.measured is not None
    assert [event.facts["stage"] for event in model.workspace.ledger.events()] == ["blown-fp32", "refusing-fp32", "slow-fp32"]
    assert model.workspace.ledger.verify().intact


def test_accelerate_gives_back_the_new_model(model, dataset):
    fast = accelerate(model, dataset.cases("calibrate"), engine="onnxruntime", settings=settings(Slow()))
    assert fast.spec.format == "onnx"
    assert fast.spec.parent == model.digest
    assert [event.action for event in model.workspace.ledger.events()] == ["accelerated"]


def test_accelerate_refuses_with_the_numbers(model, dataset, monkeypatch):
    monkeypatch.setitem(registry("engine")._known, "slow", f"{__name__}:Slow")
    with pytest.raises(GateRefused, match=r"Stage slow-fp32 is rejected: not faster here \(p50 .* s against .* s\)") as caught:
        accelerate(model, dataset.cases("development"), engine="slow", settings=settings(Slow()))
    assert caught.value.exit_code == 5
    assert model.workspace.ledger.last("stage_rejected") is not None


def test_the_locked_test_split_is_not_for_choosing(model, dataset):
    with pytest.raises(UsageError, match="test split is not for choosing"):
        try_stages(model, dataset.cases("test"), settings=settings(Slow()))


def test_cases_without_labels_cannot_judge(model, unlabelled):
    with pytest.raises(UsageError, match="with labels"):
        try_stages(model, unlabelled.cases("development"), settings=settings(Slow()))
    with pytest.raises(UsageError, match="at least one case"):
        try_stages(model, unlabelled.cases("development")[:0], settings=settings(Slow()))


def test_the_baseline_is_no_stage_of_itself(model, dataset):
    with pytest.raises(UsageError, match="torch-fp32 is the baseline itself"):
        try_stages(model, dataset.cases("development"), settings=settings(TorchEngine()))


@pytest.mark.parametrize(("engine", "precision"), [("abacus", "fp32"), ("onnxruntime", "int8")])
def test_an_unknown_engine_or_precision_is_wrong_use(model, dataset, engine, precision):
    with pytest.raises(UsageError):
        accelerate(model, dataset.cases("development"), engine=engine, precision=precision)


def test_stages_of_one_name_are_told_apart():
    stages = (TorchEngine(precision="bf16"), OnnxRuntimeEngine(), TorchEngine(precision="bf16", threads=1))
    assert stage_names(stages) == ("torch-bf16", "onnxruntime-fp32", "torch-bf16-2")


def test_no_more_cases_than_asked_for_and_spread_over_all(model, dataset):
    table = try_stages(model, dataset.cases("development"), settings=settings(Slow(), cases=2, repeats=1))
    assert (table.cases, table.split, table.repeats) == (2, "development", 1)
    assert table.stages[0].measured.voxels == 2 * 30 * 18 * 14
