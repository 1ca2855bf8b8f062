"""Sliding-window prediction beside MONAI's SlidingWindowInferer: memory with many structures, a very long scan, and speed.

python benchmarks/sliding_window.py > benchmarks/results/sliding_window.md

Volumes are generated and weights are random, because neither changes memory or speed. Every row of memory is a process of its
own; its peak is VmHWM, the high-water mark of resident memory, interpreter and libraries included. "predicted" is what the
ceiling is asked for before the volume is begun. MONAI gets the same network, windows and weights (Gaussian), one window at a
time; where its answer cannot fit below the limit of address space that it is given, its row says so. Speed: same windows (64^3,
overlap 0.5 of 160^3), alternating turns in one process; seconds of processor time, because the machine is shared.

`--only sums`: open sums of 60 and 120 classes with the bound that a prediction has (what passes it waits on the disk) and with
none, under an engine of two operations; the first two slabs only, as no later one has more open. Written and read: /proc/self/io.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

GB = 1e9
SPEED_SIDE, SPEED_PATCH = 160, 64
SUMS = {"spilled": 0, "in memory": 1 << 62}
"""Bound of the open sums in bytes; 0: the one that a prediction has."""


@dataclass(frozen=True)
class Job:
    """One process: who computes what."""

    who: str
    shape: tuple[int, int, int]
    structures: int
    patch: int
    overlap: float
    limit_gb: float = 0.0
    spacing: float = 0.0
    slabs: int = 0


def model_of(job: Job, folder: Path):  # noqa: ANN201 - brings torch, which only children need
    """A small DynUNet with seeded random weights, in a store of its own."""
    import torch
    from safetensors.torch import save_file

    from bedside.core.contract import Contract
    from bedside.core.model import ModelSpec, Preprocessing, put_model
    from bedside.core.workspace import Workspace
    from bedside.networks.unet import DynUNet

    network, workspace = DynUNet(features=4, levels=3), Workspace(folder)
    spacing = (job.spacing,) * 3 if job.spacing else None
    spec = ModelSpec(
        study="windows",
        format="safetensors",
        task={"name": "segmentation"},
        network=network.settings(),
        contract=Contract(
            modality="MR",
            spacing_mm=(0.2, 5.0),
            max_voxels=1 << 29,
            labels={"background": 0, **{f"s{n}": n for n in range(1, job.structures)}},
        ),
        preprocessing=Preprocessing(spacing_mm=spacing),
        patch=(job.patch,) * 3,
        overlap=job.overlap,
        in_channels=1,
        out_channels=job.structures,
        dataset="0" * 64,
        run="1" * 64,
        study_digest="2" * 64,
        engine={"name": "torch", "precision": "fp32"},
    )
    torch.manual_seed(0)
    with workspace.staging() as staged:
        save_file(network.build(1, job.structures).state_dict(), staged / "weights.safetensors")
        return put_model(workspace, staged, spec)


def volume_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Blocks of noise, int16, as a scanner stores it."""
    coarse = np.random.default_rng(0).integers(-500, 500, [-(-n // 8) for n in shape], dtype=np.int16)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 8), np.int16))[: shape[0], : shape[1], : shape[2]])


def child(job: Job) -> None:
    """Predict one volume and print what it took as JSON."""
    if job.limit_gb:
        resource.setrlimit(resource.RLIMIT_AS, (int(job.limit_gb * GB), int(job.limit_gb * GB)))
    if job.who in SUMS:
        print(json.dumps(sums_row(job)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(job, Path(folder))
        array, begun = volume_of(job.shape), perf_counter()
        found = {"monai": monai_row, "ours": ours_row, "whole": whole_row}[job.who](model, array)
    found |= {"wall": perf_counter() - begun, "peak": peak_gb()}
    print(json.dumps(found), flush=True)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


class Done(Exception):
    """As many slabs as were wanted."""


def sums_row(job: Job) -> dict[str, object]:
    """The first slabs under an engine that does next to nothing, labels decoded as in a prediction."""
    from bedside.engines.wrap import SlidingWindow
    from bedside.tasks.segmentation import Segmentation

    patch, computed = (job.patch,) * 3, []
    generator = np.random.default_rng(1)
    slope, offset = generator.normal(size=(2, job.structures, 1, 1, 1)).astype(np.float32)

    def forward(windows: np.ndarray) -> np.ndarray:
        if len(computed) == wanted:
            raise Done
        computed.append(1)
        output = windows * slope
        output += offset
        return output

    window = SlidingWindow(forward, patch, job.overlap, most_held_bytes=SUMS[job.who] or SlidingWindow.most_held_bytes)
    grid = window.grid(job.shape)
    wanted = grid.count // len(grid.axes[grid.order[0]].starts) * job.slabs
    array = (volume_of(job.shape)[None] / 250).astype(np.float32)
    labels, doubt, asked = np.zeros(job.shape, np.uint8), np.zeros(job.shape, np.float32), recorded()

    def take(box: tuple[slice, ...], values: np.ndarray) -> None:
        labels[box], doubt[box] = Segmentation().decode(values)

    begun, used = perf_counter(), process_time()
    try:
        window.stream(array, take, ceiling=asked)
    except Done:
        found = {"wall": perf_counter() - begun, "cpu": process_time() - used, "peak": peak_gb(), "windows": len(computed)}
    moved = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    digest = hashlib.sha256(labels.tobytes() + doubt.tobytes()).hexdigest()
    return found | {
        "labels": digest,
        "predicted": asked.asked[0] / GB,
        "moved": [int(moved[which]) / GB for which in ("wchar", "rchar")],
    }


def recorded():  # noqa: ANN201 - brings torch, which only children need
    """A ceiling that allows all and remembers what it was asked for."""
    from bedside.engines.memory import Ceiling

    @dataclass(frozen=True)
    class Recorded(Ceiling):
        asked: list[int] = field(default_factory=list)

        def check(self, predicted_bytes: int) -> None:
            self.asked.append(predicted_bytes)

    return Recorded(math.inf)


def ours_row(model, array: np.ndarray) -> dict[str, object]:  # noqa: ANN001
    """Through the one path that every prediction takes."""
    from bedside.core.case import Case
    from bedside.core.volume import Volume
    from bedside.engines.predict import open_model

    class Told:
        def start(self, what: str, total: float | None) -> None:
            self.total, self.begun = total or 1.0, perf_counter()

        def advance(self, done: float, note: str = "") -> None:
            if done in {1.0, self.total // 4, self.total // 2, self.total}:
                left = (perf_counter() - self.begun) / done * (self.total - done)
                print(f"{note}, about {left:.0f} s left", file=sys.stderr, flush=True)

    asked = recorded()
    predictor = replace(open_model(model), ceiling=asked, progress=Told())
    answer = predictor(Case("c", "p", {"image": Volume.of(array, np.eye(4))}))
    return {
        "predicted": [one / GB for one in asked.asked],
        "seconds": dict(answer.seconds),
        "labels": hashlib.sha256(answer.value.tobytes()).hexdigest(),
        "windows": predictor.window.grid(array.shape).count,
    }


def whole_row(model, array: np.ndarray) -> dict[str, object]:  # noqa: ANN001
    """The same windows, added up over the whole volume and decoded at the end, with numpy's own argmax."""
    from bedside.core.volume import Volume
    from bedside.data.transforms import prepare
    from bedside.engines.predict import open_model
    from bedside.engines.windows import WindowGrid
    from bedside.engines.wrap import checked

    window = open_model(model).window
    image = prepare(Volume.of(array, np.eye(4)), model.spec.preprocessing).array
    grid, total = WindowGrid.of(array.shape, window.patch, window.overlap), None
    for numbers in grid:
        box = (slice(None), *grid.box(numbers))
        output = window.activate(checked(window.forward, np.ascontiguousarray(image[box])[None])[0])
        if total is None:
            total = np.zeros((len(output), *array.shape), np.float32)
        total[box] += output * grid.weight(numbers)
    return {"labels": hashlib.sha256(total.argmax(axis=0).astype(np.uint8).tobytes()).hexdigest()}


def monai_row(model, array: np.ndarray) -> dict[str, object]:  # noqa: ANN001
    """MONAI's inferer on the same network, softmax in its predictor, then argmax."""
    import torch
    from monai.inferers import SlidingWindowInferer

    from bedside.core.volume import Volume
    from bedside.data.transforms import prepare
    from bedside.engines.torch import load_network

    net, spec = load_network(model), model.spec
    inferer = SlidingWindowInferer(roi_size=spec.patch, sw_batch_size=1, overlap=spec.overlap, mode="gaussian")
    try:
        with torch.inference_mode():
            image = torch.from_numpy(prepare(Volume.of(array, np.eye(4)), spec.preprocessing).array)[None]
            inferer(image, lambda windows: net(windows).softmax(1)).argmax(1).to(torch.uint8)
    except (RuntimeError, MemoryError) as error:
        return {"failed": str(error).splitlines()[0][:60]}
    return {}


def run(job: Job) -> dict[str, object]:
    command = [sys.executable, __file__, "--child", json.dumps(job.__dict__)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"failed": f"ended with {done.returncode}", "peak": float("nan"), "wall": float("nan")}
    return json.loads(done.stdout.splitlines()[-1])


def memory_table(jobs: list[Job]) -> None:
    print("| volume | structures | window, overlap | who | windows | peak GB | predicted GB | minutes | after the network |")
    print("|---|---|---|---|---|---|---|---|---|")
    labels: dict[tuple[object, ...], set[str]] = {}
    for job in jobs:
        found = run(job)
        size = " x ".join(map(str, job.shape))
        seconds = found.get("seconds") or {}
        share = f"{100 * seconds['postprocess'] / sum(seconds.values()):.1f} %" if seconds else ""
        asked = " then ".join(f"{one:.2f}" for one in found.get("predicted", []))
        count, minutes = found.get("windows", ""), found["wall"] / 60
        peak = f"{found['peak']:.2f}" + (f"; {found['failed']} (limit {job.limit_gb:g} GB)" if "failed" in found else "")
        print(
            f"| {size} | {job.structures} | {job.patch}^3, {job.overlap:g} | {job.who} | {count} | {peak} | {asked} |"
            f" {minutes:.1f} | {share} |",
            flush=True,
        )
        if "labels" in found:
            labels.setdefault((job.shape, job.structures, job.patch, job.overlap), set()).add(f"{job.who} {found['labels']}")
    for (shape, structures, *_), digests in labels.items():
        if len(digests) > 1:
            same = len({digest.split()[1] for digest in digests}) == 1
            verdict = "equal" if same else "DIFFERENT"
            print(f"\nLabels of {shape} with {structures} structures, in the stream and computed whole: {verdict}")


def sums_table(jobs: list[Job]) -> None:
    """Open sums on the disk beside all of them in memory."""
    print("| volume | classes | windows | sums | peak GB | predicted GB | s | s of processor | GB written | GB read | labels |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for job in jobs:
        found = run(job)
        size = " x ".join(map(str, job.shape))
        written, read = found["moved"]
        print(
            f"| {size} | {job.structures} | {found['windows']} of {job.patch}^3 | {job.who} | {found['peak']:.2f} |"
            f" {found['predicted']:.2f} | {found['wall']:.0f} | {found['cpu']:.0f} | {written:.1f} | {read:.1f} |"
            f" {found['labels'][:12]} |",
            flush=True,
        )


def speed_table(turns: int) -> None:
    """Ours beside MONAI's at equal settings."""
    import torch
    from monai.inferers import SlidingWindowInferer

    from bedside.engines.wrap import SlidingWindow
    from bedside.networks.unet import DynUNet
    from bedside.tasks.segmentation import Segmentation

    patch, task = (SPEED_PATCH,) * 3, Segmentation()
    array = np.random.default_rng(0).normal(size=(1, *(SPEED_SIDE,) * 3)).astype(np.float32)
    tensor = torch.from_numpy(array)[None]
    inferer = SlidingWindowInferer(roi_size=patch, sw_batch_size=1, overlap=0.5, mode="gaussian")
    print("| network | precision | asked for | ours s | MONAI s | MONAI / ours |")
    print("|---|---|---|---|---|---|")
    nets = {"1 x 1 x 1 to 3": (torch.nn.Conv3d(1, 3, 1), 3), "1 x 1 x 1 to 24": (torch.nn.Conv3d(1, 24, 1), 24)}
    nets["DynUNet of 8, to 3"] = (DynUNet(features=8, levels=4).build(1, 3), 3)
    for name, (plain, _) in nets.items():
        for reduced in (False, True) if name.startswith("Dyn") else (False,):
            layout = torch.channels_last_3d if reduced else torch.contiguous_format
            net = plain.eval().to(memory_format=layout)

            def compute(windows: torch.Tensor, net=net, layout=layout, reduced=reduced) -> torch.Tensor:  # noqa: ANN001
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                    return net(windows.to(memory_format=layout)).float()

            def forward(windows: np.ndarray, compute=compute) -> np.ndarray:  # noqa: ANN001
                return compute(torch.from_numpy(windows)).contiguous().numpy()

            def probable(windows: torch.Tensor, compute=compute) -> torch.Tensor:  # noqa: ANN001
                return compute(windows).softmax(1)

            def monai(finish: Callable[[torch.Tensor], object], compute=compute) -> Callable[[], object]:  # noqa: ANN001
                def go() -> object:
                    with torch.inference_mode():
                        return finish(inferer(tensor, compute))

                return go

            def probabilities(forward=forward) -> None:  # noqa: ANN001
                window = SlidingWindow(forward, patch, 0.5, task.activate)
                window.stream(array, lambda box, values: task.decode(values))

            def labels(forward=forward) -> None:  # noqa: ANN001
                SlidingWindow(forward, patch, 0.5).stream(array, lambda box, values: task.decode(values))

            def average(forward=forward) -> None:  # noqa: ANN001
                SlidingWindow(forward, patch, 0.5)(array)

            for asked, ours, theirs in (
                ("the average", average, monai(lambda output: output)),
                ("labels and largest value", labels, monai(lambda output: output.max(1))),
                ("labels of averaged probabilities", probabilities, monai(lambda output: output.max(1), probable)),
            ):
                first, second = alternate(ours, theirs, turns)
                print(
                    f"| {name} | {'bf16' if reduced else 'fp32'} | {asked} | {first:.2f} | {second:.2f} | {second / first:.2f} |",
                    flush=True,
                )


def alternate(ours: Callable[[], object], theirs: Callable[[], object], turns: int) -> tuple[float, float]:
    """Medians of processor seconds after one warm-up each."""
    ours(), theirs()
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            begun = process_time()
            (ours, theirs)[which]()
            taken[which].append(process_time() - begun)
    return statistics.median(taken[0]), statistics.median(taken[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=["memory", "many", "long", "sums", "speed"], help="one table only")
    given = parser.parse_args()
    if given.child:
        job = json.loads(given.child)
        child(Job(**{**job, "shape": tuple(job["shape"])}))
        return
    print("# Sliding windows beside MONAI's SlidingWindowInferer\n")
    load, threads = os.getloadavg()[0], os.environ.get("OMP_NUM_THREADS", "all")
    machine = f"{os.cpu_count()} cores ({platform.machine()}), threads {threads}, load {load:.1f}"
    print(f"`python benchmarks/sliding_window.py`: {machine}\n")
    many, quarter = (384, 384, 400), (192, 192, 200)
    tables = {
        "memory": [
            *(Job(who, quarter, 60, 96, 0.5) for who in ("ours", "whole", "monai")),
            *(Job("ours", quarter, structures, 96, 0.5) for structures in (2, 20)),
            Job("ours", quarter, 60, 96, 0.5, spacing=1.5),
        ],
        "many": [Job("ours", many, 60, 96, 0.5), Job("monai", many, 60, 96, 0.5, limit_gb=12)],
        "long": [Job("ours", (512, 512, 1000), 3, 128, 0.25)],
    }
    for name, jobs in tables.items():
        if given.only in {None, name}:
            memory_table(jobs)
            print()
    if given.only in {None, "sums"}:
        sums_table([Job(who, many, classes, 96, 0.5, slabs=2) for classes in (60, 120) for who in SUMS])
        print()
    if given.only in {None, "speed"}:
        speed_table(given.turns)


if __name__ == "__main__":
    main()
