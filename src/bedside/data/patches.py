"""Patches for training: drawn, augmented, and repeatable.

All chance comes from a generator made of (seed, step), so a step's batch does not depend on what ran before it: resuming needs
no sampler state, and the same step gives the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bedside.core.config import Augmentation
from bedside.core.labels import FIRST_CODE, UNANNOTATED

Patch = tuple[int, int, int]
THIN = 3.0
_STILL = np.eye(3, 4, dtype=np.float32)
_FLIPPED = np.diag(np.array([1, 1, -1], dtype=np.float32)) @ _STILL


@dataclass(frozen=True, eq=False)
class Example:
    """One prepared training case.

    Attributes:
        image: (C, I, J, K) float32, may be a memory map.
        label: (I, J, K) training ids.
        foreground: (N, 4) structures and positions of labelled voxels as `find_foreground` gives them; N may be 0.
        id: of the case, a pseudonym; folder: where its arrays lie, None for arrays in memory.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    foreground: NDArray[np.int32]
    id: str = ""
    folder: Path | None = None


def open_example(folder: Path, case: str = "") -> Example:
    """Open a prepared case as memory maps; `case` is its pseudonym, for who wants to name it."""
    image, label, foreground = (
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("image", "label", "foreground")
    )
    return Example(image, label, foreground, case, folder)


