"""What a file does to its decoder never ends `bs.read`, `predict` or `init`: real crashes, and limits of time and memory."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from tests.predict.conftest import crop, store_threshold

import bedside as bs
from bedside.adapters.processes import LocalProcesses
from bedside.core.errors import InputRejected
from bedside.core.ports import InlineExecutor
from bedside.core.workspace import Workspace
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.limited import MODULES, limited, read_limited
from bedside.formats.nifti import write_nifti
from bedside.ingest.propose import look_around
from bedside.predict.pipeline import predict
from bedside.predict.records import PredictSettings

from .crashing import CRASHES, UNGUARDED, write_crashing
from .test_failpoints import STUDY

QUICK = PredictSettings(meshes=(), seg=False)


@pytest.fixture(scope="module")
def workers(repository):
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(repository))
        with LocalProcesses(1, memory_gb=2, seconds=20, modules=(*MODULES, UNGUARDED)) as executor:
            yield executor


def refusal(path, executor):
    with pytest.raises(InputRejected) as refused:
        bs.read(path, executor=executor)
    return refused.value.code, refused.value.exit_code


@pytest.mark.parametrize(("kind", "number"), CRASHES)
def test_a_crash_of_the_decoder_is_a_refusal_of_read(tmp_path, workers, kind, number):
    folder = write_crashing(tmp_path / "series", kind, number)
    assert refusal(folder, workers) == ("LOST_DIED", 3)


def test_without_a_child_the_same_file_ends_the_process(tmp_path, repository):
    """That these files are what they are taken for."""
    folder = write_crashing(tmp_path / "series", *CRASHES[0])
    code = f"import sys, bedside, {UNGUARDED}; from bedside.core.ports import InlineExecutor;"
    code += "bedside.read(sys.argv[1], executor=InlineExecutor())"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, check=False, cwd=repository)
    assert done.returncode < 0


def test_predict_goes_on_with_the_rest_of_a_batch(tmp_path, workers):
    write_crashing(tmp_path / "in" / "bad", *CRASHES[4])
    write_series(tmp_path / "in" / "good", crop(0), identity=SeriesIdentity.of("P"))
    model = store_threshold(Workspace(tmp_path / "study"), min_extent_voxels=1)
    result = predict(model, tmp_path / "in", tmp_path / "to", settings=QUICK, executor=workers)
    assert len(result.cases) == 1
    assert {one.code for one in result.refused} == {"LOST_DIED"}
    assert sum(one.files for one in result.refused) == 3
    assert result.received == 16 + 3
    assert not list(model.workspace.scratch.iterdir())


def test_the_command_predict_ends_with_exit_3_and_a_name(tmp_path, repository):
    """With the site's own processes, which forget the same."""
    folder = write_crashing(tmp_path / "in", *CRASHES[2])
    study = tmp_path / "study"
    digest = store_threshold(Workspace(study), min_extent_voxels=1).digest
    (study / "study.yaml").write_text(json.dumps(STUDY))
    (study / "site.yaml").write_text("versioning: off\ntracking: off\nprocesses: 1\n")
    words = ["predict", str(study), "--model", digest[:8], "--from", str(folder), "--to", str(tmp_path / "to"), "--json"]
    code = "import sys; from bedside.adapters import site; from bedside.cli import main; own = site.executor_for\n"
    code += f"site.executor_for = lambda config, modules=(): own(config, modules=(*modules, '{UNGUARDED}'))\n"
    code += "sys.exit(main())"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=repository)
    assert (done.returncode, "LOST_DIED" in done.stdout + done.stderr) == (3, True), done.stderr[-500:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "to").exists()


def test_init_proposes_from_what_is_left(tmp_path, workers):
    write_crashing(tmp_path / "in" / "bad", *CRASHES[3])
    write_series(tmp_path / "in" / "good", crop(0), identity=SeriesIdentity.of("P"))
    sight = look_around(tmp_path / "in", executor=workers)
    assert sight.refused["LOST_DIED"] == 1
    assert sight.hounsfield[0] == 1


def test_time_and_memory_are_limited_at_the_door_of_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 9, (256, 256, 200)).astype(np.float64)
    write_nifti(tmp_path / "large.nii", noise, np.eye(4))
    with LocalProcesses(1, memory_gb=0.08, seconds=60, modules=MODULES) as small:
        assert refusal(tmp_path / "large.nii", small) == ("LOST_MEMORY", 3)
    (tmp_path / "slow.nii.gz").write_bytes(gzip.compress((tmp_path / "large.nii").read_bytes(), 1))
    with LocalProcesses(1, memory_gb=2, seconds=0.05, modules=MODULES) as hasty:
        assert refusal(tmp_path / "slow.nii.gz", hasty) == ("LOST_TIME", 3)


def test_what_comes_back_from_a_child_is_what_is_decoded_here(tmp_path, workers):
    image = crop(0)
    write_nifti(tmp_path / "a.nii.gz", image.array[0], image.affine)
    (here,) = read_limited(tmp_path / "a.nii.gz", InlineExecutor()).found
    there = limited(here, workers, tmp_path)
    before = sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(there.volume.array, here.volume.array)
    assert there.volume.array.dtype == here.volume.array.dtype
    assert sorted(tmp_path.iterdir()) == before
    there.volume.array[0, 0, 0, 0] += 1  # a copy of the page changes, and no file
    assert there.volume.array[0, 0, 0, 0] == here.volume.array[0, 0, 0, 0] + 1
