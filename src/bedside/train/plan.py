"""The plan of a training: what the study asks for, fitted to the data, the budget and the machine.

The rules are nnU-Net's (Isensee et al. 2021: median spacing, patches as large as they fit, kernels that follow anisotropy) with
one more limit: the time that there is. A patch, a width and a batch are chosen so that the budget holds enough steps. No constant
here is about one kind of image.
"""

import math
from dataclasses import dataclass, field, replace
from typing import cast

from bedside.core.config import Augmentation, Study, Train
from bedside.core.errors import ResourceError, UsageError
from bedside.core.model import Preprocessing
from bedside.core.plan import Choice, Fingerprint, Machine, Plan
from bedside.core.record import Part
from bedside.core.task import Task, divisors, least_patches
from bedside.networks.unet import DynUNet
from bedside.train.device import loaders_of
from bedside.train.footprint import Footprint, footprint
from bedside.train.plan_rules import Shape, augmentation, grid, norm, normalisation, planned_patch, pyramid, target_spacing

MEMORY_SHARE = 0.8
"""Of what the process may use; the rest is for what reads, saves and validates beside the steps."""
SAFETY = 0.95
"""A prediction above this share of the ceiling counts as above it."""
MOST_BATCH = 8
MIN_BATCH = 2
WIDTHS = (32, 24, 16, 12, 8)
FLOPS_PER_VOXEL = 1250.0
"""Of a forward and backward pass of a DynUNet, times the square of its features (counted: 1254 at 16, 1250 at 32)."""
CPU_GIGAFLOPS = 40.0
"""What one core was seen to do in such a step."""
GPU_GIGAFLOPS = 10_000.0
STEPS_IN_A_QUARTER_HOUR = 1000
"""With fewer, a wide network learns less than a narrow one; the number grows with the square root of the budget."""
UNLIMITED_SECONDS = 3600.0
"""Where the budget is in steps or epochs, the size is planned as for this long."""
AVERAGED_SHARE = 0.3
"""Share of a training over which the kept average of weights reaches back."""


@dataclass
class _Draft:
    """A plan in the making; every decision leaves its reason."""

    study: Study
    data: Fingerprint
    machine: Machine
    processes: int = 1
    choices: list[Choice] = field(default_factory=list)

    def note(self, what: str, value: object, because: str) -> None:
        self.choices.append(Choice(what=what, value=str(value), because=because))

    def note_setting(self, what: str, name: str, because: str) -> None:
        """Note a number that stands in the study, or its default and why that."""
        train = self.study.train
        said = "asked for" if name in train.model_fields_set else because
        self.note(what, f"{getattr(train, name):g}", said)

    @property
    def seconds(self) -> float:
        minutes = self.study.train.minutes
        return 60 * minutes if minutes else UNLIMITED_SECONDS

    @property
    def gigaflops(self) -> float:
        return GPU_GIGAFLOPS * self.machine.devices if self.machine.devices else CPU_GIGAFLOPS * self.machine.cores

    def peak_mb(self, need: Footprint) -> float:
        """Of the memory that is short: the accelerator's where there is one, else the processor's."""
        return need.device_peak_mb if self.machine.devices else need.peak_mb

    def voxels_per_step(self, features: int) -> float:
        """Voxels that a step may hold, so that the budget holds enough steps."""
        steps = STEPS_IN_A_QUARTER_HOUR * math.sqrt(max(self.seconds, 60.0) / 900)
        return 0.9 * self.seconds * self.gigaflops * 1e9 / (steps * FLOPS_PER_VOXEL * features**2)


@dataclass(frozen=True)
class _Size:
    """What decides memory and time together."""

    network: Part
    patch: Shape
    batch: int
    micro_batch: int


