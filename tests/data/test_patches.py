"""Claims about patches: repeatable, aligned, within the volume."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.core.config import Augmentation
from bedside.core.labels import UNANNOTATED
from bedside.data.patches import Changes, Example, PatchSampler, augment, draw_changes, find_foreground

sides = st.integers(3, 12)


def example(shape, seed=0) -> Example:
    label = (np.random.default_rng(seed).random(shape) > 0.7).astype(np.uint8)
    return Example(label[None].astype(np.float32) * 10, label, find_foreground(label))


@given(shape=st.tuples(sides, sides, sides), patch=st.tuples(sides, sides, sides), step=st.integers(0, 50))
def test_image_and_label_are_cut_at_one_place_whatever_the_sizes(shape, patch, step):
    sampler = PatchSampler([example(shape, 1), example(shape, 2)], patch, 3, 0.5, 0)
    images, labels = sampler.draw(step)
    assert images.shape == (3, 1, *patch)
    assert torch.equal(images[:, 0] / 10, labels.float())
    again, _ = sampler.draw(step)
    assert torch.equal(images, again)


def test_every_case_is_seen_once_per_epoch():
    examples = [
        Example(np.full((1, 4, 4, 4), float(i), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.int32))
        for i in range(7)
    ]
    sampler = PatchSampler(examples, (4, 4, 4), 7, 0.5, 3)
    for epoch in range(3):
        images, _ = sampler.draw(epoch)
        assert sorted(images[:, 0, 0, 0, 0].tolist()) == [0, 1, 2, 3, 4, 5, 6]


def test_foreground_patches_hold_foreground():
    label = np.zeros((40, 40, 40), np.uint8)
    label[30, 7, 21] = 1
    one = Example(label[None].astype(np.float32), label, find_foreground(label))
    _, labels = PatchSampler([one], (8, 8, 8), 16, 1.0, 0).draw(0)
    assert (labels.reshape(16, -1).sum(1) == 1).all()


def test_foreground_is_thinned_evenly_and_never_beyond_its_limit():
    found = find_foreground(np.ones((30, 30, 30), np.uint8), most=100)
    assert 50 < len(found) <= 100
    assert found[:, 1].max() - found[:, 1].min() > 20


def test_every_structure_is_drawn_as_often_however_small_it_is():
    label = np.zeros((40, 40, 40), np.uint8)
    label[:20, :, :] = 1
    label[38, 38, 38] = 2
    found = find_foreground(label)
    assert {1, 2} == set(found[:, 0])
    assert all(label[tuple(at)] == id for id, *at in found)
    sampler = PatchSampler([Example(label[None].astype(np.float32), label, found)], (4, 4, 4), 64, 1.0, 0)
    held = (sampler.draw(0)[1] == 2).flatten(1).any(1).sum()
    assert 20 < held < 44


@given(label=arrays(np.uint8, (4, 5, 3), elements=st.sampled_from([0, 1, 7, 250, UNANNOTATED])))
def test_foreground_is_what_was_annotated_and_no_background_unless_some_voxels_were_not(label):
    found = find_foreground(label)
    sparse = (label == UNANNOTATED).any()
    assert set(found[:, 0]) == {id for id in np.unique(label) if id < 250 and (sparse or id > 0)}
    assert (np.diff(found[:, 0]) >= 0).all()
    assert len(found) == np.isin(label, found[:, 0]).sum()


def test_every_patch_of_a_sparsely_annotated_case_holds_an_annotated_voxel():
    label = np.full((40, 40, 40), UNANNOTATED, np.uint8)
    label[3, 30, 8] = 0
    label[33, 3, 17] = 1
    one = Example(label[None].astype(np.float32), label, find_foreground(label))
    _, labels = PatchSampler([one], (8, 8, 8), 16, 0.0, 0).draw(0)
    assert (labels != UNANNOTATED).flatten(1).any(1).all()


def test_a_thin_patch_is_turned_only_within_its_plane():
    images = torch.randn(8, 1, 24, 24, 1, generator=torch.Generator().manual_seed(0))
    settings = Augmentation(probability=0, space=1, rotate_degrees=90, scale=0, translate=0, flip=False)
    changes = draw_changes(settings, 8, (24, 24, 1), np.random.default_rng(0))
    np.testing.assert_allclose(changes.affine[:, 0], np.tile([1, 0, 0, 0], (8, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(changes.affine[:, 1:, 1:3]), 1, atol=1e-5)
    moved, _ = augment(images, torch.zeros(8, 24, 24, 1, dtype=torch.uint8), changes)
    assert not torch.allclose(moved, images)


def test_space_moves_image_and_label_together():
    grid = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"))
    label = (((grid - 11.5) ** 2 / np.array([36, 16, 64])[:, None, None, None]).sum(0) < 1).astype(np.uint8)
    images = torch.from_numpy(np.stack([label[None].astype(np.float32)] * 8))
    labels = torch.from_numpy(np.stack([label] * 8))
    changes = draw_changes(Augmentation(probability=0, space=1), 8, (24, 24, 24), np.random.default_rng(1))
    moved, moved_labels = augment(images, labels, changes)
    assert not torch.equal(moved_labels, labels)
    overlap = ((moved[:, 0] > 0.5) & (moved_labels == 1)).sum() * 2 / ((moved[:, 0] > 0.5).sum() + (moved_labels == 1).sum())
    assert overlap > 0.95


def test_a_flip_is_along_the_first_voxel_axis():
    images = torch.arange(4.0).reshape(1, 1, 4, 1, 1).expand(1, 1, 4, 4, 4).contiguous()
    flip = np.array([[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]]], dtype=np.float32)
    still = np.zeros(1, np.float32)
    changes = Changes(flip, still, still + 1, still, still + 1, still, 0)
    moved, _ = augment(images, torch.zeros(1, 4, 4, 4, dtype=torch.uint8), changes)
    assert torch.equal(moved, images.flip(2))


@pytest.mark.parametrize("field", ["noise", "scale", "shift", "gamma", "blur"])
def test_each_intensity_change_changes_the_image_and_not_the_label(field):
    still = {"noise": 0.0, "scale": 1.0, "shift": 0.0, "gamma": 1.0, "blur": 0.0}
    values = {name: np.array([value if name != field else value + 0.6], np.float32) for name, value in still.items()}
    changes = Changes(affine=None, seed=1, **values)
    images = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(1, 8, 8, 8, dtype=torch.uint8)
    changed, same = augment(images, labels, changes)
    assert not torch.allclose(changed, images, atol=1e-3)
    assert torch.isfinite(changed).all()
    assert torch.equal(same, labels)


def test_patches_that_are_not_moved_keep_their_values_exactly():
    images = torch.randn(16, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(16, 8, 8, 8, dtype=torch.uint8)
    changes = draw_changes(Augmentation(probability=0, space=0.5, flip=False), 16, (8, 8, 8), np.random.default_rng(2))
    moved, _ = augment(images, labels, changes)
    kept = [torch.equal(a, b) for a, b in zip(moved, images, strict=True)]
    assert 3 < sum(kept) < 13
