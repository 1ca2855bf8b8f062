"""Claims about the loss and the decoding."""

import numpy as np
import torch

from bedside.tasks.segmentation import Segmentation


def raw(target: torch.Tensor, sure: float) -> torch.Tensor:
    return torch.nn.functional.one_hot(target.long(), 3).movedim(-1, 1).float() * sure


def test_a_perfect_sure_answer_costs_nothing_and_every_mistake_costs():
    target = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    target[:, :2] = 1
    target[:, 2:, :1] = 2
    perfect = float(Segmentation().loss(raw(target, 50.0), target))
    wrong = target.clone()
    wrong[0, 3, 3, 3] = 1
    assert perfect < 1e-4 < float(Segmentation().loss(raw(wrong, 50.0), target))


def test_losing_a_small_structure_costs_more_than_its_share_of_voxels():
    target = torch.zeros(1, 10, 10, 10, dtype=torch.uint8)
    target[0, 0, 0, 0] = 1
    lost = float(Segmentation(dice_weight=1.0).loss(raw(torch.zeros_like(target), 50.0), target))
    assert lost > 0.49  # of the two structures one is absent and costs nothing, the other is lost altogether


def test_the_loss_is_the_same_in_half_precision_to_its_digits():
    output = torch.randn(1, 3, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (1, 6, 6, 6), generator=torch.Generator().manual_seed(1))
    full, half = (float(Segmentation().loss(o, target)) for o in (output, output.bfloat16()))
    assert abs(full - half) < 0.01


def test_activation_is_a_probability_and_does_not_overflow():
    output = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32) * 1000
    found = Segmentation().activate(output)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_the_answer_is_the_most_probable_structure_and_uncertainty_what_is_left():
    output = np.array([0.2, 0.7, 0.1], np.float32)[:, None, None, None]
    value, uncertainty = Segmentation().decode(output)
    assert value.dtype == np.uint8
    assert value.item() == 1
    np.testing.assert_allclose(uncertainty, 0.3, atol=1e-6)
