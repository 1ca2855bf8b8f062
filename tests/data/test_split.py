import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.dataset import Splits, check_splits
from bedside.core.errors import UsageError
from bedside.data.split import extend_splits, split_patients


def check_division(names, fraction, folds, seed, chance):
    splits = split_patients(names, test=fraction, folds=folds, seed=seed)
    groups = [splits.test, *splits.folds]
    everyone = [name for group in groups for name in group]
    assert sorted(everyone) == sorted(names)
    assert len(set(everyone)) == len(everyone)
    check_splits(splits, set(names))
    sizes = [len(fold) for fold in splits.folds]
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= 1
    assert abs(len(splits.test) - fraction * len(names)) <= 1
    assert (len(splits.test) > 0) == (fraction > 0)
    shuffled = [*names, *names[:3]]
    chance.shuffle(shuffled)
    assert split_patients(shuffled, test=fraction, folds=folds, seed=seed) == splits


def test_in_1000_random_designs_every_patient_stands_in_exactly_one_group_whatever_the_order():
    chance = random.Random(2)
    for _ in range(1000):
        names = [f"patient-{number}" for number in chance.sample(range(10_000), chance.randint(12, 200))]
        fraction = chance.choice([0.0, chance.uniform(0, 0.5)])
        check_division(names, fraction, chance.randint(1, 5), chance.randrange(2**32), chance)


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(), max_size=4), min_size=12, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_any_text_may_be_a_patients_name(names, chance):
    check_division(names, 0.2, 3, 0, chance)


def test_another_seed_gives_another_division():
    names = [f"patient-{number}" for number in range(40)]
    divisions = {split_patients(names, test=0.2, folds=5, seed=seed).test for seed in range(10)}
    assert len(divisions) == 10


def test_the_division_is_the_same_on_every_machine():
    names = [f"p{number}" for number in range(10)]
    splits = split_patients(names, test=0.2, folds=4, seed=7)
    assert splits.test == ("p2", "p7")  # written down once: a change here breaks every locked test split there is


@pytest.mark.parametrize("fraction", [0.001, 0.2])
def test_a_small_fraction_still_holds_one_patient_out(fraction):
    splits = split_patients([f"p{number}" for number in range(6)], test=fraction, folds=5, seed=0)
    assert len(splits.test) == 1


def test_too_few_patients_are_refused_with_what_to_do():
    with pytest.raises(UsageError, match="Patients found: 5; 1 for the test split leave 4 for 5 folds") as caught:
        split_patients([f"p{number}" for number in range(5)], test=0.2, folds=5, seed=0)
    assert caught.value.code == "TOO_FEW_PATIENTS"


@pytest.mark.parametrize(("fraction", "folds"), [(1.0, 2), (-0.1, 2), (float("nan"), 2), (0.2, 0)])
def test_settings_that_make_no_sense_are_refused(fraction, folds):
    with pytest.raises(UsageError) as caught:
        split_patients(["a", "b", "c"], test=fraction, folds=folds, seed=0)
    assert caught.value.code == "SPLIT_SETTINGS"


def test_patients_locked_by_name_are_in_the_test_split_and_nobody_else_when_the_fraction_is_zero():
    splits = split_patients("abcdef", test=0.0, folds=2, seed=0, always_test=("e", "b"))
    assert splits.test == ("b", "e")
    assert sorted(patient for fold in splits.folds for patient in fold) == ["a", "c", "d", "f"]


def test_the_others_are_divided_as_if_the_locked_patients_were_not_there():
    with_names = split_patients("abcdefgh", test=0.34, folds=2, seed=3, always_test=("h",))
    without = split_patients("abcdefg", test=0.34, folds=2, seed=3)
    assert with_names.folds == without.folds
    assert set(with_names.test) == {*without.test, "h"}


def test_a_locked_name_that_nobody_has_is_an_error_without_the_name():
    with pytest.raises(UsageError, match="names 1 patients") as caught:
        split_patients("abcd", test=0.2, folds=2, seed=0, always_test=("zoe",))
    assert caught.value.code == "SPLIT_SETTINGS"
    assert "zoe" not in caught.value.sentence


def home(splits):
    """Patient to the number of the group that holds them; the test split is -1."""
    return {name: number for number, group in enumerate([splits.test, *splits.folds], start=-1) for name in group}


@settings(max_examples=200)
@given(
    st.integers(12, 60),
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.1, 0.2, 0.4]),
    st.integers(1, 5),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_nobody_ever_moves_whatever_batches_come(first, batches, fraction, folds, seed, chance):
    names = [f"p{number}" for number in range(first)]
    splits = split_patients(names, test=fraction, folds=folds, seed=seed)
    for size in batches:
        known = home(splits)
        names += [f"p{len(names) + number}" for number in range(size)]
        shuffled = list(names)
        chance.shuffle(shuffled)
        splits = extend_splits(splits, shuffled, test=fraction, folds=folds, seed=seed)
        assert splits == extend_splits(Splits(**before(known, folds)), names, test=fraction, folds=folds, seed=seed)
        assert {name: place for name, place in home(splits).items() if name in known} == known
        check_splits(splits, set(names))
        assert abs(len(splits.test) - fraction * len(names)) <= 1
        sizes = [len(fold) for fold in splits.folds]
        assert max(sizes) - min(sizes) <= 1


def before(known, folds):
    """The division that a `home` describes."""
    groups = [tuple(sorted(name for name, place in known.items() if place == number)) for number in range(-1, folds)]
    return {"test": groups[0], "folds": tuple(groups[1:])}


def test_a_patient_who_is_gone_leaves_the_others_where_they_are():
    names = [f"p{number}" for number in range(30)]
    splits = split_patients(names, test=0.2, folds=3, seed=1)
    gone = {splits.test[0], splits.folds[1][0]}
    less = extend_splits(splits, set(names) - gone, test=0.2, folds=3, seed=1)
    assert home(less) == {name: place for name, place in home(splits).items() if name not in gone}


def test_a_patient_locked_by_name_joins_the_test_split_unless_already_trained_on():
    names = [f"p{number}" for number in range(20)]
    splits = split_patients(names, test=0.2, folds=3, seed=1)
    more = extend_splits(splits, [*names, "new"], test=0.2, folds=3, seed=1, always_test=["new"])
    assert set(more.test) == {*splits.test, "new"}
    with pytest.raises(UsageError, match="1 patients whom") as caught:
        extend_splits(splits, names, test=0.2, folds=3, seed=1, always_test=[splits.folds[0][0]])
    assert caught.value.code == "SPLIT_SETTINGS"


@pytest.mark.parametrize(("fraction", "folds"), [(0.2, 4), (1.0, 3)])
def test_a_division_cannot_be_extended_under_other_settings(fraction, folds):
    names = [f"p{number}" for number in range(20)]
    splits = split_patients(names, test=0.2, folds=3, seed=1)
    with pytest.raises(UsageError) as caught:
        extend_splits(splits, names, test=fraction, folds=folds, seed=1)
    assert caught.value.code == "SPLIT_SETTINGS"


def test_a_fold_that_loses_everybody_is_refused():
    splits = split_patients(["a", "b", "c"], test=0.0, folds=3, seed=1)
    with pytest.raises(UsageError) as caught:
        extend_splits(splits, ["a", "b"], test=0.0, folds=3, seed=1)
    assert caught.value.code == "TOO_FEW_PATIENTS"
