"""Every study that comes with bedside loads, and none of it is left to a default by accident."""

from pathlib import Path

import pytest
from pydicom.sr.codedict import codes

from bedside.core.config import Study, load
from bedside.core.task import divisors

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted([*(ROOT / "studies").rglob("*.yaml"), *(ROOT / "src").rglob("*.yaml")])
WITHOUT_CODE = {
    "demo": {"cortical_bone", "cancellous_bone"},
    "hippocampus": {"anterior", "posterior"},
}
"""Structures for which the dictionary has no code. That of the whole, bone or hippocampus, would say the same of both parts."""


def test_there_are_studies_to_load() -> None:
    assert {"hippocampus.yaml", "demo.yaml"} <= {path.name for path in STUDIES}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_loads_and_keeps_the_same_hash_after_a_round_trip(path: Path, tmp_path: Path) -> None:
    study = load(path, folder=tmp_path).study
    assert Study.model_validate(study.model_dump(mode="json")).digest() == study.digest()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_patch_of_every_study_fits_its_network(path: Path, tmp_path: Path) -> None:
    study = load(path, folder=tmp_path).study
    if study.train.patch is None or study.network is None:  # then the plan chooses what fits
        return
    assert not any(side % step for side, step in zip(study.train.patch, divisors(study.network), strict=True))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_asks_for_provenance_before_it_promotes(path: Path, tmp_path: Path) -> None:
    assert "provenance" in {gate.part_name for gate in load(path, folder=tmp_path).study.promote.gates}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_term_of_every_study_stands_in_the_standards_dictionary_with_the_same_meaning(path: Path, tmp_path: Path) -> None:
    known = {(code.scheme_designator, code.value, code.meaning) for code in codes.SCT.concepts.values()}
    terms = load(path, folder=tmp_path).study.contract.terms
    assert {(term.scheme, term.value, term.meaning) for term in terms.values()} <= known


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_structure_of_every_study_has_a_term_where_there_is_one(path: Path, tmp_path: Path) -> None:
    study = load(path, folder=tmp_path).study
    assert set(study.contract.structures[1:]) - set(study.contract.terms) == WITHOUT_CODE.get(study.study, set())
