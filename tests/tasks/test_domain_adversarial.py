"""Claims about the head that is fooled."""

import math
from dataclasses import replace

import pytest
import torch

from bedside.core.errors import UsageError
from bedside.core.lesson import Moment, kept_task
from bedside.networks.segresnet import SegResNet
from bedside.networks.unet import DynUNet, UNet
from bedside.tasks.distilled import Distilled
from bedside.tasks.domain_adversarial import DomainAdversarial
from bedside.tasks.reversal import DomainNet, deepest, reversed_gradient, strength
from bedside.tasks.segmentation import Segmentation
from bedside.testing import sample_classroom

TASK = DomainAdversarial(task=Segmentation(), weight=1.0)


@pytest.mark.parametrize(("progress", "expected"), [(0, 0), (0.1, math.tanh(0.5)), (0.5, math.tanh(2.5)), (1, math.tanh(5))])
def test_the_strength_is_that_of_ganin(progress, expected):
    """2 / (1 + exp(-10 p)) - 1 = tanh(5 p); Ganin et al. 2016, section 5.2.2."""
    assert strength(progress, 10.0) == pytest.approx(expected, abs=1e-12)


def test_the_value_passes_and_the_gradient_comes_back_turned_round_and_scaled():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reversed_gradient(x, 0.25)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert x.grad.tolist() == [-0.75, -0.75]


@pytest.mark.parametrize(
    ("network", "features"),
    [(DynUNet(features=2, levels=3), 8), (SegResNet(features=2, blocks=(1, 1, 1)), 8), (UNet(features=2, levels=2), 4)],
)
def test_the_deepest_features_are_found_in_each_network(network, features):
    net = network.build(1, 2)
    module, count = deepest(net, torch.zeros(1, 1, 16, 16, 16))
    assert count >= features
    assert module is not net
    assert net.training


def pupil() -> DomainNet:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, stride=2), torch.nn.ConvTranspose3d(4, 3, 2, stride=2))
    return DomainNet(net, torch.zeros(1, 1, 9, 9, 9), domains=2, hidden=8)


def gradients(progress: float, cases: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the network's first layer and of the head's last one, from the head's loss."""
    whole = pupil()
    whole(torch.arange(2.0)[:, None, None, None, None].expand(2, 1, 9, 9, 9))
    moment = Moment(step=round(100 * progress), total=100, seed=0, cases=cases, rows=(0, 1))
    TASK.lesson(sample_classroom()).added(whole, moment).backward()
    return whole.net[0].weight.grad, whole.head[2].weight.grad


def test_the_head_learns_at_full_rate_and_the_network_against_it_as_the_schedule_says():
    (none, head), (half, same), (whole, _) = (gradients(at, ("case-1", "case-2")) for at in (0.0, 0.1, 1.0))
    assert not none.any()
    assert torch.equal(head, same)
    assert head.any()
    torch.testing.assert_close(half / math.tanh(0.5), whole / math.tanh(5.0))


def test_the_network_is_pushed_to_where_the_head_is_wrong():
    whole, lesson = pupil(), TASK.lesson(sample_classroom())
    images = torch.randn(2, 1, 9, 9, 9, generator=torch.Generator().manual_seed(1))
    moment = Moment(step=100, total=100, seed=0, cases=("case-1", "case-2"), rows=(0, 1))
    losses = []
    for _ in range(5):
        whole.zero_grad()
        whole(images)
        loss = lesson.added(whole, moment)
        loss.backward()
        with torch.no_grad():
            for weight in whole.net.parameters():
                weight -= 0.1 * (weight.grad if weight.grad is not None else 0)
        losses.append(float(loss.detach()))
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


def test_a_case_of_unknown_domain_teaches_the_task_only():
    network, head = gradients(1.0, ("elsewhere", "nowhere"))
    assert not network.any()
    assert not head.any()


@pytest.mark.parametrize("column", ["scanner", "sequence"])
def test_cases_of_one_or_no_domain_are_refused(column):
    with pytest.raises(UsageError, match=f"of 0 domains by their {column}"):
        DomainAdversarial(task=Segmentation(), column=column).lesson(sample_classroom())


def test_a_column_of_the_clinical_table_may_tell_the_domain_and_rare_ones_count_as_much():
    room = sample_classroom()
    records = tuple(
        room.records[0].model_copy(update={"id": f"c{at}", "clinical": {"sequence": "a" if at else "b"}}) for at in range(4)
    )
    lesson = DomainAdversarial(task=Segmentation(), column="sequence").lesson(replace(room, records=records))
    assert lesson.domains == {"c0": 1, "c1": 0, "c2": 0, "c3": 0}
    assert lesson.weights == pytest.approx((4 / 6, 2.0))


def test_what_is_kept_is_the_innermost_task():
    assert kept_task(DomainAdversarial(task=Distilled(teacher="0" * 64))) == Segmentation()
