"""Claims about the spread of seeds: each is a run of its own, and what they spread by is a value that gates can read."""

from statistics import stdev

import numpy as np
import pytest

from bedside.core.config import load
from bedside.core.errors import UsageError
from bedside.core.workspace import read_json
from bedside.train.seeds import SeedScore, noise_floor_of, spread, train_seeds


def test_each_seed_is_a_run_and_the_spread_is_stored_once(config, dataset):
    config = load(config.workspace.folder, overrides=["train.fold=0", "train.steps=6", "train.validations=1", "train.seed=4"])
    found, digest = train_seeds(config, dataset, count=3)
    assert [one.seed for one in found.trainings] == [4, 5, 6]
    assert len({one.model for one in found.trainings}) == 3
    trained = [event for event in config.workspace.ledger.events() if event.action == "trained"]
    assert [event.outputs["run"] for event in trained] == [one.run for one in found.trainings]
    assert read_json(config.workspace.get(digest) / "seeds.json") == found.model_dump(mode="json")
    again, same = train_seeds(config, dataset, count=3)
    assert (again, same) == (found, digest)
    events = [event for event in config.workspace.ledger.events() if event.action == "seeds_compared"]
    assert [event.outputs["spread"] for event in events] == [digest]
    assert events[0].facts["noise_floor"] == found.noise_floor


@pytest.mark.parametrize(("seeds", "deviations"), [(2, 17.969), (3, 6.085), (5, 3.926), (10, 3.199)])
def test_the_noise_floor_is_the_coefficient_of_repeatability_with_students_t(seeds, deviations):
    # Bland and Altman 1999: sqrt(2) times the quantile; Student's t at 0.975: 12.706, 4.303, 2.776, 2.262 (1, 2, 4, 9 degrees)
    scores = [0.8 + 0.01 * (-1) ** at * at for at in range(seeds)]
    assert noise_floor_of(scores) == pytest.approx(deviations * stdev(scores), rel=1e-3)
    assert noise_floor_of([0.8 + 0.01 * (at % 2) for at in range(2000)]) == pytest.approx(2.772 * 0.005, rel=5e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_two_more_seeds_differ_by_more_than_the_floor_in_five_of_a_hundred_pairs(seeds):
    draws = np.random.default_rng(0).normal(size=(20_000, seeds + 2))
    above = [abs(row[-1] - row[-2]) > noise_floor_of(row[:-2].tolist()) for row in draws]
    assert np.mean(above) == pytest.approx(0.05, abs=0.006)


def test_scores_are_summed_up():
    scores = [SeedScore(seed=at, run="", model="", score=score) for at, score in enumerate((0.80, 0.82, 0.87))]
    found = spread(scores, dataset="", fold=0, study="")
    assert found.sd == stdev([0.80, 0.82, 0.87])
    assert found.noise_floor == noise_floor_of([0.80, 0.82, 0.87])
    assert (found.lowest, found.highest) == (0.80, 0.87)


@pytest.mark.parametrize(("count", "fold", "said"), [(1, "0", "two seeds"), (3, "null", r"train\.fold=0")])
def test_a_spread_needs_two_seeds_and_a_fold_that_is_left_out(config, dataset, count, fold, said):
    config = load(config.workspace.folder, overrides=[f"train.fold={fold}"])
    with pytest.raises(UsageError, match=said) as caught:
        train_seeds(config, dataset, count=count)
    assert caught.value.code == "SEEDS"
