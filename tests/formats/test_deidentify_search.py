"""What is known of a patient is looked for in everything that is written, in every form it may have, and in nothing else."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.deidentify import Deidentifier

from .identified import decoded, encoded, person

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # some values are wrong on purpose
ENGINE = Deidentifier(Identity("pseudonym", b"a secret of this test"))


def test_a_short_number_as_patient_id_takes_no_rescale_away_but_a_text_that_says_it_is_emptied() -> None:
    data = person("1024")
    data.RescaleIntercept, data.ConvolutionKernel = "-1024", "1024"
    after = decoded(ENGINE.file(encoded(data)).data)
    assert (after.RescaleIntercept, after.ConvolutionKernel) == (-1024, "")


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["", "ISO 2022 IR 87"], "山田^太郎"),
        (["", "ISO 2022 IR 159"], "丂丄^丅"),
        (["", "ISO 2022 IR 149"], "김^희중"),
        (["", "ISO 2022 IR 58"], "张^小东"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 100", "Äneas^Rüdiger"),
        ("ISO_IR 101", "Wałęsa^Lech"),
        ("ISO_IR 127", "قباني^لنزار"),
        ("ISO_IR 138", "שרון^דבורה"),
        ("ISO_IR 144", "Щукина"),
        ("ISO_IR 148", "Çavuşoğlu^Ali"),
        ("ISO_IR 166", "นามสกุล"),
        ("ISO_IR 192", "Mu\u0308ller^Rene\u0301"),
    ],
)
def test_a_name_in_any_character_set_is_found_in_bytes_that_nobody_decodes(sets: str | list[str], name: str) -> None:
    data = person(name="")
    data.SpecificCharacterSet, data.PatientName, data.ReferringPhysicianName = sets, name, ""
    as_written = decoded(encoded(data)).get_item(0x00100010).value
    data.add_new(0x00282000, "OB", (b"made for " + as_written + b" \0")[: 9 + len(as_written) + 1 + len(as_written) % 2])
    with pytest.raises(InputRejected) as refusal:
        ENGINE.file(encoded(data))
    assert refusal.value.code == "PHI_RESIDUAL"


def test_more_names_than_belong_to_one_patient_are_refused_before_they_are_searched_for() -> None:
    data = person()
    data.ViewCodeSequence = Sequence(Dataset() for _ in range(600))
    for number, item in enumerate(data.ViewCodeSequence):
        item.AccessionNumber = f"ACC{number:07d}"
    with pytest.raises(InputRejected) as refusal:
        ENGINE.file(encoded(data))
    assert refusal.value.code == "DCM_ELEMENTS"


def test_a_value_of_half_a_number_is_refused_by_name() -> None:
    data = encoded(person())
    rows = data.index(b"\x28\x00\x10\x00US\x02\x00")
    with pytest.raises(InputRejected) as refusal:
        ENGINE.file(data[: rows + 6] + b"\x03\x00" + data[rows + 8 : rows + 10] + b"\0" + data[rows + 10 :])
    assert refusal.value.code == "DCM_STRUCTURE"


@pytest.mark.parametrize("kernel", ["CTZQMUSTERMANN", "zqmustermann2", "forZqmustermannB30"])
def test_a_long_name_inside_a_longer_word_is_found(kernel: str) -> None:
    data = person()
    data.ConvolutionKernel = kernel
    assert decoded(ENGINE.file(encoded(data)).data).ConvolutionKernel == ""
    data.add_new(0x00282000, "OB", kernel.encode() + b"\0" * (len(kernel) % 2))
    with pytest.raises(InputRejected) as refusal:
        ENGINE.file(encoded(data))
    assert refusal.value.code == "PHI_RESIDUAL"


@pytest.mark.parametrize("name", ["Key^Jo", "Seal^Kim"])
def test_the_engines_own_marks_hold_no_word_that_is_a_persons_name(name: str) -> None:
    data = person(name=name)
    data.ConvolutionKernel = f"for {name.partition('^')[0]}"
    assert decoded(ENGINE.file(encoded(data)).data).ConvolutionKernel == ""


def test_a_short_name_inside_the_name_of_a_maker_takes_nothing_away() -> None:
    data = person(name="Philip^Max")
    data.Manufacturer = "Philips Medical Systems"
    assert decoded(ENGINE.file(encoded(data)).data).Manufacturer == "Philips Medical Systems"