def make_plan(study: Study, data: Fingerprint, machine: Machine, *, processes: int = 1) -> Plan:
    """Decide every number of a training.

    What the study sets is kept. What it leaves open is chosen, and made smaller until the predicted memory fits.

    Args:
        study: what is asked.
        data: numbers of the cases to learn from.
        machine: what one process may use.
        processes: that compute together.

    Raises:
        UsageError: PATCH, when the study's patch does not fit its network.
        ResourceError: PLAN_MEMORY, when no choice that the study leaves open fits below the ceiling.
    """
    draft = _Draft(study, data, machine, processes)
    train = study.train
    ceiling = _ceiling(draft)
    features = _features(draft)
    preprocessing = _preprocessing(draft, features)
    size, need = _fitting(draft, _first_size(draft, features, preprocessing), ceiling)
    predicted = draft.peak_mb(need)
    draft.note(
        "predicted memory", f"{predicted:.0f} MB", f"{need.parameters:,} weights, {need.saved_mb:.0f} MB between the passes"
    )
    steps = _steps(draft, size.batch)
    average = _ema(draft, steps or _expected_steps(draft, need, size))
    augment = _augmentation(draft, preprocessing)
    workers = _steps_are_done(draft, size)
    return Plan(
        preprocessing=preprocessing,
        network=size.network,
        patch=size.patch,
        batch=size.batch,
        micro_batch=size.micro_batch,
        precision=train.precision,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        warm_up=train.warm_up,
        clip_norm=train.clip_norm,
        loader_workers=workers,
        ema=average,
        foreground=train.foreground,
        seed=train.seed,
        augment=augment,
        minutes=train.minutes,
        steps=steps,
        memory_mb=ceiling,
        predicted_memory_mb=round(predicted, 1),
        machine=machine,
        fingerprint=data.digest(),
        choices=tuple(draft.choices),
    )


def ceiling_mb(train: Train, here: Machine) -> tuple[float, str]:
    """The most memory that a training may take on a machine, of the accelerator where it uses one, and why."""
    if train.memory_gb is not None:
        return 1000 * train.memory_gb, "asked for"
    memory_mb = here.device_memory_mb if here.devices else here.memory_mb
    whose = f"of {here.device}" if here.devices else "this process may use"
    return MEMORY_SHARE * memory_mb, f"four fifths of the {memory_mb:.0f} MB {whose}"


def _ceiling(draft: _Draft) -> float:
    ceiling, because = ceiling_mb(draft.study.train, draft.machine)
    draft.note("memory ceiling", f"{ceiling:.0f} MB", because)
    return ceiling


def _features(draft: _Draft) -> int:
    """Width of the first level: the largest whose steps can still hold a batch of sound patches."""
    smallest = min(math.prod(draft.data.shape), 48**3)
    for features in WIDTHS:
        if draft.voxels_per_step(features) >= MIN_BATCH * smallest:
            return features
    return WIDTHS[-1]


def _preprocessing(draft: _Draft, features: int) -> Preprocessing:
    asked = draft.study.preprocess
    if asked is not None:
        draft.note("preprocessing", _said(asked), "asked for")
        return asked
    room = draft.voxels_per_step(features) / MIN_BATCH
    spacing, because = target_spacing(draft.data, room=room)
    draft.note("spacing", "as it is" if spacing is None else " x ".join(f"{mm:g}" for mm in spacing) + " mm", because)
    clip, how, reason = normalisation(draft.data, draft.study.contract)
    draft.note("normalisation", how if clip is None else f"{how}, {clip[0]:g} to {clip[1]:g}", reason)
    return Preprocessing(spacing_mm=spacing, clip=clip, normalise=how)


def _said(asked: Preprocessing) -> str:
    spacing = "spacing as it is" if asked.spacing_mm is None else " x ".join(f"{mm:g}" for mm in asked.spacing_mm) + " mm"
    return f"{asked.normalise}, {spacing}"


