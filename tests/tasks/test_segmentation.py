"""Claims about the loss and the decoding."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from bedside.core.case import Case
from bedside.core.errors import InputRejected
from bedside.core.labels import UNANNOTATED
from bedside.core.volume import Volume
from bedside.tasks.annotation import Partial, possible
from bedside.tasks.losses import Terms, exclusive
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


SHAPE = (2, 3, 6, 5, 4)


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=random) * 2, torch.randint(0, 3, (2, 6, 5, 4), generator=random).to(torch.uint8)


def test_the_loss_is_that_of_monai():
    output, target = drawn()
    one = {"to_onehot_y": True, "softmax": True, "include_background": False, "batch": True}
    dice = DiceLoss(**one, smooth_nr=1e-5, smooth_dr=1e-5)(output, target[:, None])
    tversky = TverskyLoss(**one, alpha=0.3, beta=0.7, smooth_nr=5e-6, smooth_dr=5e-6)(output, target[:, None])
    focal = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)(output, target[:, None]) * 3  # over channels too
    entropy = torch.nn.functional.cross_entropy(output, target.long())
    for settings, wanted in [
        ({"dice_weight": 1.0}, dice),
        ({}, (dice + entropy) / 2),
        ({"objective": "dice_focal"}, (dice + focal) / 2),
        ({"objective": "tversky"}, (tversky + entropy) / 2),
    ]:
        torch.testing.assert_close(Segmentation(**settings).loss(output, target), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("objective", ["dice_ce", "dice_focal", "tversky"])
def test_voxels_that_nobody_annotated_have_no_gradient_at_all_and_the_others_the_one_they_have_alone(objective):
    output, target = drawn()
    target[:, 3:] = UNANNOTATED
    whole = output.clone().requires_grad_()
    Segmentation(objective=objective).loss(whole, target).backward()
    assert torch.equal(whole.grad[:, :, 3:], torch.zeros_like(whole.grad[:, :, 3:]))
    alone = output[:, :, :3].clone().requires_grad_()
    Segmentation(objective=objective).loss(alone, target[:, :3]).backward()
    torch.testing.assert_close(whole.grad[:, :, :3], alone.grad, atol=1e-7, rtol=1e-4)


def test_a_patch_without_any_annotation_costs_nothing_and_moves_nothing():
    output = drawn()[0].requires_grad_()
    loss = Segmentation().loss(output, torch.full((2, 6, 5, 4), UNANNOTATED, dtype=torch.uint8))
    loss.backward()
    assert loss == 0
    assert torch.count_nonzero(output.grad) == 0


def test_an_annotator_who_looked_at_one_structure_says_nothing_of_the_other():
    task = Segmentation(dice_weight=0.0, partial=(Partial(column="site", value="east", structures=(1,)),))
    target = torch.from_numpy(task.target(case_of([0, 1, 0, 0], site="east")).copy())[None]
    sure_of_other, sure_of_background, sure_of_one = (torch.full((1, 3, 4, 1, 1), -20.0) for _ in range(3))
    for output, structure in ((sure_of_other, 2), (sure_of_background, 0), (sure_of_one, 1)):
        output[:, structure] = 20.0
        output[:, :, 1] = torch.tensor([-20.0, 20.0, -20.0])[None, :, None, None]
    assert float(task.loss(sure_of_other, target)) < 1e-6
    assert float(task.loss(sure_of_background, target)) < 1e-6
    assert float(task.loss(sure_of_one, target)) > 10


def test_partial_annotation_leaves_the_overlap_of_the_other_structure_alone():
    task = Segmentation(dice_weight=1.0, partial=(Partial(column="protocol", value="a", structures=(1,)),))
    target = torch.from_numpy(task.target(case_of([0, 1, 0, 0], protocol="a")).copy())[None]
    output = torch.zeros(1, 3, 4, 1, 1)
    more = output.clone()
    more[:, 2, [0, 2, 3]] += 5.0  # where it may be: nobody can call it invented, and less of the first is claimed there
    assert float(task.loss(more, target)) < float(task.loss(output, target))
    assert task.target(case_of([0, 2, 0, 0], protocol="b")).max() == 2


def test_a_structure_that_was_said_not_to_be_annotated_and_is_there_is_refused():
    task = Segmentation(partial=(Partial(column="site", value="east", structures=(1,)),))
    with pytest.raises(InputRejected, match="not annotated"):
        task.target(case_of([0, 1, 2, 0], site="east"))


def case_of(ids, *, site="", **clinical) -> Case:
    label = np.array(ids, np.uint8).reshape(1, len(ids), 1, 1)
    return Case("c", "p", {"label": Volume.of(label, np.eye(4))}, clinical, site)


def test_every_voxel_annotated_is_the_quick_way_to_the_same_loss():
    output, target = drawn()
    terms = Terms(0.5)
    more = torch.cat([target, torch.full_like(target, UNANNOTATED)])
    slow = exclusive(torch.cat([output, output]), more, terms, possible(3, ()))
    torch.testing.assert_close(slow, exclusive(output, target, terms, possible(3, ())), atol=1e-6, rtol=1e-5)
