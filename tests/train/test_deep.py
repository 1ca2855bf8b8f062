"""Claims about training with more than one output."""

import torch
from tests.train.test_loop import learner

from bedside.networks.unet import DynUNet


def test_every_head_learns_and_what_is_kept_has_one_output():
    deep = learner(network=DynUNet(features=4, levels=3, deep_supervision=1))
    before = deep.net.deep_supervision_heads[0].conv.conv.weight.detach().clone()
    losses = [deep.step(number, 20) for number in range(12)]
    assert losses[-1] < losses[0]
    assert not torch.equal(deep.net.deep_supervision_heads[0].conv.conv.weight, before)
    assert deep.ema(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)
