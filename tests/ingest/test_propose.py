"""`bedside init` proposes a study that loads, that the folder it saw keeps, and in which nobody is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from bedside.cli.app import application
from bedside.core.config import Study, load
from bedside.core.contract import Contract
from bedside.core.errors import InputRejected, UsageError
from bedside.core.volume import Volume
from bedside.data.split import split_patients
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.nifti import write_nifti
from bedside.ingest.cohort import write_phantom_cohort
from bedside.ingest.pipeline import ingest, summary
from bedside.ingest.propose import LAYOUTS, look_around
from bedside.ingest.propose_columns import column_of
from bedside.ingest.propose_text import study_text

KEYED = ("source.identity=keep", "site.executor=inline", "site.versioning=off", "site.tracking=off", "split.folds=2")
CONTRACT_CODES = {
    "MODALITY", "EXTENT", "SPACING", "SHEAR", "CONSTANT", "VALUE_RANGE", "HU_CALIBRATION", "BODY_PART", "PLANE",
    "LABEL_VALUES", "LABEL_GEOMETRY", "LABEL_SHAPE",
}  # fmt: skip


def proposed(folder: Path, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "study.yaml"
    path.write_text(study_text(look_around(folder)))
    return path


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_cohort(tmp_path_factory.mktemp("received"), patients=4, seed=2)


def test_phantoms_keep_the_contract_that_was_proposed_for_them(phantoms: Path, tmp_path: Path) -> None:
    config = load(proposed(phantoms, tmp_path), overrides=KEYED)
    contract = config.study.contract
    assert (contract.modality, contract.unit, contract.hu_check) == ("CT", "HU", True)
    assert contract.labels == {"background": 0, "structure_1": 1, "structure_2": 2}
    found = summary(ingest(config, phantoms))
    assert (found.cases, found.rejected) == (4, {})


def test_a_series_among_others_without_known_folders_is_read_where_it_lies(phantoms: Path, tmp_path: Path) -> None:
    export = tmp_path / "export" / "DOE_JANE" / "1"
    export.mkdir(parents=True)
    for number in range(2):
        (phantoms / "images" / f"phantom-000{number}").rename(export / f"S{number}")
    try:
        sight = look_around(tmp_path / "export")
        text = study_text(sight)
    finally:
        for number in range(2):
            (export / f"S{number}").rename(phantoms / "images" / f"phantom-000{number}")
    assert (sight.source.images, sight.source.labels, sight.volumes) == (".", None, 2)
    assert not any(word in text for word in ("DOE", "JANE", "phantom", "S0"))


@pytest.mark.parametrize(("images", "labels"), LAYOUTS)
def test_the_usual_names_of_folders_are_known(tmp_path: Path, images: str, labels: str) -> None:
    received = tmp_path / "received"
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 900, (20, 24, 18)).astype(np.int16)
        for folder, array in ((images, values), (labels, (values > 700).astype(np.uint8) * 4)):
            (received / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(received / folder / f"case{number}.nii.gz", array, np.diag([1, 1, 2.5, 1]))
    study = load(proposed(received, tmp_path / "study")).study
    assert (study.source.images, study.source.labels) == (images, labels)
    assert study.contract.labels == {"background": 0, "structure_1": 4}
    assert study.contract.modality == "MR"
    low, high = study.contract.spacing_mm
    assert low < 1 < 2.5 < high
    assert study.train.patch is study.network is study.preprocess is None  # the plan decides


ROWS = """patient_id,age,sex,Patient Name,birth date,smoker,ldl,visit,free
A1,63,F,Doe^Jane,1950-01-01,yes,3.1,first,seen by Dr Roe
A2,41,M,Roe^John,1951-02-02,no,-9,second,fell at home
A3,57,M,Poe^Anna,1952-03-03,no,2.9,first,none of it
A4,71,F,Noe^Alan,1953-04-04,yes,4.4,second,lives in Ulm
A5,38,F,Zoe^Berta,1954-05-05,no,3.3,first,a twin
A6,66,M,Voe^Carl,1955-06-06,no,NA,second,unclear
"""


def test_clinical_columns_are_typed_and_what_names_somebody_is_left_out(phantoms: Path, tmp_path: Path) -> None:
    table = phantoms / "clinical.csv"
    table.write_text(ROWS)
    try:
        path = proposed(phantoms, tmp_path)
    finally:
        table.unlink()
    study, text = load(path).study, path.read_text()
    kinds = {name: column.kind for name, column in study.contract.clinical.items()}
    assert kinds == {"age": "number", "sex": "category", "smoker": "flag", "ldl": "number", "visit": "category"}
    assert study.source.clinical == "clinical.csv"
    age = study.contract.clinical["age"].range
    assert age is not None
    assert age[0] < 38 < 71 < age[1]
    assert "-9" in study.contract.clinical["ldl"].missing
    hidden = ("Doe", "Roe", "Jane", "1950", "Ulm", "twin", "A1", "Patient Name", "birth", "fell")
    assert not any(word in text for word in hidden)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["1", "2.5", "-9", ""], "number"),
        (["0", "1", "1", "NA"], "flag"),
        (["low", "high", "low", "high", "low", "high"], "category"),
        (["Jane", "John", "Anna", "Alan"], None),
        (["1234567890", "1234567891", "1234567892"], None),
        (["=cmd()", "=cmd()", "=cmd()"], None),
        (["", "NA", "unknown"], None),
        (["1", "x", "2", "y"], None),
    ],
)
def test_a_column_is_what_all_its_cells_are_or_it_is_left_out(words: list[str], kind: str | None) -> None:
    column = column_of(words, decimal_comma=False)
    assert (column.kind if column else None) == kind


def test_a_folder_without_a_sound_image_is_said_so_without_a_name_from_it(tmp_path: Path) -> None:
    (tmp_path / "SMITH.txt").write_text("hello")
    with pytest.raises(InputRejected) as caught:
        look_around(tmp_path)
    assert caught.value.code == "NOTHING_SOUND"
    assert "SMITH" not in caught.value.sentence


def test_init_never_touches_a_file_that_is_there(phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    arguments = ["init", str(phantoms), "--out", str(out), "--name", "bones"]
    assert CliRunner().invoke(application(), arguments).exception is None
    assert load(out).study.study == "bones"
    out.write_text("mine")
    done = CliRunner().invoke(application(), arguments)
    assert isinstance(done.exception, UsageError)
    assert out.read_text() == "mine"
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere" / "study.yaml")
    for place in ("link.yaml", "mine.yaml/below.yaml"):
        done = CliRunner().invoke(application(), ["init", str(phantoms), "--out", str(tmp_path / place)])
        assert isinstance(done.exception, UsageError)
    assert out.read_text() == "mine"


def test_the_next_command_can_be_typed_as_it_is_printed(phantoms: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(application(), ["init", str(phantoms), "--out", str(tmp_path / "a study.yaml")])
    assert f"bedside ingest '{tmp_path}/a study.yaml' --from FOLDER" in done.stdout


def test_what_init_would_write_is_printed_and_not_written(phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    done = CliRunner().invoke(application(), ["init", str(phantoms), "--out", str(out), "--what-if"])
    assert done.exception is None
    assert "contract:" in done.stdout
    assert not out.exists()


def test_the_proposed_split_can_be_filled_by_the_patients_who_were_seen(phantoms: Path) -> None:
    sight = look_around(phantoms)
    for patients in range(1, 40):
        proposed = Study.model_validate(yaml.safe_load(study_text(replace(sight, patients=patients))))
        split_patients([f"P{number}" for number in range(patients)], **proposed.split.model_dump())
    assert "split: {test: 0, folds: 1, seed: 0}   # one patient" in study_text(replace(sight, patients=1))


def test_patients_are_counted_once_however_many_volumes_they_have(tmp_path: Path) -> None:
    for number in range(3):
        identity = SeriesIdentity.of("ONE" if number else "OTHER", str(number))
        write_series(tmp_path / f"s{number}", Volume.of(np.full((1, 8, 8, 4), number), np.eye(4)), identity=identity)
    assert look_around(tmp_path).patients == 2


def test_every_comment_stands_on_a_line_of_its_own_or_after_a_setting(phantoms: Path, tmp_path: Path) -> None:
    """What is commented out can be taken in: the lines with one # less load too."""
    path = proposed(phantoms, tmp_path)
    text = path.read_text().replace("  # min_extent_mm:", "  min_extent_mm:").replace("  # site:", "  site:")
    path.write_text(text)
    study = load(path).study
    assert isinstance(study, Study)
    assert isinstance(study.contract, Contract)
    assert study.contract.min_extent_mm is not None
    assert study.source.site == "north"