def _first_size(draft: _Draft, features: int, preprocessing: Preprocessing) -> _Size:
    train = draft.study.train
    shape, spacing = grid(draft.data, preprocessing)
    room = draft.voxels_per_step(features)
    patch = train.patch or planned_patch(shape, most_voxels=room / MIN_BATCH, spacing=spacing)
    network = draft.study.network
    if network is None:
        kernels, strides = pyramid(patch, spacing)
        plain = all(kernel == (3, 3, 3) for kernel in kernels) and all(stride == (2, 2, 2) for stride in strides[1:])
        kind, reason = norm(draft.study.contract, train, processes=draft.processes)
        shape_of = {"kernels": None if plain else kernels, "strides": None if plain else strides}
        network = DynUNet(features=features, levels=len(strides), norm=kind, **shape_of)
        draft.note("norm", kind, reason)
        draft.note("network", f"dynunet, {features} features, {len(strides)} levels", f"{room:,.0f} voxels fit into a step")
    else:
        draft.note("network", network.part_name, "asked for")
    if train.patch:
        _check_patch(patch, network)
        draft.note("patch", _by(patch), "asked for")
    else:
        patch = rounded(patch, network)
        draft.note("patch", _by(patch), f"a median case is {_by(shape)} voxels")
    if train.batch:
        draft.note("batch", train.batch, "asked for")
    batch = train.batch or _batch(draft, room, patch)
    micro = train.micro_batch or batch
    return _Size(network, patch, batch, micro)


def _batch(draft: _Draft, room: float, patch: Shape) -> int:
    batch = max(MIN_BATCH, min(MOST_BATCH, int(room / math.prod(patch))))
    draft.note("batch", batch, "as many patches as the budget leaves time for")
    return batch


def _fitting(draft: _Draft, size: _Size, ceiling: float) -> tuple[_Size, Footprint]:
    """Make the size smaller until it fits: fewer patches at once first, then a smaller patch, then a narrower network."""
    first = size
    while True:
        need = _need(draft, size)
        if draft.peak_mb(need) <= SAFETY * ceiling:
            if size != first:
                said = f"dynunet {_width(size)}, patch {_by(size.patch)}, {size.micro_batch} of {size.batch} patches at once"
                draft.note("made smaller", said, f"{ceiling:.0f} MB of memory")
            return size, need
        smaller = _smaller(draft, size)
        if smaller is None:
            raise ResourceError(
                f"This training would need {draft.peak_mb(need):.0f} MB of memory with patches of"
                f" {_by(size.patch)} voxels, and {ceiling:.0f} MB are allowed; give train.memory_gb more, or leave the network"
                " and train.patch to the plan.",
                code="PLAN_MEMORY",
            )
        size = smaller


def _need(draft: _Draft, size: _Size) -> Footprint:
    task = cast("Task", draft.study.task)
    channels = (draft.data.channels, task.out_channels(draft.study.contract))
    try:
        # "auto" is not settled yet, and may take more; on an accelerator autocast keeps norms in float32
        reduced = draft.study.train.precision == "bf16" and not draft.machine.devices
        return footprint(
            size.network, draft.study.task, channels=channels, patch=size.patch, micro_batch=size.micro_batch, reduced=reduced
        )
    except RuntimeError as error:
        raise UsageError(
            f"The network does not take patches of {_by(size.patch)} voxels; choose another train.patch.", code="PATCH"
        ) from error


def _smaller(draft: _Draft, size: _Size) -> _Size | None:
    train = draft.study.train
    fewer = _largest_divisor(size.batch, below=size.micro_batch)
    if train.micro_batch is None and fewer >= least_patches(size.network):
        return replace(size, micro_batch=fewer)
    steps = divisors(size.network)
    axis = max(range(3), key=lambda at: size.patch[at] / steps[at])
    if train.patch is None and size.patch[axis] // steps[axis] > 2:
        patch = tuple(side - steps[at] * (at == axis) for at, side in enumerate(size.patch))
        return replace(size, patch=(patch[0], patch[1], patch[2]))
    narrower = [width for width in WIDTHS if width < _width(size)]
    if draft.study.network is None and narrower:
        return replace(size, network=size.network.model_copy(update={"features": narrower[0]}))
    return None


