"""A real Dask scheduler with two real workers gives the answers of one process: same values, same order, same losses."""

import os
import time
from functools import partial

import numpy as np
import pytest
from distributed import LocalCluster
from tests.adapters.received import STUDY, write_received

from bedside.adapters import dask
from bedside.adapters.dask import Batch, DaskExecutor, Limits, limited, slurm_cluster
from bedside.adapters.processes import LocalProcesses
from bedside.adapters.site import executor_for
from bedside.core.config import Config, Study
from bedside.core.errors import InputRejected, ResourceError, UsageError
from bedside.core.ports import InlineExecutor, Lost
from bedside.core.site import Site
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.formats.dicom import assemble, look
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest

from . import dask_work, work
from .test_processes import DEATHS
from .test_site import config

LIMITS = Limits(memory_gb=1, seconds=0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, repository):
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(repository)  # the workers import the tests' functions
    try:
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as started:
            yield started
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


@pytest.fixture
def executor(cluster):
    with DaskExecutor(cluster.scheduler_address, limits=LIMITS) as entered:
        yield entered


def test_results_come_in_the_order_of_the_items(executor):
    assert list(executor.map(work.square, range(500))) == [number * number for number in range(500)]
    assert list(executor.map(work.slowest_first, range(20))) == list(range(20))
    assert list(executor.map(work.square, [])) == []


def test_losses_are_those_of_local_processes(executor):
    items = [0, 1, "segfault", 2, "memory", "exit", 3, "spin", 4, 5]
    expected = [item if isinstance(item, int) else Lost(DEATHS[item]) for item in items]
    assert list(executor.map(work.misbehave, items)) == expected


def test_a_refusal_is_raised_here_after_what_came_before_it(executor):
    running = executor.map(work.refuse, range(10))
    assert [next(running) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputRejected) as caught:
        next(running)
    assert caught.value.code == "ODD"
    with pytest.raises(KeyError):
        list(executor.map(work.defect, ["plain"]))
    assert list(executor.map(work.square, range(4))) == [0, 1, 4, 9]


def test_only_a_few_items_are_ahead_of_a_slow_consumer(executor, tmp_path):
    running = executor.map(partial(work.touch_and_double, str(tmp_path)), range(5000))
    assert [next(running) for _ in range(3)] == [0, 2, 4]
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) <= 4 * dask._MOST_TOGETHER


def test_a_folder_reads_alike_on_a_cluster_in_processes_and_here(executor, tmp_path):
    numbers = np.arange(4 * 3 * 5, dtype=np.int16).reshape(4, 3, 5)
    for name in ("1", "2"):
        write_series(tmp_path / name, Volume.of(numbers, np.diag([1.0, 1.0, 2.0, 1.0])), identity=SeriesIdentity.of("P1", name))
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    files[-1].write_bytes(files[-1].read_bytes()[:-20])
    files.append(tmp_path / "gone")
    readings = []
    with LocalProcesses(2, memory_gb=1, seconds=10) as processes:
        for one in (InlineExecutor(), processes, executor):
            reading = assemble(one.map(look, files))
            found = [(one.source, one.files, one.volume.affine.tolist(), one.volume.array.tolist()) for one in reading.found]
            refused = [(one.files, one.code, one.sentence) for one in reading.refused]
            readings.append((found, refused, reading.duplicates))
    assert len(readings[0][0]) == 1
    assert {code for _, code, _ in readings[0][1]} == {"DCM_TRUNCATED", "FILE_UNREADABLE", "SERIES_INCOMPLETE"}
    assert readings[0] == readings[1] == readings[2]


def test_a_whole_ingest_on_a_cluster_gives_the_same_dataset(cluster, tmp_path):
    received = write_received(tmp_path / "received")
    study = Study.model_validate(STUDY)
    patient = Limits(memory_gb=1, seconds=30)
    with (
        LocalProcesses(2, memory_gb=1, seconds=30) as processes,
        DaskExecutor(cluster.scheduler_address, limits=patient) as executor,
    ):
        datasets = [
            ingest(Config(study, Site(), Workspace(tmp_path / str(at))), received, executor=one)
            for at, one in enumerate((InlineExecutor(), processes, executor))
        ]
    assert len({dataset.digest for dataset in datasets}) == 1
    assert (datasets[0].manifest.accepted, sum(datasets[0].manifest.rejected.values())) == (24, 1)
    assert all(dataset.folder.is_dir() for dataset in datasets)


def test_the_site_s_address_reaches_the_cluster(cluster, tmp_path):
    with executor_for(config(tmp_path, Site(executor=cluster.scheduler_address, worker_seconds=1))) as executor:
        assert isinstance(executor, DaskExecutor)
        assert list(executor.map(work.misbehave, ["sleep", 1])) == [Lost("time"), 1]


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(dask, "_ANSWER_SECONDS", 0.2)
    with (
        pytest.raises(ResourceError, match="No Dask scheduler answers") as caught,
        DaskExecutor("tcp://127.0.0.1:9", limits=LIMITS),
    ):
        pass
    assert caught.value.code == "NO_CLUSTER"


def test_a_cluster_without_workers_is_not_waited_for_without_end(tmp_path):
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", local_directory=str(tmp_path)) as empty,
        DaskExecutor(empty.scheduler_address, limits=LIMITS, patience_seconds=0.1) as executor,
        pytest.raises(ResourceError, match="has no worker"),
    ):
        list(executor.map(work.square, [1]))


@pytest.mark.slow
def test_an_item_on_which_whole_workers_die_is_lost_and_the_others_are_not(executor, monkeypatch):
    monkeypatch.setattr(dask, "limited", dask_work.kill_the_worker_on_7)
    assert list(executor.map(work.square, range(12))) == [Lost("died") if number == 7 else number for number in range(12)]


def test_another_version_of_bedside_is_refused():
    with pytest.raises(UsageError) as caught:
        limited(Batch(work.square, (1,), LIMITS, "0.0.0"))
    assert caught.value.code == "CLUSTER_VERSION"


def test_what_dask_may_log_names_no_item():
    assert "SMITH" not in repr(Batch(work.square, ("SMITH^JOHN",), LIMITS, "1"))


def test_the_job_that_slurm_is_given_asks_for_one_worker_and_its_memory():
    with slurm_cluster(0, Limits(memory_gb=4, seconds=300)) as cluster:
        script = cluster.job_script()
    assert "#SBATCH -J bedside" in script
    assert "#SBATCH --cpus-per-task=1" in script
    assert "#SBATCH --mem=6G" in script
    assert "distributed.cli.dask_worker" in script
    assert "--nthreads 1" in script
