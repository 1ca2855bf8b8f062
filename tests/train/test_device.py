"""Claims about where a training computes.

Torch's `meta` device stands in for an accelerator: it holds no numbers, but an operation that mixes its tensors with the
processor's is refused, so a step that runs there leaves nothing behind.
"""

import numpy as np
import pytest
import torch

from bedside.core.errors import UsageError
from bedside.core.lesson import PLAIN, lesson_of
from bedside.core.plan import Machine, Plan
from bedside.core.site import Site
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.networks.segresnet import SegResNet
from bedside.networks.unet import DynUNet, UNet
from bedside.tasks.domain_adversarial import DomainAdversarial
from bedside.tasks.masked_volume import MaskedVolume
from bedside.tasks.segmentation import Segmentation
from bedside.testing import sample_classroom
from bedside.train import device as devices
from bedside.train.device import CPU, device_for, loaders_for, loaders_of, local_rank_of, machine_for
from bedside.train.loop import Learner
from bedside.train.planned import machine_here, moved
from bedside.train.validate import foreground_dice

from .test_loop import PLAN

META = torch.device("meta")
FOUND = Machine(cores=8, memory_mb=64_000.0, device="cuda any", device_memory_mb=80_000.0, devices=2)
NO_CUDA = "NO ACCELERATOR WAS HERE: no step was computed on one, and none was compared with the processor's"


def learner(device, *, network=None, task=None, lesson=None, precision="fp32", channels=2) -> Learner:
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    label = (image[0] > 1).astype(np.uint8)
    network = network or UNet(features=4, levels=2, residual_units=0)
    plan = Plan(**(PLAN | {"network": network, "micro_batch": 1}))
    examples = [Example(image, label, find_foreground(label), name) for name in ("case-1", "case-2")]
    torch.manual_seed(0)
    net = network.build(1, channels)
    sampler = PatchSampler(examples, plan.patch, 2, 0.5, 0)
    return Learner(net, task or Segmentation(), sampler, plan, precision, lesson=lesson or PLAIN, device=device)


@pytest.fixture(params=[1, 200], ids=["all annotated", "partly annotated"])
def as_if_numbers(monkeypatch, request):
    """Let tensors without numbers answer when one is asked of them; labels of 200 say that not all is annotated."""
    for name, said in (("__float__", 1.0), ("__int__", request.param), ("__bool__", True)):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, own=own, said=said: said if self.is_meta else own(self))
    monkeypatch.setattr(torch.fx.experimental._config, "meta_nonzero_assume_all_nonzero", True, raising=False)
    counted = torch.bincount  # has no rule for tensors without numbers

    def bincount(given: torch.Tensor, *, minlength: int) -> torch.Tensor:
        return given.new_empty(minlength) if given.is_meta else counted(given, minlength=minlength)

    monkeypatch.setattr(torch, "bincount", bincount)


TASKS = [
    pytest.param(Segmentation(), None, id="dice and cross-entropy"),
    pytest.param(Segmentation(objective="dice_focal"), None, id="focal"),
    pytest.param(Segmentation(objective="tversky"), None, id="tversky"),
    pytest.param(DomainAdversarial(task=Segmentation()), "of the task", id="adversarial"),
    pytest.param(MaskedVolume(cube=4), "of the task", id="masked"),
]


@pytest.mark.parametrize(("task", "lesson"), TASKS)
def test_no_tensor_of_a_step_stays_on_the_processor(as_if_numbers, task, lesson):
    channels = 1 if isinstance(task, MaskedVolume) else 2
    taught = lesson_of(task, sample_classroom()) if lesson else None
    one = learner(META, task=task, lesson=taught, channels=channels)
    for step in range(2):
        one.step(step, 4)
    assert one.bad_steps == 0
    assert {value.device.type for name, value in one.tensors().items() if not name.endswith(".step")} == {"meta"}
    assert any(name.startswith("adam.") for name in one.tensors())


@pytest.mark.parametrize(
    "network",
    [DynUNet(features=4, levels=3, deep_supervision=1), DynUNet(features=4, levels=3, checkpointing=True), SegResNet(features=8)],
    ids=["deep supervision", "computed again", "segresnet"],
)
def test_networks_make_nothing_on_the_processor(as_if_numbers, network):
    one = learner(META, network=network)
    one.step(0, 4)
    assert one.bad_steps == 0


def test_a_step_refuses_what_was_left_behind(as_if_numbers):
    one = learner(META)
    one.net.to_empty(device="cpu")
    with pytest.raises(RuntimeError, match="device"):
        one.step(0, 4)


