"""Trainings under a real SLURM: preempted, and of several nodes, they end with the bits of those that never were."""

import json
import subprocess
import sys
import time

import pytest
import yaml
from tests.adapters.slurm_server import need_slurm, slurm_server
from tests.train.conftest import put_dataset, write_study
from tests.train.test_distributed import NETWORK

from bedside.core.config import load
from bedside.core.digest import digest_file
from bedside.train.checkpoint import newest_position

STEPS = 2400
TOGETHER = 300
LONGER_SECONDS = 75
"""Of steps: more than a sitting of two minutes has until SLURM, which looks every 30 s, gives a signal 40 s ahead or earlier."""


def bedside(*words: object) -> str:
    command = [sys.executable, "-m", "bedside", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(folder) -> str:
    config = load(folder)
    event = config.workspace.ledger.last("trained")
    return "" if event is None else digest_file(config.workspace.store / event.outputs["model"] / "weights.safetensors")


def restarts(job: str) -> int:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return int(shown.split("Restarts=")[1].split()[0])


def wait_for(reached, *, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{what} did not happen in {seconds:g} s"
        time.sleep(0.3)


@pytest.mark.slow
def test_a_job_that_is_preempted_twice_ends_with_the_weights_of_one_that_never_was(tmp_path, monkeypatch):
    need_slurm()
    straight = write_study(tmp_path / "straight", steps=STEPS)
    config = load(straight)
    put_dataset(config.workspace, config.study.contract)
    bedside("train", straight)

    folder = write_study(tmp_path / "jobs", steps=STEPS)
    often = ("--set", "train.checkpoint_minutes=0.005")
    config = load(folder)
    put_dataset(config.workspace, config.study.contract)
    site = "slurm: {partition: low, cores: 2, memory_gb: 3, minutes: 10, grace_seconds: 20}\n"
    with (folder / "site.yaml").open("a") as file:
        file.write(site)
    with slurm_server(tmp_path / "slurm") as environ:
        monkeypatch.setenv("SLURM_CONF", environ["SLURM_CONF"])
        monkeypatch.setenv("PATH", environ["PATH"])
        job = bedside("train", folder, "--on", "slurm", *often).split("job ")[1].split(":")[0]
        log = folder / "scratch" / "jobs" / f"{job}.log"
        reached = 0
        for count in (1, 2):
            wait_for(lambda reached=reached: step(folder) > reached, seconds=120, what="work")
            urgent = ["sbatch", "--partition=high", "--cpus-per-task=2", "--mem=3000", "--output=/dev/null", "--wrap=sleep 1"]
            subprocess.run(urgent, check=True, capture_output=True)
            wait_for(lambda count=count: restarts(job) >= count, seconds=120, what=f"preemption {count}")
            reached = step(folder)
        wait_for(lambda: weights(folder), seconds=240, what="the end")
    assert log.read_text().count("back into the queue") == 2
    assert weights(folder) == weights(straight)


@pytest.mark.slow
def test_a_job_that_reaches_its_time_limit_goes_on_in_the_next_and_ends_with_the_weights_of_one_that_was_never_stopped(
    tmp_path, monkeypatch
):
    need_slurm()
    probe = write_study(tmp_path / "probe", steps=100)
    config = load(probe)
    put_dataset(config.workspace, config.study.contract)
    steps = round(LONGER_SECONDS / json.loads(bedside("train", probe, "--json"))["seconds_per_step"])
    straight, folder = (write_study(tmp_path / name, steps=steps) for name in ("straight", "jobs"))
    for one in (straight, folder):
        config = load(one)
        put_dataset(config.workspace, config.study.contract)
    bedside("train", straight)
    with (folder / "site.yaml").open("a") as file:
        file.write("slurm: {partition: low, cores: 2, memory_gb: 3, minutes: 2, grace_seconds: 40}\n")
    with slurm_server(tmp_path / "slurm") as environ:
        monkeypatch.setenv("SLURM_CONF", environ["SLURM_CONF"])
        monkeypatch.setenv("PATH", environ["PATH"])
        job = bedside("train", folder, "--on", "slurm", "--set", "train.checkpoint_minutes=60").split("job ")[1].split(":")[0]
        log = folder / "scratch" / "jobs" / f"{job}.log"
        wait_for(lambda: restarts(job) >= 1, seconds=180, what="the time limit")
        saved = step(folder)
        assert 0 < saved < steps
        wait_for(lambda: weights(folder), seconds=600, what="the end")
        assert restarts(job) == log.read_text().count("back into the queue")
    assert weights(folder) == weights(straight)


@pytest.mark.slow
def test_a_training_of_two_nodes_ends_with_the_weights_of_two_processes_here_though_it_was_preempted(tmp_path, monkeypatch):
    need_slurm()
    often = ("--set", "train.checkpoint_minutes=0.005")
    here, folder = (write_study(tmp_path / name, steps=TOGETHER) for name in ("here", "nodes"))
    for one in (here, folder):
        text = yaml.safe_load((one / "study.yaml").read_text())
        (one / "study.yaml").write_text(yaml.safe_dump(text | {"network": NETWORK}, sort_keys=False))
        config = load(one)
        put_dataset(config.workspace, config.study.contract)
    bedside("train", here, "--processes", "2")
    with (folder / "site.yaml").open("a") as file:
        file.write("slurm: {partition: low, nodes: 2, cores: 1, memory_gb: 3, minutes: 10, grace_seconds: 20}\n")
    with slurm_server(tmp_path / "slurm", nodes=2) as environ:
        monkeypatch.setenv("SLURM_CONF", environ["SLURM_CONF"])
        monkeypatch.setenv("PATH", environ["PATH"])
        job = bedside("train", folder, "--on", "slurm", *often).split("job ")[1].split(":")[0]
        log = folder / "scratch" / "jobs" / f"{job}.log"
        wait_for(lambda: step(folder) > 0, seconds=600, what="work")
        urgent = ["sbatch", "--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem=3000"]
        subprocess.run([*urgent, "--output=/dev/null", "--wrap=sleep 1"], check=True, capture_output=True)
        wait_for(lambda: restarts(job) >= 1, seconds=120, what="preemption")
        wait_for(lambda: weights(folder), seconds=300, what="the end")
    assert log.read_text().count("back into the queue") == 1
    assert weights(folder) == weights(here)


def step(folder) -> int:
    found = [newest_position(place) for place in folder.glob("scratch/train-*")]
    return max((position.step for position in found if position), default=0)
