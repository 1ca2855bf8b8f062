import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label

from bedside.core.errors import UsageError
from bedside.data.phantom import HU_LIMITS, SCANNERS, STRUCTURES, analytic, cohort, patient

COHORT = tuple(cohort(12, seed=3))


def test_index_and_seed_determine_every_voxel():
    again = patient(5, 3)
    assert np.array_equal(again.image.array, COHORT[5].image.array)
    assert np.array_equal(again.label.array, COHORT[5].label.array)
    assert np.array_equal(again.image.affine, COHORT[5].image.affine)
    assert not np.array_equal(patient(5, 4).image.array, again.image.array)


def test_no_two_patients_of_a_cohort_are_alike():
    images = {phantom.image.array.tobytes() for phantom in COHORT}
    masks = {phantom.label.array.tobytes() for phantom in COHORT}
    assert len(images) == len(masks) == len({phantom.name for phantom in COHORT}) == len(COHORT)


def test_a_smaller_cohort_is_the_beginning_of_a_larger_one():
    first = next(iter(cohort(2, seed=3)))
    assert np.array_equal(first.image.array, COHORT[0].image.array)


def test_a_cohort_needs_a_patient():
    with pytest.raises(UsageError, match="at least one patient"):
        cohort(0, seed=1)


def test_images_are_hounsfield_units_in_16_bits_and_masks_hold_the_three_codes():
    for phantom in COHORT:
        image, mask = phantom.image.array, phantom.label.array
        assert image.dtype == np.int16
        assert mask.dtype == np.uint8
        assert image.shape == mask.shape
        assert image.min() >= HU_LIMITS[0]
        assert image.max() <= HU_LIMITS[1]
        assert set(np.unique(mask)) == set(STRUCTURES.values())


def test_each_tissue_has_its_own_hounsfield_range():
    for phantom in COHORT:
        image, mask = phantom.image.array[0], phantom.label.array[0]
        deep = {name: binary_erosion(mask == code) for name, code in STRUCTURES.items()}
        marrow = np.median(image[deep["cancellous_bone"]])
        shell = np.percentile(image[mask == STRUCTURES["cortical_bone"]], 75)
        assert 200 < marrow < 450
        assert 750 < shell < 1500
        corner = image[:4, :4]
        assert abs(np.median(corner) + 1000) < 20
        assert 0.1 < np.mean(image[mask == 0] > -200) < 0.8


def test_the_cortical_shell_is_at_least_two_voxels_thick_and_closed():
    """What a small network can learn at this size: the marrow never touches the muscle."""
    for phantom in COHORT:
        mask = phantom.label.array[0]
        step_mm = max(phantom.scanner.spacing_mm[:2])
        assert all(bone.shell_mm >= 2 * step_mm for bone in phantom.anatomy.bones)
        marrow = mask == STRUCTURES["cancellous_bone"]
        assert marrow.any(axis=(0, 1)).all()
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            assert not (np.roll(marrow, shift, axis) & (mask == 0)).any()


def test_bones_are_one_or_two_and_do_not_touch():
    counts = set()
    for phantom in COHORT:
        found = label(phantom.label.array[0] > 0)[1]
        assert found == len(phantom.anatomy.bones)
        counts.add(found)
    assert counts == {1, 2}


def test_bones_lie_inside_the_muscle():
    for phantom in COHORT:
        bone = phantom.label.array[0] > 0
        assert not bone[[0, 1, -2, -1]].any()
        assert not bone[:, [0, 1, -2, -1]].any()
        near = np.zeros_like(bone)
        for axis, shift in ((0, 2), (0, -2), (1, 2), (1, -2)):
            near |= np.roll(bone, shift, axis)
        assert np.median(phantom.image.array[0][near & ~bone]) > -30


def test_the_two_scanners_differ_in_spacing_noise_and_sharpness():
    by_scanner = {scanner.name: [p for p in COHORT if p.scanner is scanner] for scanner in SCANNERS}
    assert all(len(phantoms) == 6 for phantoms in by_scanner.values())
    noise = {name: np.mean([p.image.array[0, :6, :6].std() for p in phantoms]) for name, phantoms in by_scanner.items()}
    sharp, smooth = (scanner.name for scanner in SCANNERS)
    # -1024 cuts off part of the air's noise, equally in both.
    assert noise[sharp] > 1.3 * noise[smooth]
    edges = {
        name: np.mean([np.abs(np.diff(p.image.array[0].astype(float), axis=0)).max(axis=0).mean() for p in phantoms])
        for name, phantoms in by_scanner.items()
    }
    assert edges[sharp] > 1.1 * edges[smooth]
    assert {tuple(np.round(p.image.spacing_mm, 6)) for p in COHORT} == {scanner.spacing_mm for scanner in SCANNERS}


def test_values_of_the_analytic_volume_tell_where_they_lie():
    turn = np.array([[0, -2.0, 0, 5], [1.5, 0, 0.3, -7], [0, 0, 4, 11], [0, 0, 0, 1]])
    x, y, z = (analytic(turn, (3, 4, 5), per_mm=axis).array[0] for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    for voxel in np.ndindex(3, 4, 5):
        assert np.allclose((turn @ [*voxel, 1])[:3], [x[voxel], y[voxel], z[voxel]])
