"""The order of the structures is the order of the training ids: losing it on disk would swap the names of two organs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bedside.core.contract import Contract
from bedside.core.digest import canonical_json, digest_json
from bedside.core.workspace import read_json

NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True)


def _contract(names: list[str]) -> Contract:
    return Contract(modality="CT", spacing_mm=(0.5, 2.0), labels={name: code for code, name in enumerate(names)})


@given(NAMES)
def test_structures_keep_their_order_through_canonical_json(names: list[str]) -> None:
    contract = _contract(names)
    again = Contract.model_validate_json(canonical_json(contract.model_dump(mode="json")))
    assert again.structures == tuple(names)
    assert again == contract


def test_structures_keep_their_order_through_a_stored_file(tmp_path) -> None:
    contract = _contract(["background", "cortical", "cancellous"])
    (tmp_path / "contract.json").write_bytes(canonical_json(contract.model_dump(mode="json")))
    assert Contract.model_validate(read_json(tmp_path / "contract.json")).structures == ("background", "cortical", "cancellous")


def test_another_order_is_another_study() -> None:
    digests = {digest_json(_contract(names).model_dump(mode="json")) for names in (["bg", "a", "b"], ["bg", "b", "a"])}
    assert len(digests) == 2


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="share one name"):
        Contract.model_validate({"modality": "CT", "spacing_mm": (0.5, 2.0), "labels": [["bg", 0], ["a", 1], ["a", 2]]})


@pytest.mark.parametrize("labels", [[["bg", 0], ["a"]], [1, 2], "ba", [[["bg"], 0], ["a", 1]]])
def test_what_is_neither_a_table_nor_pairs_is_refused(labels: object) -> None:
    with pytest.raises(ValidationError):
        Contract.model_validate({"modality": "CT", "spacing_mm": (0.5, 2.0), "labels": labels})
