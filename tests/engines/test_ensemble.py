"""Claims about several models as one."""

import shutil

import numpy as np
import pytest

from bedside.core.custody import verify
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.model import Preprocessing
from bedside.core.workspace import Workspace
from bedside.engines.ensemble import make_ensemble
from bedside.engines.predict import open_model


@pytest.fixture
def members(store_model, tmp_path):
    workspace = Workspace(tmp_path)
    return [store_model(workspace, seed=seed) for seed in range(3)]


def mean_of(members):
    return make_ensemble(members[0].workspace, members, study_digest="2" * 64)


def answers(model, case, **how):
    prediction, kept = open_model(model, **how).answer(case)
    return kept, prediction


@pytest.mark.parametrize("mirror", [False, True])
def test_an_ensemble_of_one_is_its_member_bit_for_bit(members, case, mirror):
    alone, of_one = answers(members[0], case, mirror=mirror), answers(mean_of(members[:1]), case, mirror=mirror)
    assert np.array_equal(alone[0], of_one[0])
    assert np.array_equal(alone[1].value, of_one[1].value)
    assert np.array_equal(alone[1].uncertainty, of_one[1].uncertainty)


def test_an_ensemble_says_the_mean_of_its_members_and_one_minus_its_largest_is_the_uncertainty(members, case):
    kept, prediction = answers(mean_of(members), case)
    expected = np.mean([answers(member, case)[0] for member in members], axis=0)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    np.testing.assert_allclose(prediction.uncertainty, 1 - kept.max(0), atol=1e-6)
    assert prediction.model == mean_of(members).digest


def test_the_order_of_members_changes_neither_digest_nor_bits(members, case):
    forth, back = mean_of(members), mean_of(members[::-1])
    assert forth.digest == back.digest
    assert len([event for event in forth.workspace.ledger.events() if event.action == "ensembled"]) == 1


def test_members_with_other_limits_of_values_each_see_their_own_image(store_model, tmp_path, case):
    workspace = Workspace(tmp_path)
    limits = [Preprocessing(clip=(-50.0, high), normalise="clip") for high in (50.0, 150.0)]
    both = [store_model(workspace, seed=number, preprocessing=each) for number, each in enumerate(limits)]
    expected = np.mean([answers(member, case)[0] for member in both], axis=0)
    np.testing.assert_allclose(answers(mean_of(both), case)[0], expected, atol=1e-6)


def test_a_missing_or_changed_member_is_no_ensemble(members, case):
    made = mean_of(members)
    folder = members[1].workspace.store / members[1].digest
    folder.chmod(0o755)
    weights = folder / "weights.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError):
        open_model(made)
    shutil.rmtree(folder)
    with pytest.raises(IntegrityError):
        open_model(made)


def test_verify_walks_to_every_member(members):
    made = mean_of(members)
    for number, member in enumerate(members):
        made.workspace.ledger.append("trained", inputs={"study": f"{number}" * 64}, outputs={"model": member.digest})
    found = verify(made)
    assert {event.outputs["model"] for event in found.events} == {made.digest, *(member.digest for member in members)}
    assert found.checked == 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dataset": "9" * 64}, "dataset"),
        ({"patch": (32, 16, 16)}, "patch"),
        ({"preprocessing": Preprocessing(spacing_mm=(1.0, 1.0, 1.0))}, "spacing"),
        ({"task": {"name": "segmentation", "dice_weight": 0.9}}, "task"),
    ],
)
def test_models_that_do_not_belong_together_are_refused_by_what_differs(store_model, tmp_path, changes, word):
    workspace = Workspace(tmp_path)
    with pytest.raises(UsageError, match=word) as raised:
        mean_of([store_model(workspace), store_model(workspace, seed=1, **changes)])
    assert raised.value.code == "ENSEMBLE"


def test_nobody_is_no_ensemble_and_nobody_counts_twice(members):
    workspace = members[0].workspace
    for some in ([], [members[0], members[0]], [members[0], mean_of(members)]):
        with pytest.raises(UsageError):
            make_ensemble(workspace, some, study_digest="2" * 64)