def find_foreground(label: NDArray[np.uint8], *, most: int = 20_000) -> NDArray[np.int32]:
    """Training ids and positions of labelled voxels, (N, 4), sorted by id; each structure is thinned to its share of `most`.

    Voxels that were not or only partly annotated are none. Where some were not annotated at all, the annotated background is a
    structure too, so that every patch of a sparsely annotated case can hold something to learn from.
    """
    flat = np.asarray(label).ravel()
    plain = flat < FIRST_CODE
    wanted = np.flatnonzero(plain if (flat == UNANNOTATED).any() else plain & (flat > 0))
    order = np.argsort(flat[wanted], kind="stable")
    ids, firsts = np.unique(flat[wanted[order]], return_index=True)
    groups = np.split(wanted[order], firsts[1:]) if len(ids) else []
    thinned = [group[:: max(1, -(-len(group) * len(ids) // most))] for group in groups]
    rows = [np.column_stack([flat[group], *np.unravel_index(group, label.shape)]) for group in thinned]
    return np.concatenate(rows).astype(np.int32) if rows else np.zeros((0, 4), dtype=np.int32)


@dataclass(frozen=True)
class PatchSampler:
    """Draws the batch of a step: every case once per epoch in a seeded order, each with a patch of it.

    Attributes:
        examples: the training cases.
        patch: (I, J, K); a case smaller than this is padded with its edge values.
        batch: patches per step.
        foreground: chance that a patch is centred on a labelled voxel: of a structure drawn from those of the case, so that
            rare and small ones are seen as often as others. In a sparsely annotated case every patch is.
        seed: of everything drawn.
    """

    examples: Sequence[Example]
    patch: Patch
    batch: int
    foreground: float
    seed: int

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, I, J, K) float32 and labels (B, I, J, K) uint8 of a step (counted from 0)."""
        rng = np.random.default_rng((self.seed, step, 1))
        pairs = [self._cut(self.examples[index], rng) for index in self._indices(step)]
        images = torch.from_numpy(np.stack([image for image, _ in pairs]))
        return images, torch.from_numpy(np.stack([label for _, label in pairs]))

    def cases(self, step: int) -> tuple[str, ...]:
        """The pseudonyms of the cases in the batch of a step, patch by patch."""
        return tuple(self.examples[index].id for index in self._indices(step))

    def _indices(self, step: int) -> list[int]:
        count = len(self.examples)
        positions = range(step * self.batch, (step + 1) * self.batch)
        orders = {at // count: np.random.default_rng((self.seed, at // count, 2)).permutation(count) for at in positions}
        return [int(orders[at // count][at % count]) for at in positions]

    def _cut(self, example: Example, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        size = np.array(example.label.shape)
        patch = np.array(self.patch)
        room = np.maximum(size - patch, 0)
        start = rng.integers(0, room + 1)
        rows = example.foreground
        if len(rows) and (rng.random() < self.foreground or rows[0, 0] == 0):
            start = np.clip(_drawn(rows, rng) - patch // 2, 0, room)
        cut = tuple(slice(int(a), int(min(a + p, n))) for a, p, n in zip(start, patch, size, strict=True))
        lack = np.maximum(patch - size, 0)
        pad = [(int(n // 2), int(n - n // 2)) for n in lack]
        image = np.pad(example.image[(slice(None), *cut)], [(0, 0), *pad], mode="edge")
        return image, np.pad(example.label[cut], pad, mode="edge")


def _drawn(rows: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """The position of a voxel: first its structure is drawn, then the voxel."""
    firsts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    at = rng.integers(len(firsts))
    return np.asarray(rows[rng.integers(firsts[at], np.append(firsts, len(rows))[at + 1]), 1:])


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to each patch of one batch; drawn by `draw_changes`, applied by `augment`.

    Attributes:
        affine: (B, 3, 4) in the patch's -1..1 coordinates, or None.
        noise: (B,) standard deviation; scale: (B,) and shift: (B,) of intensity; gamma: (B,); blur: (B,) voxels.
        seed: of the noise values; passed_over: (B,) how many noisy patches, which others make, come before each; None: none.
    """

    affine: NDArray[np.float32] | None
    noise: NDArray[np.float32]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    gamma: NDArray[np.float32]
    blur: NDArray[np.float32]
    seed: int
    passed_over: NDArray[np.int64] | None = None

    def of(self, rows: list[int]) -> "Changes":
        """The changes of some patches of the batch, in ascending order."""
        noisy = np.concatenate([[0], np.cumsum(self.noise > 0)])
        starts = [0, *(row + 1 for row in rows[:-1])]
        kept = {name: getattr(self, name)[rows] for name in ("noise", "scale", "shift", "gamma", "blur")}
        affine = None if self.affine is None else self.affine[rows]
        return Changes(affine=affine, **kept, seed=self.seed, passed_over=noisy[rows] - noisy[starts])


def draw_changes(settings: Augmentation, batch: int, patch: Patch, rng: np.random.Generator) -> Changes:
    """Draw the changes of one batch. All chance is here; `augment` only applies."""

    def sometimes(values: NDArray[np.float64], otherwise: float) -> NDArray[np.float32]:
        return np.where(rng.random(batch) < settings.probability, values, otherwise).astype(np.float32)

    noise, brightness = settings.amounts()
    return Changes(
        affine=_draw_affine(settings, batch, patch, rng),
        noise=sometimes(rng.uniform(0, 1, batch) * noise, 0.0),
        scale=sometimes(1 + rng.uniform(-1, 1, batch) * settings.contrast, 1.0),
        shift=sometimes(rng.uniform(-1, 1, batch) * brightness, 0.0),
        gamma=sometimes(np.exp(rng.uniform(-1, 1, batch) * settings.gamma), 1.0),
        blur=sometimes(rng.uniform(0, 1, batch) * settings.blur, 0.0),
        seed=int(rng.integers(1 << 62)),
    )


def _draw_affine(settings: Augmentation, batch: int, patch: Patch, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """Rotation about the three axes, isotropic scaling, flip of the first axis, shift; in voxels, then in -1..1 units.

    A patch is turned only within planes that it fills: where one side is over three times the other, as in 2-D patches, a turn
    would leave the patch (the rule of nnU-Net).
    """
    if not (settings.rotate_degrees or settings.scale or settings.translate or settings.flip):
        return None
    half = np.array(patch, dtype=np.float64)[::-1] / 2
    planes = [np.delete(half, axis) for axis in range(3)]
    turns = np.array([max(plane) <= THIN * min(plane) for plane in planes])
    result = np.zeros((batch, 3, 4))
    for item in range(batch):
        matrix, shift = np.eye(3), np.zeros(3)
        if rng.random() < settings.space:
            matrix = _rotation(rng.uniform(-1, 1, 3) * turns * np.deg2rad(settings.rotate_degrees))
            matrix *= 1 + rng.uniform(-1, 1) * settings.scale
            shift = rng.uniform(-1, 1, 3) * settings.translate * 2
        if settings.flip and rng.random() < 0.5:
            matrix[:, 2] *= -1  # torch orders coordinates (k, j, i): the first voxel axis comes last
        result[item, :, :3] = matrix * half[np.newaxis, :] / half[:, np.newaxis]
        result[item, :, 3] = shift
    return result.astype(np.float32)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of the rotations about the three axes, (3, 3)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def augment(images: torch.Tensor, labels: torch.Tensor, changes: Changes) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply the changes to images (B, C, I, J, K) float32 and labels (B, I, J, K) uint8; space first, then intensity."""
    if changes.affine is not None:
        images, labels = _moved(images, labels, changes.affine)
    return _change_intensity(images, changes), labels


def _moved(images: torch.Tensor, labels: torch.Tensor, affine: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate only the patches that are turned, scaled or shifted; one that is flipped or still keeps its values exactly."""
    images, labels = images.clone(), labels.clone()
    still, flipped = ((affine == move).all((1, 2)) for move in (_STILL, _FLIPPED))
    only_flipped, other = torch.from_numpy(np.flatnonzero(flipped)), torch.from_numpy(np.flatnonzero(~(still | flipped)))
    if len(only_flipped):
        images[only_flipped], labels[only_flipped] = images[only_flipped].flip(2), labels[only_flipped].flip(1)
    if len(other):
        some, truth = images[other], labels[other, None].float()
        grid = functional.affine_grid(torch.from_numpy(affine)[other], list(some.shape), align_corners=False)
        images[other] = functional.grid_sample(some, grid, mode="bilinear", padding_mode="border", align_corners=False)
        found = functional.grid_sample(truth, grid, mode="nearest", padding_mode="border", align_corners=False)
        labels[other] = found[:, 0].to(labels.dtype)
    return images, labels


def _change_intensity(images: torch.Tensor, changes: Changes) -> torch.Tensor:
    generator = torch.Generator().manual_seed(changes.seed)
    result = torch.empty_like(images)
    for index, image in enumerate(images):
        for _ in range(0 if changes.passed_over is None else int(changes.passed_over[index])):
            torch.randn(image.shape, generator=generator)
        patch = result[index].copy_(_blurred(image, float(changes.blur[index])))
        if changes.gamma[index] != 1.0:
            low, high = patch.min(), patch.max()
            span = (high - low).clamp_min(1e-6)
            patch.sub_(low).div_(span).pow_(float(changes.gamma[index])).mul_(span).add_(low)
        if changes.scale[index] != 1.0 or changes.shift[index] != 0.0:
            patch.mul_(float(changes.scale[index])).add_(float(changes.shift[index]))
        if changes.noise[index] > 0:
            patch.add_(torch.randn(patch.shape, generator=generator), alpha=float(changes.noise[index]))
    return result


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (C, I, J, K), separable, radius 2 voxels; below 0.2 voxels nothing would change."""
    if sigma < 0.2:
        return image
    offsets = torch.arange(-2, 3, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    result = image[:, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 5
        pad = [0, 0, 0, 0, 0, 0]
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = 2
        result = functional.conv3d(functional.pad(result, pad, mode="replicate"), kernel.reshape(shape))
    return result[:, 0]
