"""nnU-Net's side of training_step.py: its network, its loss, its optimizer, as its trainer's train_step does them on a processor.

Runs in an environment of its own that holds torch, nnunetv2 and dynamic_network_architectures. Reads a number of steps per line,
answers with the seconds of each.
"""

import argparse
import sys
import time

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn


def network(features: int, levels: int, classes: int) -> nn.Module:
    """What its planner makes of cubic voxels: two convolutions a level, instance norm, leaky ReLU, deep supervision."""
    strides = [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1)
    return PlainConvUNet(
        input_channels=1,
        n_stages=levels,
        features_per_stage=[min(320, features * 2**level) for level in range(levels)],
        conv_op=nn.Conv3d,
        kernel_sizes=[[3, 3, 3]] * levels,
        strides=strides,
        n_conv_per_stage=[2] * levels,
        num_classes=classes,
        n_conv_per_stage_decoder=[2] * (levels - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser()
    for name in ("batch", "features", "levels", "classes", "threads"):
        arguments.add_argument(f"--{name}", type=int, required=True)
    arguments.add_argument("--patch", type=int, nargs=3, required=True)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    net = network(given.features, given.levels, given.classes)
    weights = np.array([1 / 2**level for level in range(given.levels - 1)])
    weights[-1] = 0
    plain = DC_and_CE_loss(
        {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        ignore_label=None,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    loss = DeepSupervisionWrapper(plain, weights / weights.sum())
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    images = torch.randn(given.batch, 1, *given.patch)
    whole = torch.randint(0, given.classes, (given.batch, 1, *given.patch)).float()
    targets = [whole[:, :, :: 2**level, :: 2**level, :: 2**level].contiguous() for level in range(given.levels - 1)]
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            begun = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss(net(images), targets).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 12)
            optimizer.step()
            seconds.append(time.perf_counter() - begun)
        print(" ".join(f"{value:.6f}" for value in seconds), flush=True)


if __name__ == "__main__":
    main()