def test_sheared_axes_are_counted_and_a_person_declares_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    leaning = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    for number, affine in enumerate([leaning, leaning, *[np.diag([1.0, 1, 2, 1])] * 4]):
        array = np.random.default_rng(number).integers(0, 99, (16, 16, 16)).astype(np.int16)
        write_nifti(tmp_path / "in" / f"{number}.nii.gz", array, affine)
    path = proposed(tmp_path / "in", tmp_path / "out")
    assert "  # sheared: true   # 2 of 6 volumes" in path.read_text()
    assert summary(ingest(load(path, overrides=KEYED), tmp_path / "in")).rejected == {"SHEAR": 2}
    path.write_text(path.read_text().replace("  # sheared: true", "  sheared: true"))
    dataset = ingest(load(path, overrides=KEYED), tmp_path / "in")
    assert summary(dataset).rejected == {}
    assert sorted(case.notes for case in dataset.manifest.cases) == [*[()] * 4, ("SHEARED",), ("SHEARED",)]


@pytest.mark.real
@pytest.mark.parametrize(("name", "cases"), [("hippocampus_dev", 199), ("dicom_conversion_dev", 20)])
def test_real_scans_keep_the_contract_that_was_proposed_for_them(data_root: Path, tmp_path: Path, name: str, cases: int) -> None:
    config = load(proposed(data_root / name, tmp_path), overrides=KEYED)
    found = summary(ingest(config, data_root / name))
    assert found.cases >= cases
    assert not CONTRACT_CODES - {"MODALITY"} & set(found.rejected)
