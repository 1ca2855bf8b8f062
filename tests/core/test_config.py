"""Every problem of a configuration is said at once, with its path and its line."""

import re
from pathlib import Path

import pytest

from bedside.core.config import Config, Promote, load
from bedside.core.errors import ConfigError, UsageError
from bedside.core.site import Site
from bedside.core.workspace import Workspace

STUDY = """\
study: hip-ct
contract:
  modality: CT
  spacing_mm: [0.4, 3.0]
  value_range: [-1024, 3071]
  unit: HU
  labels: {background: 0, femur: 1, pelvis: 2}
task: {name: segmentation}
network: {name: unet, features: 8, levels: 3}
train:
  minutes: 30
  patch: [32, 32, 32]
promote:
  gates:
    - {name: absolute, floor: 0.8}
accelerate:
  stages:
    - {name: torch}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def problems(study: Path, old: str, new: str) -> list[str]:
    assert old in STUDY
    study.write_text(STUDY.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(study)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_a_good_study_is_one_frozen_tree(study: Path) -> None:
    config = load(study)
    assert config.study.contract.structures == ("background", "femur", "pelvis")
    assert config.study.network.settings()["features"] == 8
    assert config.site == Site()
    assert config.workspace == Workspace(study.parent)
    with pytest.raises(Exception, match="frozen"):
        config.study.train.minutes = 1.0  # type: ignore[misc]


def test_all_errors_come_at_once_each_with_path_and_line(study: Path) -> None:
    broken = (
        STUDY.replace("modality: CT", "modality: XA")
        .replace("minutes: 30", "minutes: -1\n  epoch: 3")
        .replace("patch: [32, 32, 32]", "patch: [32, 32]")
        .replace("features: 8", "features: many")
        .replace("floor: 0.8", "floor: 0.8, flor: 1")
    )
    study.write_text(broken)
    (study.parent / "site.yaml").write_text("threads: 0\nserver: x\n")
    with pytest.raises(ConfigError) as caught:
        load(study)
    found = {(p.source, p.line, p.where) for p in caught.value.problems}
    assert found == {
        ("study.yaml", 3, "contract.modality"),
        ("study.yaml", 9, "network.features"),
        ("study.yaml", 11, "train.minutes"),
        ("study.yaml", 12, "train.epoch"),
        ("study.yaml", 13, "train.patch.2"),
        ("study.yaml", 16, "promote.gates.0.flor"),
        ("site.yaml", 1, "threads"),
        ("site.yaml", 2, "server"),
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("study: hip-ct", "study: &name hip-ct", 1, "anchors and aliases are not allowed"),
        ("modality: CT", "modality: *name", 3, "anchors and aliases are not allowed"),
        ("modality: CT", "modality: !!python/object/apply:os.system [id]", 3, "tags are not allowed"),
        ("modality: CT", "modality: !!str CT", 3, "tags are not allowed"),
        ("unit: HU", "unit: HU\n  modality: MR", 7, "the key stands here twice"),
        ("modality: CT", "modality: " + "[" * 40 + "]" * 40, 3, "nested deeper than 32"),
        ("modality: CT", "modality: [", 5, "not YAML"),
        ("modality: CT", "modality: " + "[" * 100_000, 3, "nested deeper than 32"),
        ("modality: CT", "modality: .nan", 3, "contract.modality"),
        ("minutes: 30", "minutes: .nan", 11, "train.minutes"),
        ("minutes: 30", "minutes: 1e999", 11, "train.minutes: this is not a finite number"),
        ("minutes: 30", "minutes: 'inf'", 11, "train.minutes: this is not a finite number"),
        ("minutes: 30", "minutes: -.INF", 11, "train.minutes"),
        ("minutes: 30", "minutes: NaN", 11, "train.minutes: this is not a finite number"),
        ("minutes: 30", "minutes: 30\n  seed: " + "9" * 5000, 12, "train.seed"),
        ("minutes: 30", "minutes: 30\n---\ntrain:", 12, "second document"),
        ("[-1024, 3071]", "[3071, -1024]", 5, "lower limit"),
        ("pelvis: 2", "pelvis: 1", 7, "share one code"),
        ("name: segmentation", "name: segmantation", 8, "known: distilled"),
        ("{name: segmentation}", "segmentation", 8, "is written as {name: one of"),
        ("minutes: 30", "fold: 7", 1, "folds count from 0"),
        ("minutes: 30", "minutes: 30\n  steps: 5", 10, "there are 2 budgets, minutes and steps"),
        ("study: hip-ct", "study: ../../etc", 1, "study"),
        ("minutes: 30", "minutes: on", 11, "train.minutes"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(study: Path, old: str, new: str, line: int, said: str) -> None:
    found = problems(study, old, new)
    assert any(said in text and text.startswith(f"study.yaml:{line}:") for text in found), found


def test_a_fold_cannot_be_left_out_where_there_is_only_one(study: Path) -> None:
    study.write_text(STUDY.replace("minutes: 30", "minutes: 30\n  fold: 0") + "split: {folds: 1}\n")
    with pytest.raises(ConfigError, match="nothing would be left to train on"):
        load(study)


def test_billion_laughs_are_refused_in_no_time(study: Path) -> None:
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    study.write_text("\n".join(rows))
    with pytest.raises(ConfigError, match="anchors"):
        load(study)


def test_a_file_that_is_too_large_or_no_text_is_refused(study: Path) -> None:
    study.write_text("#" * (1 << 20) + "\n" + STUDY)
    with pytest.raises(ConfigError, match="larger than"):
        load(study)
    study.write_bytes(b"study: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(study)


@pytest.mark.parametrize("text", ["", "- a\n", "just a word", "1", "{}", "~", "? {a: b}\n: c\n", "a: b\n---\nc: d\n", "\x00"])
def test_any_other_text_is_a_config_error_and_never_a_crash(study: Path, text: str) -> None:
    study.write_text(text)
    with pytest.raises(ConfigError):
        load(study)


def test_a_missing_file_is_wrong_use_and_says_what_to_give(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path, tmp_path / "a" / "b"):
        with pytest.raises(UsageError, match=re.escape("give a study.yaml")) as caught:
            load(path)
        assert not isinstance(caught.value, ConfigError)


def test_overrides_change_the_tree_and_the_hash_and_not_the_file(study: Path) -> None:
    plain = load(study)
    changed = load(study, overrides=["train.minutes=3", "promote.gates.0.floor=0.5", "site.threads=1", "network.features=4"])
    assert changed.study.train.minutes == 3
    assert changed.study.promote.gates[0].settings()["floor"] == 0.5
    assert changed.site.threads == 1
    assert changed.study.digest() != plain.study.digest()
    assert load(study, overrides=["site.threads=1"]).study.digest() == plain.study.digest()
    assert study.read_text() == STUDY


@pytest.mark.parametrize(
    "assignment",
    [
        "train.minutes",
        "=3",
        "train..minutes=3",
        "train.minutes=[",
        "trian.minutes=3",
        "promote.gates.9.floor=1",
        "study.x=1",
        "a=&b c",
    ],
)
def test_a_wrong_override_is_said_with_its_own_words(study: Path, assignment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(study, overrides=[assignment])
    assert caught.value.problems


def test_a_section_that_the_file_leaves_out_can_be_set(study: Path) -> None:
    assert load(study, overrides=["evaluate.seed=7"]).study.evaluate.seed == 7


def test_null_is_none_and_words_stay_words(study: Path) -> None:
    config = load(study, overrides=["train.minutes=null", "train.steps=5", "site.tracking=off", "site.versioning=off"])
    assert (config.study.train.minutes, config.study.train.steps) == (None, 5)
    assert (config.site.tracking, config.site.versioning) == ("off", "off")


def test_the_hash_does_not_depend_on_layout_or_spelled_out_defaults(study: Path) -> None:
    before = load(study).study.digest()
    study.write_text("# a remark\n" + STUDY + "split: {test: 0.2, folds: 5, seed: 0}\n")
    assert load(study).study.digest() == before


def test_the_tree_that_is_stored_loads_as_the_same_tree(study: Path) -> None:
    from bedside.core.config import Study

    first = load(study).study
    assert Study.model_validate(first.model_dump(mode="json")).digest() == first.digest()


def test_where_a_study_lives(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path).workspace.folder == tmp_path
    named = tmp_path / "template.yaml"
    named.write_text(STUDY)
    assert load(named).workspace.folder == Path("hip-ct")
    assert load(named, folder=tmp_path / "x").workspace.folder == tmp_path / "x"


def test_the_schema_names_every_part(study: Path) -> None:
    from bedside.core.config import Study

    schema = Study.model_json_schema()
    gate = schema["$defs"]["Promote"]["properties"]["gates"]["items"]
    assert {item["properties"]["name"]["const"] for item in gate["oneOf"]} == {
        "absolute",
        "latency",
        "non_inferiority",
        "provenance",
        "superiority",
    }


def test_rules_are_frozen_by_a_hash_that_sees_every_setting(study: Path) -> None:
    config = load(study)
    assert isinstance(config, Config)
    assert isinstance(config.promote, Promote)
    digests = {
        load(study, overrides=o).promote.digest() for o in ([], ["promote.gates.0.floor=0.81"], ["promote.baseline=" + "a" * 64])
    }
    assert len(digests) == 3
