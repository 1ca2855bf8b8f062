"""Every malformed file is refused by name or harmless: no other exception, no long wait, no swollen memory, no file uncounted."""

from collections import Counter

import pytest

from .corpus import corpus
from .passing import results

COSTLY = ("D3 deflate bomb", "N2 gzip bomb")
"""Each of them costs a second, because 512 MiB are inflated before one is refused."""


def test_the_corpus_has_more_than_500_named_files_in_more_than_40_families():
    specimens = corpus()
    families = Counter(one.family for one in specimens)
    assert len(specimens) >= 500
    assert len(families) >= 40
    assert sum(count >= 12 for count in families.values()) >= 40
    assert len({one.label for one in specimens}) == len(specimens)


def test_every_specimen_is_refused_by_name_or_harmless(tmp_path):
    cheap = [one for one in corpus() if one.family not in COSTLY]
    costly = [next(one for one in corpus() if one.family == family) for family in COSTLY]
    found = list(results(tmp_path, specimens=[*cheap, *costly]))
    assert len(found) == len(cheap) + len(costly)
    assert [f"{one.specimen.label}: {fault}" for one in found for fault in one.faults] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_bomb_is_put_out_in_time(tmp_path):
    bombs = [one for one in corpus() if one.family in COSTLY]
    assert [f"{one.specimen.label}: {fault}" for one in results(tmp_path, specimens=bombs) for fault in one.faults] == []


def test_a_fault_of_the_door_would_be_found(tmp_path):
    """The measuring itself: a sound file where a refusal is asked for, and the other way round."""
    sound = next(one for one in corpus() if one.expect == "sound")
    refused = next(one for one in corpus() if one.expect == "refused" and one.codes)
    swapped = [
        type(sound)(sound.family, sound.name, sound.files, "refused", (), sound.mutant),
        type(refused)(refused.family, refused.name, refused.files, "sound", (), refused.mutant),
        type(refused)(refused.family, refused.name, refused.files, "refused", ("ANOTHER",), refused.mutant),
    ]
    faults = [one.faults for one in results(tmp_path, specimens=swapped)]
    assert faults[0] == ["accepted"]
    assert faults[1][0].startswith("refused: ")
    assert faults[2][0].startswith("refused as ")
