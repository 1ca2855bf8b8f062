"""Claims about what a step needs, counted before it runs."""

import gc
import json
import subprocess
import sys

import pytest
import torch

from bedside.engines.memory import resident_bytes
from bedside.networks.swin import SwinUNETR
from bedside.networks.unet import DynUNet, UNet
from bedside.tasks.segmentation import Segmentation
from bedside.train.footprint import COLUMNS, footprint
from bedside.train.memory import release

SMALL = DynUNet(features=8, levels=3)


def need(network=SMALL, patch=(16, 24, 16), micro_batch=2, reduced=False):
    return footprint(network, Segmentation(), channels=(1, 3), patch=patch, micro_batch=micro_batch, reduced=reduced)


def test_weights_are_counted_exactly():
    assert need().parameters == sum(parameter.numel() for parameter in SMALL.build(1, 3).parameters())


def test_what_is_kept_and_computed_grows_with_the_voxels_and_the_patches_at_once():
    one, twice, larger = need(micro_batch=1), need(micro_batch=2), need(micro_batch=1, patch=(32, 24, 16))
    for other in (twice, larger):
        assert other.saved_mb == pytest.approx(2 * one.saved_mb, rel=0.01)
        assert other.gigaflops == pytest.approx(2 * one.gigaflops, rel=0.01)
    assert one.peak_mb < larger.peak_mb
    assert one.peak_mb - COLUMNS * one.columns_mb < twice.peak_mb
    assert need(micro_batch=1, reduced=True).peak_mb < need(micro_batch=2, reduced=True).peak_mb


def test_a_single_patch_in_float32_is_held_as_columns_where_torch_computes_it_so():
    # first convolution: 1 x 112 x 112 <= 20480, 27 numbers per voxel; of the others the least is 32 x 28 x 28, which is more
    network, asked = DynUNet(features=8, levels=3), {"channels": (1, 3), "patch": (112, 112, 16)}
    one = footprint(network, Segmentation(), micro_batch=1, **asked)
    assert one.columns_mb == pytest.approx(4 * 27 * 112 * 112 * 16 / 1e6)
    for other in ({"micro_batch": 2}, {"micro_batch": 1, "reduced": True}):
        assert footprint(network, Segmentation(), **asked, **other).columns_mb == 0


def test_work_is_that_of_torchs_own_counter():
    # torch.utils.flop_counter on the same step (forward and backward, 16 features, 4 levels, 4 x 32 x 48 x 32): 63.12 GFLOP
    found = footprint(DynUNet(features=16, levels=4), Segmentation(), channels=(1, 3), patch=(32, 48, 32), micro_batch=4)
    assert found.gigaflops == pytest.approx(63.12, rel=0.01)


def test_of_levels_that_are_computed_again_the_largest_is_counted_and_one_more_forward_pass():
    whole, again = need(DynUNet(features=8, levels=3)), need(DynUNet(features=8, levels=3, checkpointing=True))
    # two convolutions of 8 channels with their norms at the first level, and what its inputs and outputs are
    level_mb = 4 * 8 * 2 * 16 * 24 * 16 / 1e6
    assert 4 * level_mb < again.saved_mb < whole.saved_mb
    assert again.gigaflops == pytest.approx(4 / 3 * whole.gigaflops, rel=0.02)
    assert again.parameters == whole.parameters


def test_attention_layers_that_are_computed_again_are_counted_like_levels():
    asked = {"channels": (1, 2), "patch": (64, 64, 64), "micro_batch": 1}
    whole, again = (
        footprint(SwinUNETR(features=12, window=4, checkpointing=twice), Segmentation(), **asked) for twice in (False, True)
    )
    # the first layer's windows: 32^3 tokens of 12 numbers as query, key and value, and the scores of 3 heads over 64 tokens each
    inside_mb = 4 * 32**3 * (3 * 12 + 3 * 64) / 1e6
    assert inside_mb < again.saved_mb < whole.saved_mb - inside_mb
    assert whole.gigaflops < again.gigaflops < 4 / 3 * whole.gigaflops
    assert again.parameters == whole.parameters


def test_what_was_counted_is_freed():
    def held_mb() -> float:
        gc.collect()
        tensors = [found for found in gc.get_objects() if type(found) in {torch.Tensor, torch.nn.Parameter}]
        return sum(found.untyped_storage().nbytes() for found in tensors) / 1e6

    asked = {"channels": (1, 2), "patch": (32, 32, 32), "micro_batch": 1}
    before, resident = held_mb(), resident_bytes()
    for _ in range(4):
        found = footprint(SwinUNETR(features=12, window=4), Segmentation(), **asked)
        release()
    assert found.saved_mb > 20
    assert held_mb() < before + 1
    assert resident_bytes() < resident + 1e6 * (300 + found.saved_mb)  # MONAI's imports, and one of four at most


def test_heads_at_lower_levels_are_counted_too():
    heads = DynUNet(features=8, levels=3, deep_supervision=1)
    assert need(heads).saved_mb > need().saved_mb
    assert need(heads).gigaflops > need().gigaflops


def test_counting_does_not_touch_the_generators_that_training_draws_from():
    import torch

    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    need()
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_patch_that_the_network_cannot_take_is_a_runtime_error():
    with pytest.raises(RuntimeError):
        footprint(UNet(features=4, levels=4), Segmentation(), channels=(1, 2), patch=(12, 12, 12), micro_batch=1)


MEASURE = """
import json, sys
import numpy as np
from bedside.core.config import Augmentation
from bedside.core.model import Preprocessing
from bedside.core.plan import Machine, Plan
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.networks.unet import DynUNet
from bedside.tasks.segmentation import Segmentation
from bedside.train.loop import Learner
from bedside.train.sitting import peak_memory_mb
patch, batch, network = (32, 48, 32), 4, DynUNet(features=16, levels=4)
label = np.zeros(patch, np.uint8); label[4:11, 5:12, 3:13] = 1; label[12:16, 12:16] = 2
example = Example(np.random.default_rng(0).normal(size=(1, *patch)).astype(np.float32), label, find_foreground(label))
plan = Plan(preprocessing=Preprocessing(), network=network, patch=patch, batch=batch, micro_batch=batch, precision="fp32",
            learning_rate=2e-3, weight_decay=1e-2, ema=0.99, foreground=0.5, seed=0, augment=Augmentation(), minutes=None,
            steps=3, memory_mb=3000.0, machine=Machine(cores=1, memory_mb=4000.0))
learner = Learner(network.build(1, 3), Segmentation(), PatchSampler([example], patch, batch, 0.5, 0), plan, "fp32")
for number in range(3):
    learner.step(number, 10)
print(json.dumps(peak_memory_mb()))
"""


def test_predicted_memory_is_within_30_percent_of_measured():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout) * 1.048576  # MiB to MB
    predicted = footprint(
        DynUNet(features=16, levels=4), Segmentation(), channels=(1, 3), patch=(32, 48, 32), micro_batch=4
    ).peak_mb
    assert predicted == pytest.approx(measured, rel=0.3)
