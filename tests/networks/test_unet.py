"""Claims about the networks."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from bedside.core.task import divisors
from bedside.networks.norm import ChannelNorm
from bedside.networks.segresnet import SegResNet
from bedside.networks.swin import SwinUNETR
from bedside.networks.unet import DynUNet, UNet

NETWORKS = [
    DynUNet(features=4, levels=3),
    DynUNet(features=4, levels=3, norm="batch", residual=True),
    DynUNet(features=4, levels=3, residual=True, blocks=(1, 3, 2), deep_supervision=1),
    DynUNet(features=4, levels=3, dimensions="2.5d"),
    DynUNet(features=4, levels=3, kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2))),
    UNet(features=4, levels=3),
    SegResNet(features=4, blocks=(1, 1, 2)),
    SegResNet(features=4, blocks=(1, 1, 2), spacing_mm=(1.0, 1.0, 4.0), deep_supervision=1),
]


@pytest.mark.parametrize("network", NETWORKS)
def test_output_has_the_grid_of_the_input(network):
    net = network.build(2, 3).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 2, 16, 8, 24)).shape == (1, 3, 16, 8, 24)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_weight_has_one_name_and_can_be_stored(network):
    assert save(network.build(1, 2).state_dict())


@pytest.mark.parametrize("network", NETWORKS)
def test_twice_the_divisors_is_a_patch_that_fits_and_no_divisor_is_larger_than_it_has_to_be(network):
    net, sides = network.build(1, 2).eval(), divisors(network)
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, *(2 * side for side in sides))).isfinite().all()
    assert network.divisor == max(sides)
    deepest = min(
        (tuple(output.shape[2:]) for output in _bottoms(net, torch.zeros(1, 1, *(2 * side for side in sides)))), key=sum
    )
    assert deepest == (2, 2, 2)


def _bottoms(net, images):
    """Outputs of every convolution."""
    found = []
    hooks = [m.register_forward_hook(lambda _m, _i, o: found.append(o)) for m in net.modules() if isinstance(m, torch.nn.Conv3d)]
    with torch.inference_mode():
        net(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_channel_norm_and_its_gradients_are_those_of_the_instance_norm_it_replaces(layout, kind, tolerance):
    random = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(3, 6, 5, 4, 7, generator=random) for _ in range(2))
    ours, theirs = ChannelNorm(6, 6), torch.nn.InstanceNorm3d(6, affine=True)
    for norm in (ours, theirs):
        norm.weight.data = torch.linspace(0.5, 2, 6)
        norm.bias.data = torch.linspace(-1, 1, 6)
    wanted, found = x.clone().requires_grad_(), x.to(kind).contiguous(memory_format=layout).requires_grad_()
    outputs = ours(found), theirs(wanted)
    outputs[0].backward(grad.to(kind))
    outputs[1].backward(grad)
    pairs = [outputs, (found.grad, wanted.grad), (ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)]
    for mine, reference in pairs:
        torch.testing.assert_close(mine.float(), reference, atol=10 * tolerance, rtol=tolerance)


def test_the_gradient_of_the_channel_norm_is_that_of_its_values():
    norm = ChannelNorm(2, 2).double()
    x = torch.randn(2, 2, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,))


def test_no_network_computes_a_plain_instance_norm():
    for network in (DynUNet(features=4, levels=3), SegResNet(features=4), SwinUNETR(features=12, window=2)):
        kinds = {type(module).__name__ for module in network.build(1, 2).modules()}
        assert "ChannelNorm" in kinds
        assert "InstanceNorm3d" not in kinds


def test_features_double_and_stop_at_their_limit():
    widths = [m.out_channels for m in DynUNet(features=128, levels=4).build(1, 2).modules() if isinstance(m, torch.nn.Conv3d)]
    assert max(widths) == 320


# what models that are stored already call their weights
LEVEL = ("conv1.conv.weight", "conv2.conv.weight", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
UP = ("transp_conv.conv.weight", *(f"conv_block.{name}" for name in LEVEL))


def test_the_weights_of_the_plain_network_have_the_names_that_stored_models_have():
    names = {"output_block.conv.conv.weight", "output_block.conv.conv.bias"}
    for depth in range(2):
        at = "skip_layers." + "next_layer." * depth
        names |= {f"{at}downsample.{name}" for name in LEVEL} | {f"{at}upsample.{name}" for name in UP}
    names |= {f"skip_layers.next_layer.next_layer.{name}" for name in LEVEL}
    assert set(DynUNet(features=4, levels=3).build(1, 2).state_dict()) == names


def test_heads_and_further_blocks_leave_the_names_and_fresh_values_of_the_other_weights_alone():
    def fresh(**more):
        torch.manual_seed(3)
        return DynUNet(features=4, levels=4, residual=True, **more).build(1, 2).state_dict()

    plain, deep = fresh(), fresh(deep_supervision=2)
    assert all(torch.equal(value, deep[name]) for name, value in plain.items())
    assert {name.split(".")[0] for name in set(deep) - set(plain)} == {"deep_supervision_heads"}
    assert fresh(blocks=(1, 1, 1, 1)).keys() == plain.keys()


def test_blocks_counts_the_residual_blocks_of_each_level():
    net = DynUNet(features=4, levels=3, residual=True, blocks=(1, 3, 2)).build(1, 2)
    assert sum(type(module).__name__ == "UnetResBlock" for module in net.modules()) == 6


def test_a_2d_network_answers_each_slice_as_if_there_were_no_other():
    net = DynUNet(features=4, levels=3, dimensions="2d", norm="batch").build(1, 2).eval()
    stack = torch.randn(1, 1, 16, 16, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = torch.cat([net(stack[..., k : k + 1]) for k in range(5)], dim=-1)
        torch.testing.assert_close(net(stack), alone, atol=1e-4, rtol=1e-4)


def test_a_25d_network_sees_neighbouring_slices():
    network = DynUNet(features=4, levels=4, dimensions="2.5d")
    assert network.divisors == (8, 8, 4)
    assert network.kernels_used == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))
    stack = torch.zeros(1, 1, 16, 16, 8, requires_grad=True)
    network.build(1, 1).eval()(stack + torch.randn(1))[..., 0].sum().backward()
    assert stack.grad[..., 5].abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kernels": ((3, 3, 3),) * 3}, "one for each level"),
        ({"strides": ((2, 2, 2),) * 4}, "grid of the input"),
        ({"dimensions": "2d", "strides": ((1, 1, 1),) * 4}, "short for"),
        ({"kernels": ((1, 1, 1),) * 4, "strides": ((1, 1, 1), (3, 1, 1), (1, 1, 1), (1, 1, 1))}, "steps over"),
        ({"blocks": (1, 1, 1, 1)}, "residual"),
        ({"deep_supervision": 3}, "have 2 to give"),
        ({"checkpointing": True, "norm": "batch"}, "norm: instance"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        DynUNet(levels=4, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"deep_supervision": 3}, "have 2 to give"), ({"checkpointing": True, "norm": "batch"}, "norm: instance")],
)
def test_settings_of_the_segresnet_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        SegResNet(**settings)


def test_the_divisors_of_the_segresnet_are_those_that_monai_computes():
    for spacing in ((1.0, 1.0, 4.0), (0.5, 0.7, 3.0), (9.0, 1.5, 1.0), (1.0, 1.0, 1.2)):
        network = SegResNet(features=4, spacing_mm=spacing)
        assert network.divisors == tuple(network.build(1, 2).shape_factor())


def test_the_transformer_computes_in_windows_and_gives_the_grid_of_its_input():
    network = SwinUNETR(features=12, window=4)
    with torch.inference_mode():
        assert network.build(1, 3).eval()(torch.zeros(1, 1, 64, 32, 32)).shape == (1, 3, 64, 32, 32)
    with pytest.raises(ValidationError, match="multiple of 12"):
        SwinUNETR(features=16)
