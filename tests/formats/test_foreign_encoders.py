"""A series that DCMTK has encoded anew, in every way that it knows, is read voxel by voxel in the same place.

The streams differ from ours and from pydicom's: other predictors, fragments of a kilobyte, no offset table, groups with lengths.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.needs import need_programs

from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series

from .segmented import affine_of, rotation

ENCODERS = (
    "dcmconv +ti",
    "dcmconv +tb",
    "dcmconv +td",
    "dcmconv +te -e",
    "dcmconv +te +e +g",
    "dcmconv +te +p 1024 512",
    "dcmcrle",
    "dcmcrle +fs 1",
    "dcmcrle -ot",
    "dcmcjpeg +e1",
    "dcmcjpeg +el +sv 6",
    "dcmcjpeg +e1 +fs 1",
    "dcmcjpls +el",
    "dcmcjpls +el +fs 1",
)
ASKED = {"CT": (-1000, 3000, np.int16), "MR": (0, 4000, np.int16)}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("modality", ASKED)
def test_a_series_is_read_as_it_was_before(tmp_path: Path, encoder: str, modality: str) -> None:
    need_programs("NO FOREIGN ENCODER WAS TRIED", [encoder.split()[0]], debian="dcmtk")
    low, high, kind = ASKED[modality]
    values = np.random.default_rng(0).integers(low, high, (40, 32, 5)).astype(kind)
    values[:16] = values[0, 0, 0]  # runs, for those that count them
    volume = Volume.of(values, affine_of(rotation(37.0, np.array((1, 2, 3)))))
    paths = write_series(tmp_path / "plain", volume, identity=SeriesIdentity.of("P1", modality=modality))
    (tmp_path / "encoded").mkdir()
    for path in paths:
        program, *options = encoder.split()
        subprocess.run([program, *options, str(path), str(tmp_path / "encoded" / path.name)], check=True, timeout=60)
    (before,), (after,) = read_folder(tmp_path / "plain").found, read_folder(tmp_path / "encoded").found
    np.testing.assert_array_equal(after.volume.array, before.volume.array)
    np.testing.assert_array_equal(after.volume.affine, before.volume.affine)
    assert (tmp_path / "encoded" / paths[0].name).read_bytes() != paths[0].read_bytes()