def test_the_site_decides_and_auto_takes_what_is_there():
    assert machine_for(Site(), FOUND, processes=1).devices == 1
    assert machine_for(Site(), FOUND, processes=2).devices == 2
    kept = machine_for(Site(device="cpu"), FOUND, processes=4)
    assert (kept.device, kept.devices, kept.device_memory_mb, kept.cores) == ("cpu", 0, 0.0, 8)


def test_an_accelerator_that_is_not_there_is_refused_by_name():
    bare = FOUND.model_copy(update={"devices": 0, "device": "cpu"})
    with pytest.raises(UsageError, match="no accelerator") as raised:
        machine_for(Site(device="cuda"), bare, processes=1)
    assert raised.value.code == "DEVICE"
    with pytest.raises(UsageError, match=r"3 processes .* 2 accelerators"):
        machine_for(Site(), FOUND, processes=3)


def test_each_process_of_a_machine_takes_an_accelerator_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device_for(Site(), place).index for place in range(2)] == [0, 1]
    with pytest.raises(UsageError, match="Process 3 of this training has no accelerator of its own"):
        device_for(Site(), 2)
    assert device_for(Site(device="cpu"), 1) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_for(Site(), 1) == CPU
    with pytest.raises(UsageError, match="no accelerator"):
        device_for(Site(device="cuda"), 0)


def test_slurm_says_which_process_of_a_machine_this_is(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert local_rank_of(3) == 3
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert local_rank_of(3) == 1


@pytest.mark.parametrize(("name", "said"), [("SLURM_GPUS_PER_TASK", "1"), ("SLURM_GPUS_ON_NODE", "4")])
def test_a_task_that_slurm_shows_its_own_accelerator_only_takes_that(monkeypatch, name, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    one = FOUND.model_copy(update={"devices": 1})
    with pytest.raises(UsageError, match="4 processes"):
        machine_for(Site(), one, processes=4)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv(name, said)
    assert machine_for(Site(), one, processes=4).devices == 4
    assert device_for(Site(), 3).index == 0


@pytest.mark.parametrize(
    ("given", "devices", "cores", "count"), [(None, 0, 8, 0), (None, 1, 4, 3), (None, 1, 64, 8), (2, 0, 1, 2)]
)
def test_batches_are_made_ahead_for_an_accelerator(given, devices, cores, count):
    machine = Machine(cores=cores, memory_mb=8000.0, devices=devices, device_memory_mb=8000.0 * devices)
    network = UNet(features=4, levels=2, residual_units=0)
    plan = Plan(**PLAN, network=network, loader_workers=loaders_of(machine)[0])
    assert loaders_for(Site(loader_workers=given), plan) == count


def test_a_plan_that_goes_on_with_another_kind_of_device_is_held_to_the_memory_there(config):
    planned = Plan(**(PLAN | {"network": UNet(features=4, levels=2, residual_units=0), "memory_mb": 4_800.0}))
    assert moved(planned, config).memory_mb == 4_800.0
    before = planned.model_copy(update={"machine": FOUND})
    here = machine_here(config).memory_mb
    assert moved(before, config).memory_mb == pytest.approx(0.8 * here)
    assert moved(before, config).machine == FOUND
    assert moved(before.model_copy(update={"loader_workers": 7}), config).loader_workers == 0


def test_statistics_of_passes_that_ran_out_of_memory_are_forgotten(monkeypatch):
    one = learner(CPU, network=DynUNet(features=4, levels=3, norm="batch"))
    before = {name: value.clone() for name, value in one.net.named_buffers()}
    passed = one.net.forward

    def short(*given):
        passed(*given)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(one.net, "forward", short)
    with pytest.raises(RuntimeError, match="allocate"):
        one.step(0, 4)
    assert before
    assert all(torch.equal(value, before[name]) for name, value in one.net.named_buffers())


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_on_an_accelerator_are_those_of_the_processor(precision):
    here, there = learner(CPU), learner(torch.device("cuda", 0), precision=precision)
    close = {"fp32": 1e-3, "bf16": 3e-2}[precision]
    for step in range(4):
        assert there.step(step, 8) == pytest.approx(here.step(step, 8), rel=close)
    example = here.sampler.examples[0]
    given = {"task": Segmentation(), "patch": (16, 16, 16)}
    assert foreground_dice(there.ema, [example], **given) == pytest.approx(
        foreground_dice(here.ema, [example], **given), abs=0.05
    )
    assert devices.device_peak_mb(there.device) > 0
