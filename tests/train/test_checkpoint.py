"""Claims about what a kill may not lose."""

import pytest
import torch

from bedside.core.errors import IntegrityError, ResourceError
from bedside.core.run import PlannedSteps
from bedside.train.checkpoint import KEEP, Checkpoint, Position, load_checkpoint, save_checkpoint


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
