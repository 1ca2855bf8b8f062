"""Claims about segmentation by regions."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from pydantic import ValidationError

from bedside.core.contract import Contract
from bedside.core.errors import UsageError
from bedside.core.labels import UNANNOTATED
from bedside.tasks.annotation import Partial
from bedside.tasks.regions import Region, RegionSegmentation

WHOLE, CORE = Region(name="whole", structures=(1, 2)), Region(name="core", structures=(2,))
TASK = RegionSegmentation(regions=(WHOLE, CORE))


def contract(*names: str) -> Contract:
    return Contract(modality="MR", spacing_mm=(0.5, 2.0), labels={name: code for code, name in enumerate(names)})


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn((2, 2, 6, 5, 4), generator=random), torch.randint(0, 3, (2, 6, 5, 4), generator=random).to(torch.uint8)


def test_the_loss_is_that_of_monai_and_torch_for_each_region():
    output, target = drawn()
    truth = torch.stack([target >= 1, target == 2], dim=1).float()
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)(output, truth)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(output, truth)
    torch.testing.assert_close(TASK.loss(output, target), (dice + entropy) / 2, atol=1e-6, rtol=1e-5)


def test_what_is_decoded_is_what_was_put_in():
    target = np.array([0, 1, 2, 1], np.uint8).reshape(4, 1, 1)
    raw = np.stack([np.where(target >= 1, 9.0, -9.0), np.where(target == 2, 9.0, -9.0)]).astype(np.float32)
    value, uncertainty = TASK.decode(TASK.activate(raw))
    np.testing.assert_array_equal(value, target)
    assert uncertainty.max() < 1e-3


def test_a_later_region_is_written_over_an_earlier_one():
    value, _ = TASK.decode(np.array([0.1, 0.9], np.float32).reshape(2, 1, 1, 1))
    assert value.item() == 2


def test_voxels_that_nobody_annotated_have_no_gradient_at_all():
    output, target = drawn()
    target[:, 3:] = UNANNOTATED
    output.requires_grad_()
    TASK.loss(output, target).backward()
    assert torch.count_nonzero(output.grad[:, :, 3:]) == 0
    assert torch.count_nonzero(output.grad[:, :, :3]) > 0


def test_where_only_the_core_was_annotated_the_whole_is_not_known():
    task = RegionSegmentation(regions=(WHOLE, CORE), partial=(Partial(column="site", value="east", structures=(2,)),))
    table = task.members()
    np.testing.assert_array_equal(table[[0, 1, 2, 254, UNANNOTATED]], [[0, 0], [1, 0], [1, 1], [-1, 0], [-1, -1]])


def test_regions_that_do_not_fit_each_other_or_the_contract_are_refused():
    with pytest.raises(ValidationError, match="must have one"):
        RegionSegmentation(regions=(CORE, WHOLE, CORE))
    with pytest.raises(ValidationError, match="must have one"):
        RegionSegmentation(regions=(Region(name="all", structures=(1, 2, 3)), CORE))
    assert TASK.out_channels(contract("background", "edge", "core")) == 2
    with pytest.raises(UsageError, match="each must be in a region"):
        TASK.out_channels(contract("background", "edge", "core", "other"))
