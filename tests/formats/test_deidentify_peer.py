"""One synthetic file through another project's PS3.15 tool: whatever it changes, we change too, or the reason stands here."""

import copy

import pytest
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions_2024b
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bedside.core.deidentification import Deidentification
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier
from bedside.formats.deidentify_table import table

from .identified import decoded, encoded, person

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # seeds are longer than some VRs allow
KEY = Identity("pseudonym", b"a secret of this test")
FORMS = {"DA": "20010203", "TM": "111213", "DT": "20010203111213", "AS": "044Y", "DS": "7.25", "IS": "7", "US": 3}
FORMS |= {"UI": "1.2.826.0.1.3680043.77.{0}", "PN": "Zqseed{0}^Otto", "UN": b"ZQ{0}!!", "OB": b"ZQSEED!!"}
NOT_SEEDED = frozenset({0x00080018, 0x0020000D, 0x0020000E, 0x00420011, 0x00041511})
"""Needed to know the file at all; an encapsulated document, which we refuse; and the directory's own attribute."""


def seeded() -> tuple[Dataset, list[int]]:
    """A slice with a seed in every attribute of the table that a data set can hold."""
    data, tags = person(), []
    for number, tag in enumerate(sorted(table().by_tag)):
        if tag >> 16 in {0x0000, 0x0002, 0x0004, 0xFFFC, 0xFFFA} or tag in NOT_SEEDED:
            continue
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "LO"
        value = FORMS.get(vr, f"ZQSEED{number}")
        if vr == "SQ":
            item = Dataset()
            item.PatientName, item.CodeMeaning = f"Zqseed{number}^Otto", f"ZQSEED{number}"
            value = Sequence([item])
        elif isinstance(value, str):
            value = value.format(number)
        data.add_new(tag, vr, value)
        tags.append(tag)
    return data, tags


def changed(before: Dataset, after: Dataset, tags: list[int]) -> set[int]:
    return {tag for tag in tags if tag not in after or str(after[tag].value) != str(before[tag].value)}


def both(options: Deidentification) -> tuple[set[int], set[int], bytes]:
    """Tags that they and we change, and our bytes."""
    data, tags = seeded()
    theirs = copy.deepcopy(data)
    anonymize_dataset(theirs, base_rules_gen=initialize_actions_2024b)
    ours = Deidentifier(KEY, options).file(encoded(data)).data
    return changed(data, theirs, tags), changed(data, decoded(ours), tags), ours


def test_with_no_option_in_use_we_change_everything_that_they_change() -> None:
    theirs, ours, written = both(Deidentification(dates="remove", patient_characteristics=False))
    assert len(theirs) > 550
    assert {dictionary_keyword(tag) for tag in theirs - ours} == set()
    assert b"zqseed" not in written.lower()


def test_with_the_default_options_the_difference_is_what_the_options_say() -> None:
    theirs, ours, written = both(Deidentification())
    left = theirs - ours
    by_date = {tag for tag in left if dictionary_VR(tag) == "TM"}
    assert {dictionary_keyword(tag) for tag in left - by_date} <= {
        "PatientAge", "PatientSize", "PatientWeight", "PatientSex", "EthnicGroup", "SmokingStatus", "PregnancyStatus",
        "PatientSexNeutered", "SelectorASValue",
    }  # fmt: skip
    kept_by_option = {b"zqseed%d" % n for n, tag in enumerate(sorted(table().by_tag)) if "p" in table().by_tag[tag].columns}
    text = written.lower()
    for seed in kept_by_option:
        text = text.replace(seed, b"")
    assert b"zqseed" not in text


def test_we_clean_what_lies_in_sequences_that_the_table_does_not_name_and_they_do_not() -> None:
    data = person()
    inner, outer = Dataset(), Dataset()
    inner.PatientName = "Zqseed^Otto"
    outer.ConceptCodeSequence = Sequence([inner])
    data.ProcedureCodeSequence = Sequence([outer])
    theirs = copy.deepcopy(data)
    anonymize_dataset(theirs, base_rules_gen=initialize_actions_2024b)
    assert "Zqseed" in str(theirs.ProcedureCodeSequence)
    assert "Zqseed" not in str(decoded(Deidentifier(KEY).file(encoded(data)).data))
