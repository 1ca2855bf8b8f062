"""Under a real SLURM of one node the workers that dask-jobqueue submits give the dataset of one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.adapters.received import STUDY, write_received
from tests.adapters.slurm_server import need_slurm, slurm_server

JOBQUEUE = {"jobqueue": {"slurm": {"queue": "low", "walltime": "00:10:00", "interface": "lo", "log-directory": "logs"}}}
SITE = "versioning: off\ntracking: off\nthreads: 1\nworker_memory_gb: 1\nprocesses: 2\nexecutor: "


def ingest(folder: Path, executor: str, received: Path) -> dict:
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    (folder / "site.yaml").write_text(f"{SITE}{executor}\n")
    command = [sys.executable, "-m", "bedside", "ingest", ".", "--from", str(received), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_an_ingest_over_jobs_of_a_real_slurm_gives_the_dataset_of_one_process(tmp_path, monkeypatch):
    need_slurm()
    received = write_received(tmp_path / "received")
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "jobqueue.yaml").write_text(yaml.safe_dump(JOBQUEUE))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask"))
    here = ingest(tmp_path / "here", "inline", received)
    with slurm_server(tmp_path / "slurm") as environ:
        monkeypatch.setenv("SLURM_CONF", environ["SLURM_CONF"])
        monkeypatch.setenv("PATH", environ["PATH"])
        there = ingest(tmp_path / "there", "slurm", received)
        jobs = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout
    assert there["dataset"] == here["dataset"]
    assert jobs.count("JobName=bedside") == 2
    assert "Registered to" in "".join(log.read_text() for log in (tmp_path / "there" / "logs").iterdir())
