import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from bedside.core.digest import digest_tree
from bedside.ingest.pipeline import ingest

from .conftest import Received


def test_a_kill_at_any_moment_leaves_what_the_next_run_turns_into_the_same_dataset(batch, configure, study_file, tmp_path):
    batch.add("nan", 9, image=np.full(batch.shape, np.nan, np.float32))
    batch.write("images", "same-as-a", batch.image(0))
    batch.write("labels", "same-as-a", batch.mask())
    config = configure("whole")
    whole = ingest(config, batch.root)
    expected = {"rules_frozen": 1, "quarantined": 2, "duplicate": 1, "case_accepted": 4, "ingested": 1}
    index = (config.workspace.quarantine / "index.jsonl").read_text()
    driver = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(driver), str(study_file), str(tmp_path / "killed"), str(batch.root), "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) > 10
    assert [report["struck"] for report in reports] == [True] * (len(reports) - 1) + [False]
    for report in reports:
        assert report["digest"] == whole.digest, report["at"]
        assert report["intact"], report["at"]
        actions = {action: count for action, count in report["actions"].items() if action != "repair"}
        assert actions == expected, report["at"]
        assert len(report["quarantine"]) == 2
        assert report["unfinished"] == 0, report["at"]
        assert report["index"] == index, report["at"]


def test_a_kill_while_adding_leaves_the_version_before_and_what_the_next_run_turns_into_the_same_version(
    batch, configure, study_file, tmp_path
):
    more = Received(tmp_path / "more")
    more.add("e", 20).add("nan", 9, image=np.full(batch.shape, np.nan, np.float32)).add("a", 0)
    config = configure("whole")
    first = ingest(config, batch.root)
    whole = ingest(config, more.root, add=True)
    assert (whole.manifest.parent, len(whole.manifest.cases)) == (first.digest, 5)
    driver = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(driver), str(study_file), str(tmp_path / "killed"), str(more.root), "13", str(batch.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) > 5
    assert [report["struck"] for report in reports] == [True] * (len(reports) - 1) + [False]
    for report in reports:
        assert report["digest"] == whole.digest, report["at"]
        assert report["parent"] == digest_tree(config.workspace.store / first.digest) == first.digest, report["at"]
        assert report["intact"], report["at"]
        assert (report["actions"]["ingested"], report["actions"]["case_accepted"]) == (2, 5), report["at"]
        assert len(report["quarantine"]) == 2
        assert report["unfinished"] == 0, report["at"]


def test_two_at_once_write_everything_down_once(batch, config, study_file, events):
    script = "import sys; from bedside.core.config import load; from bedside.ingest.pipeline import ingest;"
    script += "print(ingest(load(sys.argv[1], folder=sys.argv[2]), sys.argv[3]).digest)"
    command = [sys.executable, "-c", script, str(study_file), str(config.workspace.folder), str(batch.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate(timeout=300)[0].strip() for process in running}
    assert digests == {ingest(config, batch.root).digest}
    assert len(events(config, "case_accepted")) == 4
    assert len(events(config, "ingested")) == len(events(config, "rules_frozen")) == 1
    assert config.workspace.ledger.verify().intact
