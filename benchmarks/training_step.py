"""Seconds per training step, ours against nnU-Net's for the same patch, batch, width and depth, in alternating turns.

python benchmarks/training_step.py --peer PYTHON [--patch 40 56 40 --batch 9] [--precision fp32] [--compile]

PYTHON is the interpreter of an environment with torch, nnunetv2 and dynamic_network_architectures (installed without their
dependencies; with a processor's torch leave out torchvision and timm). Ours is the whole of `Learner.step`: cutting and
augmenting the patches, forward, loss, backward, clipping, AdamW and the averaged weights. nnU-Net's is forward, loss with deep
supervision, backward, clipping and SGD on a batch that is ready (it augments in other processes). Both use every thread.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).resolve().parent
CLASSES = 3


class Peer:
    """nnU-Net in a process of its own."""

    def __init__(self, python: str, given: argparse.Namespace, threads: int) -> None:
        wanted = {name: getattr(given, name) for name in ("batch", "features", "levels")}
        wanted |= {"classes": CLASSES, "threads": threads}
        words = [word for name, value in wanted.items() for word in (f"--{name}", str(value))]
        command = [python, str(HERE / "training_step_peer.py"), *words, "--patch", *map(str, given.patch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self, count: int) -> list[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]


class Ours:
    """A learner on made-up cases; `shares` says where its time goes."""

    def __init__(self, given: argparse.Namespace, precision: str, threads: int, *, compiled: bool = False) -> None:
        import torch

        from bedside.core.config import Augmentation
        from bedside.core.model import Preprocessing
        from bedside.core.plan import Machine, Plan
        from bedside.data.patches import Example, PatchSampler, find_foreground
        from bedside.networks.unet import DynUNet
        from bedside.tasks.segmentation import Segmentation
        from bedside.train.compiling import compile_steps
        from bedside.train.loop import Learner

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        network = DynUNet(features=given.features, levels=given.levels, deep_supervision=given.heads)
        plan = Plan(
            preprocessing=Preprocessing(),
            network=network,
            patch=tuple(given.patch),
            batch=given.batch,
            micro_batch=given.batch,
            precision=precision,
            learning_rate=2e-3,
            weight_decay=1e-2,
            ema=0.998,
            foreground=0.5,
            seed=0,
            augment=Augmentation(),
            minutes=None,
            steps=1000,
            memory_mb=1e6,
            machine=Machine(cores=threads, memory_mb=1e6),
        )
        chance, shape = np.random.default_rng(0), tuple(side + 8 for side in given.patch)
        labels = [(chance.random(shape) * CLASSES).astype(np.uint8) for _ in range(4)]
        examples = [Example(chance.normal(size=(1, *shape)).astype(np.float32), each, find_foreground(each)) for each in labels]
        sampler = PatchSampler(examples, plan.patch, plan.batch, plan.foreground, plan.seed)
        self.learner = Learner(network.build(1, CLASSES), Segmentation(), sampler, plan, precision)
        self.done = 0
        if compiled:
            begun = time.perf_counter()
            compile_steps(self.learner)
            print(f"compiled {precision} in {time.perf_counter() - begun:.0f} s")

    def steps(self, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            begun = time.perf_counter()
            self.learner.step(self.done, 10_000)
            seconds.append(time.perf_counter() - begun)
            self.done += 1
        return seconds

    def batches(self, count: int) -> list[float]:
        """Seconds to cut and augment a batch."""
        seconds = []
        for number in range(count):
            begun = time.perf_counter()
            self.learner.batch(self.done + number)
            seconds.append(time.perf_counter() - begun)
        return seconds


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--peer", help="interpreter of nnU-Net's environment; without it only ours is timed")
    arguments.add_argument("--patch", type=int, nargs=3, default=[40, 56, 40])
    arguments.add_argument("--batch", type=int, default=9)
    arguments.add_argument("--features", type=int, default=32)
    arguments.add_argument("--levels", type=int, default=4)
    arguments.add_argument("--heads", type=int, default=2, help="levels of deep supervision of ours; nnU-Net's has levels - 2")
    arguments.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    arguments.add_argument("--compile", action="store_true", help="time ours compiled (train.compile: on) too")
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=2, help="steps of each in one turn")
    given = arguments.parse_args()
    threads = len(os.sched_getaffinity(0))
    sides = {f"bedside {precision}": Ours(given, precision, threads) for precision in given.precision}
    for precision in given.precision if given.compile else ():
        sides[f"bedside {precision} compiled"] = Ours(given, precision, threads, compiled=True)
    runners: dict[str, Ours | Peer] = dict(sides)
    if given.peer:
        runners["nnU-Net fp32"] = Peer(given.peer, given, threads)
    found: dict[str, list[float]] = {name: [] for name in runners}
    batches: list[float] = []
    from bedside.core.heap import kept_heap

    with kept_heap():  # as in a training
        for turn in range(given.turns + 1):
            for name, runner in runners.items():
                seconds = runner.steps(given.steps)
                found[name] += seconds if turn else []
            batches += next(iter(sides.values())).batches(given.steps) if turn else []
    whole = median(found["nnU-Net fp32"]) if given.peer else float("nan")
    print(f"command: {' '.join(['python', *sys.argv])}; {threads} threads, load {os.getloadavg()[0]:.1f}\n")
    print("| side | seconds per step (median) | quickest | ratio to nnU-Net | cutting and augmenting |\n|---|---|---|---|---|")
    for name, seconds in found.items():
        share = f"{median(batches) / median(seconds):.1%}" if name in sides else "not counted"
        print(f"| {name} | {median(seconds):.2f} | {min(seconds):.2f} | {median(seconds) / whole:.2f} | {share} |")


if __name__ == "__main__":
    main()
