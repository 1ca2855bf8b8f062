"""Claims about deep supervision and about computing activations twice."""

import pytest
import torch
from torch.nn import functional

from bedside.networks.deep import loss_of
from bedside.networks.segresnet import SegResNet
from bedside.networks.swin import SwinUNETR
from bedside.networks.unet import DynUNet

DEEP = [DynUNet(features=4, levels=4, deep_supervision=2), SegResNet(features=4, blocks=(1, 1, 1, 1), deep_supervision=2)]


def images(side: int = 16, *, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, side, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", DEEP)
def test_lower_resolutions_answer_in_training_and_only_there(network):
    torch.manual_seed(0)
    net = network.build(1, 2)
    outputs = net.train()(images())
    assert [tuple(output.shape[1:]) for output in outputs] == [(2, 16, 16, 16), (2, 8, 8, 8), (2, 4, 4, 4)]
    torch.testing.assert_close(net.eval()(images()), outputs[0])


def test_heads_stand_at_the_resolutions_of_an_anisotropic_network():
    network = DynUNet(features=2, levels=3, dimensions="2d", deep_supervision=1)
    whole, half = network.build(1, 2).train()(torch.zeros(1, 1, 16, 16, 3))
    assert whole.shape[2:] == (16, 16, 3)
    assert half.shape[2:] == (8, 8, 3)


def test_half_the_resolution_counts_half_and_sees_every_second_voxel():
    target = torch.randint(0, 2, (2, 8, 8, 4), generator=torch.Generator().manual_seed(0))
    whole, half, quarter = (torch.randn(2, 2, *shape) for shape in ((8, 8, 4), (4, 4, 4), (2, 2, 4)))
    found = loss_of(functional.cross_entropy, (whole, half, quarter), target)
    terms = [
        functional.cross_entropy(whole, target),
        functional.cross_entropy(half, target[:, ::2, ::2]),
        functional.cross_entropy(quarter, target[:, ::4, ::4]),
    ]
    torch.testing.assert_close(found, (4 * terms[0] + 2 * terms[1] + terms[2]) / 7)
    assert torch.equal(loss_of(functional.cross_entropy, whole, target), terms[0])


@pytest.mark.parametrize(
    "network",
    [
        DynUNet(features=4, levels=3, deep_supervision=1),
        DynUNet(features=4, levels=3, residual=True, blocks=(1, 2, 2)),
        SegResNet(features=4, blocks=(1, 2, 1)),
        SwinUNETR(features=12, window=2),
    ],
)
def test_activations_computed_twice_give_the_same_gradients(network):
    def gradients(**more):
        torch.manual_seed(1)
        net = type(network)(**{**dict(network), **more}).build(1, 2).train()
        output = net(images(32 if isinstance(network, SwinUNETR) else 8, count=2))
        loss_of(lambda found, _: found.square().mean(), output, torch.zeros(2, 32, 32, 32)).backward()
        return {name: weight.grad for name, weight in net.named_parameters()}

    kept, again = gradients(), gradients(checkpointing=True)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_computing_twice_keeps_fewer_activations():
    def kept_bytes(*, checkpointing: bool) -> int:
        net = DynUNet(features=8, levels=3, checkpointing=checkpointing).build(1, 2).train()
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(images())
        return sum(sizes.values())

    assert kept_bytes(checkpointing=True) < 0.6 * kept_bytes(checkpointing=False)
