"""Claims about what a kill may not lose."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from bedside.core.errors import IntegrityError, ResourceError
from bedside.core.run import PlannedSteps
from bedside.train import randomness
from bedside.train.checkpoint import (
    KEEP,
    Checkpoint,
    Position,
    differences,
    load_checkpoint,
    load_good,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    position = Position(
        step=step,
        total_steps=100,
        seconds=1.5,
        resumed=0,
        precision="fp32",
        seconds_per_step=0.1,
        best_score=None,
        schedule=(PlannedSteps(at=0, total=100),),
        curve=(),
    )
    return Checkpoint(position, {"net.weight": torch.full((3,), float(step)), "adam.0.step": torch.tensor(float(step))})


def test_what_is_saved_comes_back_and_the_last_two_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, checkpoint(step))
    assert len(list(tmp_path.iterdir())) == KEEP
    found = load_checkpoint(tmp_path)
    assert found.position == checkpoint(5).position
    assert torch.equal(found.tensors["net.weight"], torch.full((3,), 5.0))


def test_no_checkpoint_is_no_error(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage):
    save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"flip": bytes(data), "cut": newest.read_bytes()[:-7], "empty": b""}[damage])
    assert load_checkpoint(tmp_path).position.step == 1


def test_damage_to_every_checkpoint_is_said_and_not_papered_over(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step)).write_bytes(b"garbage")
    with pytest.raises(IntegrityError, match="--fresh"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_part_of_the_new(tmp_path, limited_file_size):
    save_checkpoint(tmp_path, checkpoint(1))
    with limited_file_size(64), pytest.raises(ResourceError, match="disk is full"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert load_checkpoint(tmp_path).position.step == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_everything_but_tensors_comes_back_too_and_how_many_damaged_ones_were_passed_over(tmp_path):
    random.seed(3)
    kept = randomness.now()
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 7}
    whole = replace(checkpoint(1), random=kept, scaler=scaler, plan={"batch": 2, "patch": [16, 16, 16]})
    save_checkpoint(tmp_path, whole)
    save_checkpoint(tmp_path, checkpoint(2)).write_bytes(b"")
    found = load_checkpoint(tmp_path)
    assert (found.random, found.scaler, found.plan, found.passed_over) == (kept, scaler, whole.plan, 1)


def test_random_states_that_are_put_back_draw_the_same_again():
    randomness.seed_all(5)
    random.gauss(0, 1)  # leaves a second number behind
    np.random.normal()  # noqa: NPY002 - this is about its state
    kept = randomness.Randomness.model_validate_json(randomness.now().model_dump_json())

    def drawn() -> list[float]:
        return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))]  # noqa: NPY002 - the same

    first = drawn()
    drawn()
    randomness.put_back(kept)
    assert drawn() == first


def test_states_to_return_to_are_kept_apart_and_a_training_goes_on_from_the_newest_of_both(tmp_path):
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, checkpoint(step), good=True)
    for step in (3, 5):
        save_checkpoint(tmp_path, checkpoint(step))
    assert load_checkpoint(tmp_path).position.step == 6
    assert load_good(tmp_path, until=5).position.step == 4
    assert load_good(tmp_path, until=3) is None
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint", "good", "good"]


def test_differences_name_the_keys_and_not_more_than_fit_in_a_sentence():
    asked = {"batch": 2, "network": {"name": "unet", "features": 4}, **{f"k{n}": n for n in range(4)}}
    assert differences(asked, asked) == ""
    assert differences(asked, asked | {"network": {"name": "unet"}}) == "network.features (asked 4, was null)"
    assert differences(asked, {}).endswith("and 3 more")
