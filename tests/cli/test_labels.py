"""Two label maps are compared from whatever a user has of them, and the exit code says whether a model survives."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bedside.cli.app import application
from bedside.cli.labels import read_label_map
from bedside.core.errors import GateRefused, UsageError
from bedside.core.labels import LabelMap

REPOSITORY = Path(__file__).resolve().parents[2]
STUDY = REPOSITORY / "studies" / "hippocampus.yaml"
SAME = LabelMap(labels={"background": 0, "anterior": 1, "posterior": 2})


def run(*arguments: object) -> tuple[str, BaseException | None]:
    done = CliRunner().invoke(application(), ["labels", *map(str, arguments)])
    return done.stdout, done.exception


def write(folder: Path, name: str, label_map: LabelMap) -> Path:
    path = folder / f"{name}.json"
    path.write_text(label_map.model_dump_json())
    return path


def test_a_study_and_an_equal_map_have_no_difference(tmp_path: Path) -> None:
    out, error = run(STUDY, write(tmp_path, "same", SAME))
    assert error is None
    assert SAME.digest[:12] in out


def test_other_codes_are_named_and_pass(tmp_path: Path) -> None:
    other = LabelMap(labels={"background": 0, "anterior": 5, "posterior": 6}, version="2")
    out, error = run(STUDY, write(tmp_path, "codes", other))
    assert error is None
    assert "code 5" in out


def test_a_swapped_order_exits_5_and_says_which_ids_moved(tmp_path: Path) -> None:
    swapped = LabelMap(labels={"background": 0, "posterior": 2, "anterior": 1})
    out, error = run(write(tmp_path, "a", SAME), write(tmp_path, "b", swapped), "--json")
    assert isinstance(error, GateRefused)
    assert (error.exit_code, error.code) == (5, "LABEL_MAP")
    assert '"breaks": true' in out


def test_the_word_diff_before_two_label_maps_changes_nothing(tmp_path: Path) -> None:
    other = write(tmp_path, "codes", LabelMap(labels={"background": 0, "anterior": 5, "posterior": 6}))
    assert [str(part) for part in run("diff", STUDY, other)] == [str(part) for part in run(STUDY, other)]
    assert [str(part) for part in run("--json", "diff", STUDY, other)] == [str(part) for part in run(STUDY, other, "--json")]


def test_a_study_folder_called_diff_is_compared_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diff").mkdir()
    (tmp_path / "diff" / "study.yaml").write_text(STUDY.read_text())
    monkeypatch.chdir(tmp_path)
    for words in (("diff",), ("diff", STUDY), ("./diff", STUDY), ("diff", "./diff", STUDY)):
        assert run(*words)[1] is None


def test_one_map_is_shown_with_its_digest() -> None:
    out, error = run(STUDY)
    assert error is None
    assert SAME.digest[:12] in out


@pytest.mark.parametrize("text", [None, "{}", "not json", '{"labels": {"background": 0}}'])
def test_what_is_no_label_map_is_wrong_use(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "map.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_label_map(path)
    assert caught.value.code == "NO_LABELS"
