"""Claims about the numbers of a dataset that a plan is made from."""

import numpy as np
import pytest

from bedside.core.errors import InputRejected
from bedside.core.progress import SILENT
from bedside.train.fingerprint import fingerprint


def numbers(config, dataset, **how):
    return fingerprint(dataset, dataset.cases("development"), task=config.study.task, progress=SILENT, **how)


def test_numbers_are_those_of_the_cases(config, dataset):
    found = numbers(config, dataset)
    cases = dataset.cases("development")
    assert found.cases == len(cases)
    assert found.shape == (20, 18, 16)
    assert found.spacing_mm == (1.0, 1.0, 1.0)
    assert found.extent_mm == (20.0, 18.0, 16.0)
    assert found.same_spacing
    assert found.structures == 1
    balls = [int(np.asarray(case.volumes["label"].array).sum()) for case in cases]
    assert found.smallest_ml == pytest.approx(np.median(balls) / 1000, abs=1e-3)
    assert found.foreground_share == pytest.approx(np.median(balls) / (20 * 18 * 16), abs=1e-5)
    assert 1.0 < found.values[0] < found.values[1] < found.values[2] < 5.0  # balls are 3 in noise of 0.5


def test_numbers_are_kept_and_read_again_and_a_damaged_file_is_measured_anew(config, dataset):
    found = numbers(config, dataset)
    (file,) = dataset.workspace.scratch.glob("fingerprint-*.json")
    assert numbers(config, dataset) == found
    file.write_text("{}")
    assert numbers(config, dataset) == found


def test_without_keeping_nothing_is_written(config, dataset):
    numbers(config, dataset, keep=False)
    assert not list(dataset.workspace.scratch.glob("fingerprint-*"))


class Empty:
    def target(self, case):
        return np.zeros((20, 18, 16), np.uint8)


def test_masks_without_any_structure_are_refused(dataset):
    with pytest.raises(InputRejected, match="every mask is empty") as caught:
        fingerprint(dataset, dataset.cases("development"), task=Empty(), progress=SILENT)
    assert caught.value.code == "NO_FOREGROUND"