def _width(size: _Size) -> int:
    return int(getattr(size.network, "features", 0))


def _largest_divisor(number: int, *, below: int) -> int:
    return next((part for part in range(below - 1, 0, -1) if number % part == 0), 0)


def _steps(draft: _Draft, batch: int) -> int | None:
    train = draft.study.train
    if train.epochs is None:
        return train.steps
    steps = math.ceil(train.epochs * draft.data.cases / batch)
    draft.note("steps", steps, f"{train.epochs} times {draft.data.cases} cases, {batch} at a time")
    return steps


def _steps_are_done(draft: _Draft, size: _Size) -> int:
    """Note how steps are done: what stands in the study or has a default; returns how many processes make their batches."""
    train = draft.study.train
    at_once = "asked for" if train.micro_batch else "the whole batch" if size.micro_batch == size.batch else "what memory holds"
    draft.note("patches at once", size.micro_batch, at_once)
    usual = "timed before the first step" if train.precision == "auto" else "asked for"
    repeats = train.precision == "auto" and train.deterministic
    draft.note("precision", "fp32" if repeats else train.precision, "it has to repeat to the bit" if repeats else usual)
    if train.compile != "off":
        draft.note("compile", train.compile, "asked for" if train.compile == "on" else "decided before the first step")
    draft.note_setting("learning rate", "learning_rate", "the default for AdamW; it rises, then falls along a cosine")
    draft.note_setting("warm-up", "warm_up", "the default share of the steps")
    draft.note_setting("weight decay", "weight_decay", "the default for AdamW")
    draft.note_setting("gradient clipping", "clip_norm", "the default, as in nnU-Net")
    draft.note_setting("foreground", "foreground", "the default share of patches that are centred on a structure")
    workers, because = loaders_of(draft.machine)
    draft.note("loader processes", workers, because)
    return workers


def _augmentation(draft: _Draft, preprocessing: Preprocessing) -> Augmentation:
    chosen, because = augmentation(draft.study.train.augment, draft.data, preprocessing)
    moved = f"rotation {chosen.rotate_degrees:g} degrees, scale {chosen.scale:g}"
    asked = "asked for" if "augment" in draft.study.train.model_fields_set else "the default"
    draft.note("augmentation", f"{moved}, noise {chosen.noise:g}, brightness {chosen.brightness:g}", because or asked)
    return chosen


def _expected_steps(draft: _Draft, need: Footprint, size: _Size) -> int:
    seconds = need.gigaflops * size.batch / size.micro_batch / draft.gigaflops
    return max(1, int(0.9 * draft.seconds / seconds))


def _ema(draft: _Draft, steps: int) -> float:
    asked = draft.study.train.ema
    if asked is not None:
        draft.note("average of weights", asked, "asked for")
        return asked
    ema = round(min(0.9995, max(0.9, 1 - 1 / max(1.0, AVERAGED_SHARE * steps))), 4)
    draft.note("average of weights", ema, f"reaches back over a third of about {steps} steps")
    return ema


def rounded(patch: Shape, network: Part) -> Shape:
    """The patch with each side at the nearest multiple that the network takes, and no side without one."""
    i, j, k = (max(step, round(side / step) * step) for side, step in zip(patch, divisors(network), strict=True))
    return i, j, k


def _check_patch(patch: Shape, network: Part) -> None:
    needed = divisors(network)
    if any(side % step for side, step in zip(patch, needed, strict=True)):
        each = _by(needed) if len(set(needed)) > 1 else str(needed[0])
        raise UsageError(f"train.patch is {patch}; this network needs each side to be a multiple of {each}.", code="PATCH")


def _by(shape: Shape) -> str:
    return " x ".join(str(side) for side in shape)
