"""Identity that came in is in no byte that the later steps write or say: train, evaluate, promote, accelerate, predict (H1, P1).

The one exception is the DICOM segmentation of a prediction: it goes back beside its source and carries the identity of that.
"""

import json
import logging
import sys
from pathlib import Path

import pytest

from bedside import cli
from bedside.core.digest import digest_bytes
from bedside.core.identity import KEY_VARIABLE
from bedside.data.identities import Search
from bedside.formats.identity_received import write_export

from .seeded_study import seeded_study

SMALL = {
    "network": {"name": "unet", "features": 4, "levels": 2, "residual_units": 0},
    "train": {"minutes": None, "steps": 2, "patch": [16, 16, 4], "batch": 1, "precision": "fp32"},
    "promote": {"gates": [{"name": "provenance"}]},
    "accelerate": {"stages": [{"name": "onnxruntime"}], "cases": 1, "repeats": 1},
}
RESULTS = "segmentation.dcm"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command on the seeded study in this process; its exit code."""
    monkeypatch.setenv(KEY_VARIABLE, "a secret of this test, 32 letters")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "site.yaml").write_text("versioning: off\ntracking: off\nexecutor: inline\nthreads: 1\n")
    study = tmp_path / "study.json"
    study.write_text(json.dumps({**seeded_study("test"), **SMALL}))

    def run(verb, *words):
        monkeypatch.setattr(sys, "argv", ["bedside", verb, str(study), *map(str, words)])
        return cli.run()

    return run


@pytest.fixture
def series(tmp_path) -> Path:
    """A sound series of the seeded export at `received`."""
    root = tmp_path / "received"
    write_export(root)
    return next(path for path in sorted((root / "images").iterdir()) if len(list(path.glob("*.dcm"))) > 1)


def searched(*folders: Path) -> Search:
    """What is found in folders, besides what waits in quarantine as it came and what goes back to the source's archive."""
    search = Search()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            search.text(str(path.relative_to(folder)), "a name")
            if path.is_file() and path.name != RESULTS:
                data = path.read_bytes()
                if path.parent.name != "quarantine" or path.name != digest_bytes(data):
                    search.bytes(data, str(path.relative_to(folder)))
    return search


@pytest.mark.filterwarnings("ignore")
def test_no_seed_is_in_any_byte_that_the_later_commands_write_or_say(tmp_path, command, series, capfd, caplog):
    caplog.set_level(logging.DEBUG, logger="bedside")
    source, results, study = series.parents[1], tmp_path / "results", tmp_path / "test"
    for verb in (("ingest", "--from", source), ("train",), ("evaluate",), ("promote",), ("accelerate",), ("verify",), ("runs",)):
        assert command(*verb) == 0, verb
    assert command("predict", "--from", series, "--to", results) == 0
    assert command("predict", "--from", source / "images", "--to", results, "--json") in {0, 3}
    first = next(series.glob("*.dcm"))
    cut = tmp_path / "cut" / series.name
    cut.mkdir(parents=True)
    (cut / first.name).write_bytes(first.read_bytes()[:3000])
    other = next(path for path in (source / "images").iterdir() if path.name.endswith(" MR"))
    for refused in (cut, cut / first.name, other, source / "clinical.csv"):
        assert command("predict", "--from", refused, "--to", results / "refused") == 3, refused
    assert command("predict", "--from", series / "nothing", "--to", results / "refused") == 2
    assert command("evaluate", "--model", "0000") == 2
    said = capfd.readouterr()
    search = searched(study, results)
    search.text(said.out + said.err + caplog.text, "what was said")
    assert "Traceback" not in said.err
    assert (study / "reports").is_dir()
    assert list(results.rglob(RESULTS))
    assert search.hits == []


@pytest.mark.filterwarnings("ignore")
def test_no_seed_is_told_by_what_the_later_commands_cannot_do(tmp_path, command, series, limited_file_size, capfd, caplog):
    study = tmp_path / "test"
    early = [command(verb) for verb in ("train", "evaluate", "promote", "accelerate")]
    assert set(early) == {2}
    assert command("ingest", "--from", series.parents[1]) == 0
    assert command("train") == 0
    with limited_file_size(4096):
        full = [command("evaluate"), command("predict", "--from", series, "--to", tmp_path / "results")]
    assert full == [6, 6]
    assert command("evaluate") == 0
    weights = next(path for path in (study / "store").glob("*/weights.safetensors"))
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])
    damaged = [command("evaluate"), command("accelerate"), command("predict", "--from", series, "--to", tmp_path / "results")]
    assert all(damaged)
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    search = searched(study)
    search.text(said.out + said.err + caplog.text, "what was said")
    assert search.hits == []
