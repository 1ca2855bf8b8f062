"""Claims about the networks."""

import pytest
import torch
from safetensors.torch import save

from bedside.networks.unet import DynUNet, UNet

NETWORKS = [DynUNet(features=4, levels=3), DynUNet(features=4, levels=3, norm="batch", residual=True), UNet(features=4, levels=3)]


@pytest.mark.parametrize("network", NETWORKS)
def test_output_has_the_grid_of_the_input(network):
    net = network.build(2, 3).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 2, 16, 8, 24)).shape == (1, 3, 16, 8, 24)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_weight_has_one_name_and_can_be_stored(network):
    assert save(network.build(1, 2).state_dict())


def test_group_norm_per_channel_is_the_instance_norm_it_replaces():
    x = torch.randn(2, 6, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.nn.GroupNorm(6, 6)(x), torch.nn.InstanceNorm3d(6, affine=True)(x), atol=1e-5, rtol=1e-5)
    kinds = {type(module).__name__ for module in DynUNet(features=4, levels=3).build(1, 2).modules()}
    assert "GroupNorm" in kinds
    assert "InstanceNorm3d" not in kinds


def test_features_double_and_stop_at_their_limit():
    widths = [m.out_channels for m in DynUNet(features=128, levels=4).build(1, 2).modules() if isinstance(m, torch.nn.Conv3d)]
    assert max(widths) == 320
