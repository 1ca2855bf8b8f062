"""Claims about steps: schedule, averaging, what happens when a loss is not finite."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from bedside.core.config import Augmentation
from bedside.core.errors import IntegrityError
from bedside.core.model import Preprocessing
from bedside.core.plan import Machine, Plan
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.networks.unet import DynUNet, UNet
from bedside.tasks.segmentation import Segmentation
from bedside.train.loop import Learner, fastest_precision, learning_rate, moments

PLAN = {
    "preprocessing": Preprocessing(),
    "patch": (16, 16, 16),
    "batch": 2,
    "micro_batch": 2,
    "precision": "fp32",
    "learning_rate": 2e-3,
    "weight_decay": 1e-2,
    "ema": 0.998,
    "foreground": 0.5,
    "seed": 0,
    "augment": Augmentation(),
    "minutes": None,
    "steps": 10,
    "memory_mb": 3000.0,
    "machine": Machine(cores=1, memory_mb=4000.0),
}


def learner(task=None, network=None, **settings) -> Learner:
    rng = np.random.default_rng(0)
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:11, 5:12, 3:13] = 1
    image = (rng.normal(size=(1, 16, 16, 16)) + 3 * label).astype(np.float32)
    example = Example(image, label, find_foreground(label))
    network = network or UNet(features=4, levels=2, residual_units=0)
    plan = Plan(**(PLAN | {"network": network} | settings))
    torch.manual_seed(0)
    sampler = PatchSampler([example], plan.patch, 2, 0.5, 0)
    return Learner(network.build(1, 2), task or Segmentation(), sampler, plan, plan.precision)


def test_the_rate_warms_up_peaks_and_ends_near_zero():
    rates = [learning_rate(step, 200, 0.002) for step in range(200)]
    assert rates[0] < rates[5] < max(rates) == pytest.approx(0.002)
    assert rates.index(max(rates)) in range(9, 12)
    assert all(a >= b for a, b in pairwise(rates[11:]))
    assert rates[-1] < 0.002 * 1e-3


def test_a_schedule_of_one_step_is_defined():
    assert 0 < learning_rate(0, 1, 0.002) <= 0.002
    longer = [learning_rate(step, 200, 0.002, warm_up=0.5) for step in range(200)]
    assert int(np.argmax(longer)) in {99, 100}


def test_a_gradient_is_cut_to_the_plans_norm():
    norms = []
    for most in (1e9, 0.01):
        one = learner(clip_norm=most)
        one.step(0, 10)
        norms.append(float(torch.stack([value.grad.norm() for value in one.net.parameters()]).norm()))
    assert norms[0] > 0.02
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_training_lowers_the_loss_and_moves_the_average():
    one = learner()
    before = {name: value.clone() for name, value in one.ema.state_dict().items()}
    losses = [one.step(number, 60) for number in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert any(not torch.equal(before[name], value) for name, value in one.ema.state_dict().items())


def test_the_average_lies_between_the_first_weights_and_the_last():
    one = learner(ema=0.5)
    start = next(iter(one.net.parameters())).detach().clone()
    one.step(0, 10)
    now = next(iter(one.net.parameters())).detach()
    keep = 0.1  # (1 + 0) / (10 + 0) is below the decay
    torch.testing.assert_close(next(iter(one.ema.parameters())), keep * start + (1 - keep) * now)


class Exploding(Segmentation):
    def loss(self, output, target):
        return super().loss(output, target) * float("nan")


def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted():
    one = learner(task=Exploding())
    before = {name: value.clone() for name, value in one.tensors().items()}
    for number in range(2):
        assert math.isnan(one.step(number, 10))
    assert all(torch.equal(before[name], value) for name, value in one.tensors().items())
    assert one.bad_steps == 2


def test_a_batch_that_is_not_finite_leaves_the_running_means_of_a_batch_norm_alone():
    one = learner(network=UNet(features=4, levels=2, residual_units=0))
    before = {name: value.clone() for name, value in one.tensors().items()}
    batch = one.recipe.make(0)
    batch.images[0, 0, 3, 3, 3] = float("nan")
    one.step(0, 10, batch)
    assert one.bad_steps == 1
    for name, value in one.tensors().items():
        assert torch.equal(before[name], value), name
    one.step(1, 10)
    assert one.bad_steps == 0


def test_half_precision_has_a_scaler_whose_state_goes_with_the_weights():
    one, other = learner(precision="fp16"), learner(precision="fp16")
    for number in range(3):
        one.step(number, 10)
    other.restore({name: value.contiguous().clone() for name, value in one.tensors().items()}, one.scaler_state())
    assert other.scaler_state() == one.scaler_state() != learner(precision="fp16").scaler_state()
    assert one.step(3, 10) == other.step(3, 10)
    for (name, first), second in zip(one.tensors().items(), other.tensors().values(), strict=True):
        assert torch.equal(first, second), name


def test_gradients_that_overflow_in_half_precision_lower_the_scale_and_are_no_fault():
    one = learner(precision="fp16")
    one.step(0, 10)
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 1e30})
    before = {name: value.clone() for name, value in one.net.named_parameters()}
    one.step(1, 10)
    assert one.bad_steps == 0
    assert one.scaler.get_scale() == pytest.approx(5e29)
    assert all(torch.equal(before[name], value) for name, value in one.net.named_parameters())


def test_a_batch_depends_on_its_step_and_on_nothing_before_it():
    one, other = learner(), learner()
    one.step(0, 10)
    for first, second in zip(one.batch(7), other.batch(7), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one.batch(7)[0], one.batch(8)[0])


def test_state_goes_to_a_fresh_learner_and_the_next_step_is_the_same():
    one = learner()
    for number in range(3):
        one.step(number, 10)
    other = learner()
    other.restore({name: value.contiguous().clone() for name, value in one.tensors().items()})  # as a file gives them back
    assert one.step(3, 10) == other.step(3, 10)
    for (name, first), second in zip(one.tensors().items(), other.tensors().values(), strict=True):
        assert torch.equal(first, second), name


def test_state_of_another_network_is_refused():
    with pytest.raises(IntegrityError, match="another network"):
        learner().restore(learner(network=DynUNet(features=4, levels=3)).tensors())


def test_auto_takes_the_faster_precision_and_a_named_one_is_kept():
    class Timed:
        def __init__(self, precision):
            self.seconds = {"fp32": 0.02, "bf16": 0.001}[precision]

        def step(self, number, total):
            import time

            time.sleep(self.seconds)

    assert fastest_precision(Timed, "auto")[0] == "bf16"
    name, seconds = fastest_precision(Timed, "fp32")
    assert name == "fp32"
    assert seconds >= 0.02


def test_the_last_step_is_always_scored():
    for total in (1, 2, 7, 100, 2400):
        found = moments(total, 5)
        assert max(found) == total
        assert min(found) >= 1
        assert len(found) <= 5


def test_augmentation_without_changes_leaves_the_batch_alone():
    off = Augmentation(
        rotate_degrees=0, scale=0, translate=0, flip=False, noise=0, brightness=0, contrast=0, gamma=0, blur=0, probability=0
    )
    one = learner(augment=off)
    images, labels = one.sampler.draw(4)
    same, same_labels = one.batch(4)
    assert torch.equal(images, same)
    assert torch.equal(labels, same_labels)


class Voxelwise(Segmentation):
    """Cross-entropy alone: a mean over voxels, so that means over parts of a batch add up to the batch's."""

    dice_weight: float = 0.0


def test_gradients_of_micro_batches_add_up_to_those_of_the_batch():
    whole, parts = learner(task=Voxelwise()), learner(task=Voxelwise(), micro_batch=1)
    for one in (whole, parts):
        one.net.eval()  # batch norm would see other batches
        one.optimizer.zero_grad()
        one._gradients(*one.batch(0))
    for first, second in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)
