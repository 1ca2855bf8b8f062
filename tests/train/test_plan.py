"""Claims about plans: what is asked is kept, what is open is chosen by the data, the budget and the machine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.config import Augmentation, Study
from bedside.core.errors import ResourceError, UsageError
from bedside.core.model import Preprocessing
from bedside.core.plan import Fingerprint, Machine, Plan
from bedside.train.plan import make_plan
from bedside.train.plan_rules import grid, normalisation, planned_patch, pyramid, target_spacing

MACHINE = Machine(cores=2, memory_mb=8000.0)
CROPS = Fingerprint(
    cases=159,
    channels=1,
    modality="MR",
    spacing_mm=(1.0, 1.0, 1.0),
    fine_spacing_mm=(1.0, 1.0, 1.0),
    same_spacing=True,
    extent_mm=(35.0, 51.0, 36.0),
    shape=(35, 51, 36),
    largest_voxels=100_000,
    structures=2,
    smallest_ml=1.6,
    foreground_share=0.05,
    values=(10.0, 50.0, 90.0),
)
TRUNKS = CROPS.model_copy(
    update={
        "cases": 12,
        "modality": "CT",
        "spacing_mm": (0.8, 0.8, 2.0),
        "fine_spacing_mm": (0.7, 0.7, 1.0),
        "same_spacing": False,
        "extent_mm": (400.0, 400.0, 400.0),
        "shape": (500, 500, 200),
        "largest_voxels": 80_000_000,
        "smallest_ml": 20.0,
        "values": (-60.0, 240.0, 1240.0),
    }
)
THICK = CROPS.model_copy(
    update={
        "spacing_mm": (0.6, 0.6, 5.0),
        "fine_spacing_mm": (0.5, 0.5, 4.0),
        "extent_mm": (192.0, 192.0, 100.0),
        "shape": (320, 320, 20),
    }
)


def study(**train: object) -> Study:
    contract = {"modality": "CT", "spacing_mm": [0.2, 9.0], "unit": "HU", "labels": {"background": 0, "bone": 1}}
    rest = {key: train.pop(key) for key in ("preprocess", "network") if key in train}
    return Study.model_validate(
        {
            "study": "any",
            "contract": contract,
            "task": {"name": "segmentation"},
            "train": train or {"minutes": 15},
            "promote": {"gates": [{"name": "provenance"}]},
            "accelerate": {"stages": [{"name": "onnxruntime"}]},
            **rest,
        }
    )


def test_small_crops_get_one_patch_that_is_a_whole_crop():
    plan = make_plan(study(minutes=15), CROPS, MACHINE)
    assert plan.patch == (32, 48, 32)
    assert plan.batch >= 2
    assert plan.preprocessing.spacing_mm is None


def test_large_fields_get_a_coarser_grid_but_never_finer_than_the_smallest_structure_needs():
    plan = make_plan(study(minutes=15), TRUNKS, MACHINE)
    spacing = plan.preprocessing.spacing_mm
    assert spacing is not None
    assert min(spacing) > 0.8
    diameter = 2 * (3 * 20_000 / (4 * math.pi)) ** (1 / 3)
    assert max(spacing) <= max(2.0, diameter / 6) + 1e-3


def test_a_thick_axis_keeps_its_voxels_and_kernels_do_not_reach_along_it_at_first():
    plan = make_plan(study(minutes=15), THICK, MACHINE)
    settings = plan.network.settings()
    assert settings["kernels"][0][2] == 1
    assert settings["strides"][1][2] == 1
    assert plan.patch[0] > plan.patch[2]


def test_calibrated_values_keep_their_scale_and_others_are_scaled_by_case():
    assert normalisation(TRUNKS, study().contract)[1] == "clip"
    low, high = normalisation(TRUNKS, study().contract)[0]
    assert low < -60 < 1240 < high
    assert normalisation(CROPS, study().contract.model_copy(update={"unit": "arbitrary"}))[:2] == (None, "zscore")


def test_absolute_values_stay_visible_where_they_are_calibrated():
    calibrated, arbitrary = study(minutes=15), study(minutes=15)
    arbitrary = arbitrary.model_copy(update={"contract": arbitrary.contract.model_copy(update={"unit": "arbitrary"})})
    assert make_plan(calibrated, TRUNKS, MACHINE).network.settings()["norm"] == "batch"
    assert make_plan(arbitrary, CROPS, MACHINE).network.settings()["norm"] == "instance"
    assert make_plan(calibrated, TRUNKS, MACHINE, processes=2).network.settings()["norm"] == "instance"
    asked = study(minutes=15, network={"name": "dynunet", "norm": "instance"})
    assert make_plan(asked, TRUNKS, MACHINE).network.settings()["norm"] == "instance"


def test_noise_and_brightness_are_as_large_beside_the_values_whatever_their_unit():
    plan = make_plan(study(minutes=15), TRUNKS, MACHINE)
    low, high = plan.preprocessing.clip
    spread_hu = 1300 / 5.15
    for name in ("noise", "brightness"):
        hu = getattr(plan.augment, name) * (high - low) / 2
        assert hu == pytest.approx(0.1 * spread_hu, rel=0.02)
    assert plan.augment.contrast == Augmentation().contrast
    asked = make_plan(study(minutes=15, augment={"noise": 0.1}), TRUNKS, MACHINE)
    assert asked.augment.noise == 0.1
    assert asked.augment.brightness == plan.augment.brightness
    scored = make_plan(study(minutes=15, preprocess={"normalise": "zscore"}), TRUNKS, MACHINE)
    assert (scored.augment.noise, scored.augment.brightness) == (0.1, 0.1)


def test_noise_that_is_asked_for_is_another_training_than_noise_that_is_left_open():
    left_open, asked = study(steps=5), study(steps=5, augment={"noise": 0.1, "brightness": 0.1})
    assert left_open.digest() != asked.digest()
    again = Study.model_validate(left_open.model_dump(mode="json"))
    assert make_plan(again, TRUNKS, MACHINE).augment == make_plan(left_open, TRUNKS, MACHINE).augment


@pytest.mark.parametrize("value", [0.0, 30.0, 50.0])
def test_structures_of_one_value_can_be_planned_for(value):
    plan = make_plan(study(steps=5), TRUNKS.model_copy(update={"values": (value, value, value)}), MACHINE)
    low, high = plan.preprocessing.clip
    assert low < value < high
    assert plan.augment.noise == 0.1


@pytest.mark.parametrize("asked", [{"batch": 1}, {"batch": 4, "micro_batch": 1}])
def test_one_patch_at_a_time_is_no_batch_for_a_norm(asked):
    assert make_plan(study(steps=5, **asked), TRUNKS, MACHINE).network.settings()["norm"] == "instance"


def test_a_plan_for_little_memory_keeps_two_patches_for_a_batch_norm():
    plan = make_plan(study(minutes=15), TRUNKS, Machine(cores=8, memory_mb=1600.0))
    assert any(choice.what == "made smaller" for choice in plan.choices)
    assert plan.network.settings()["norm"] == "batch"
    assert plan.micro_batch >= 2


def test_what_the_study_asks_for_is_kept_to_the_letter():
    asked = study(
        steps=7,
        patch=[24, 32, 16],
        batch=5,
        micro_batch=5,
        ema=0.9,
        memory_gb=3.0,
        network={"name": "unet", "features": 5, "levels": 3},
        preprocess={"spacing_mm": [2, 2, 2], "normalise": "zscore"},
    )
    plan = make_plan(asked, CROPS, MACHINE)
    assert (plan.patch, plan.batch, plan.micro_batch, plan.ema, plan.steps) == ((24, 32, 16), 5, 5, 0.9, 7)
    assert plan.network == asked.network
    assert plan.preprocessing == Preprocessing(spacing_mm=(2, 2, 2))
    assert plan.memory_mb == 3000


def test_the_same_data_and_machine_give_the_same_plan_and_every_choice_says_why():
    first, second = make_plan(study(), TRUNKS, MACHINE), make_plan(study(), TRUNKS, MACHINE)
    assert first.digest() == second.digest()
    assert Plan.model_validate_json(first.model_dump_json()) == first
    assert {"spacing", "normalisation", "network", "patch", "batch"} <= {choice.what for choice in first.choices}
    assert {"patches at once", "precision", "learning rate", "warm-up", "weight decay", "gradient clipping", "foreground"} <= {
        choice.what for choice in first.choices
    }
    assert {"augmentation", "average of weights", "loader processes"} <= {choice.what for choice in first.choices}
    assert all(choice.because for choice in first.choices)


def test_less_memory_gives_fewer_patches_at_once_with_the_same_effective_batch():
    roomy = make_plan(study(minutes=60, batch=4), TRUNKS, MACHINE)
    tight = make_plan(study(minutes=60, batch=4, memory_gb=(roomy.predicted_memory_mb - 60) / 1000), TRUNKS, MACHINE)
    assert tight.batch == roomy.batch
    assert tight.micro_batch < roomy.micro_batch
    assert tight.predicted_memory_mb <= tight.memory_mb


def test_a_plan_that_cannot_fit_is_refused_with_both_numbers():
    with pytest.raises(ResourceError, match=r"would need \d+ MB .* 300 MB are allowed") as caught:
        make_plan(study(minutes=15, memory_gb=0.3), CROPS, MACHINE)
    assert caught.value.code == "PLAN_MEMORY"


def test_numbers_that_the_study_fixed_are_refused_rather_than_changed():
    asked = study(
        minutes=15, memory_gb=0.8, patch=[96, 96, 96], batch=2, micro_batch=2, network={"name": "dynunet", "features": 32}
    )
    with pytest.raises(ResourceError, match="would need"):
        make_plan(asked, TRUNKS, MACHINE)


def test_a_patch_that_the_network_cannot_take_is_named():
    with pytest.raises(UsageError, match="multiple of 8"):
        make_plan(study(steps=3, patch=[30, 32, 32], network={"name": "dynunet"}), CROPS, MACHINE)


def test_epochs_become_steps():
    plan = make_plan(study(epochs=3, batch=4), CROPS, MACHINE)
    assert plan.steps == math.ceil(3 * 159 / 4)
    assert plan.minutes is None


def test_an_accelerator_gets_a_wider_network():
    gpu = Machine(cores=16, memory_mb=100_000.0, device="cuda any", device_memory_mb=80_000.0, devices=1)
    assert make_plan(study(minutes=60), CROPS, gpu).network.settings()["features"] == 32


def test_the_memory_of_an_accelerator_is_what_a_plan_fits_into():
    roomy = Machine(cores=16, memory_mb=100_000.0, device="cuda any", device_memory_mb=80_000.0, devices=1)
    short = roomy.model_copy(update={"device_memory_mb": 3_000.0})
    large, small = (make_plan(study(minutes=60), CROPS, one) for one in (roomy, short))
    assert large.memory_mb == pytest.approx(64_000)
    assert small.predicted_memory_mb < small.memory_mb == pytest.approx(2_400)
    assert small.micro_batch * math.prod(small.patch) < large.micro_batch * math.prod(large.patch)
    assert any("cuda any" in choice.because for choice in small.choices if choice.what == "memory ceiling")


sizes = st.tuples(*[st.integers(1, 600)] * 3)
spacings = st.tuples(*[st.floats(0.3, 8.0)] * 3)


@given(shape=sizes, spacing=spacings, most=st.integers(200, 10_000_000))
def test_a_planned_patch_never_holds_more_than_it_may_and_never_leaves_the_case(shape, spacing, most):
    patch = planned_patch(shape, most_voxels=most, spacing=spacing)
    assert all(1 <= side <= size for side, size in zip(patch, shape, strict=True))
    assert math.prod(patch) <= max(most * 1.2, 4**3 * 2)


@given(patch=sizes, spacing=spacings)
def test_a_pyramid_keeps_four_voxels_and_starts_on_the_input_grid(patch, spacing):
    kernels, strides = pyramid(patch, spacing)
    assert strides[0] == (1, 1, 1)
    assert len(kernels) == len(strides) >= 3
    for axis in range(3):
        halvings = math.prod(stride[axis] for stride in strides)
        assert halvings == 1 or patch[axis] / halvings >= 4
    assert all(set(kernel) <= {1, 3} for kernel in kernels)


@given(spacing=spacings, room=st.integers(1_000, 1_000_000))
def test_a_target_spacing_is_never_finer_than_the_finest_case(spacing, room):
    data = TRUNKS.model_copy(update={"spacing_mm": spacing, "fine_spacing_mm": tuple(mm * 0.9 for mm in spacing)})
    found, because = target_spacing(data, room=room)
    assert because
    assert found is None or all(new >= 0.899 * old for new, old in zip(found, spacing, strict=True))
    shape, _ = grid(data, Preprocessing(spacing_mm=found))
    assert min(shape) >= 1


def test_a_number_that_the_study_sets_is_said_to_be_asked_for():
    asked = {"batch": 3, "micro_batch": 1, "precision": "fp32", "ema": 0.9, "warm_up": 0.1, "clip_norm": 1.0, "foreground": 0.25}
    plan = make_plan(study(minutes=15, **asked), CROPS, MACHINE)
    said = {choice.what: (choice.value, choice.because) for choice in plan.choices}
    names = ("batch", "patches at once", "precision", "average of weights", "warm-up", "gradient clipping", "foreground")
    assert [said[name] for name in names] == [(str(value), "asked for") for value in (3, 1, "fp32", 0.9, 0.1, 1, 0.25)]
    assert (plan.warm_up, plan.clip_norm, plan.foreground) == (0.1, 1.0, 0.25)
    assert said["weight decay"][1] != "asked for"
