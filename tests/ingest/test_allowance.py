"""Conversions keep to the memory that a site allows, and what cannot fit is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from bedside.core.ports import InlineExecutor
from bedside.core.site import Site
from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.header_pass import plain
from bedside.formats.nifti import read_nifti, write_nifti
from bedside.ingest.allowance import Allowance, held_bytes
from bedside.ingest.pairing import Pair
from bedside.ingest.pipeline import ingest

SHAPE = (64, 64, 32)


@pytest.fixture
def pair(tmp_path):
    """One image without a mask."""
    write_nifti(tmp_path / "a.nii", np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16), np.eye(4))
    return Pair("a", "a", read_nifti(tmp_path / "a.nii"), None, ())


def test_a_pair_holds_its_voxels_and_those_of_its_mask(tmp_path, pair):
    voxels = int(np.prod(SHAPE))
    assert held_bytes(pair) == 2 * voxels == pair.image.volume.array.nbytes
    write_nifti(tmp_path / "m.nii", np.zeros(SHAPE, np.uint8), np.eye(4))
    assert held_bytes(replace(pair, mask=read_nifti(tmp_path / "m.nii"))) == 2 * voxels + 2 * voxels


def test_the_size_of_a_series_is_foreseen(tmp_path):
    volume = Volume.of(np.random.default_rng(0).integers(0, 99, (20, 20, 8)).astype(np.int16), np.eye(4))
    write_series(tmp_path / "s", volume, identity=SeriesIdentity.of("P"))
    (found,) = read_folder(tmp_path / "s").found
    assert held_bytes(Pair("s", "s", plain(found), None, ())) == found.volume.array.nbytes


def test_two_of_the_largest_are_the_usual_room(pair):
    large = replace(pair.image, volume=Volume(np.eye(4), (1, 512, 512, 400), pair.image.volume.load))
    largest = replace(pair, image=large)
    assert Allowance(1 << 40).room([pair, largest]).total_bytes == 2 * held_bytes(largest)
    assert Allowance(300 << 20).room([pair, largest]).total_bytes == 300 << 20
    assert Allowance(1 << 40, wanted=True).room([pair]).total_bytes == 1 << 40
    assert Allowance(1 << 40).room([pair]).total_bytes == 128 << 20
    assert Allowance().room([pair]) is None
    assert 0 < Allowance.of(Site()).most_bytes < 1 << 44
    assert Allowance.of(Site(volumes_gb=0.5)) == Allowance(1 << 29, wanted=True)


def test_an_image_that_does_not_fit_alone_is_refused_and_the_others_are_taken(batch, configure):
    batch.write("images", "large", np.random.default_rng(0).integers(0, 99, (80, 80, 80)).astype(np.int16))
    batch.write("labels", "large", np.zeros((80, 80, 80), np.uint8))
    config = configure()
    tight = replace(config, site=config.site.model_copy(update={"volumes_gb": 0.001}))
    manifest = ingest(tight, batch.root, executor=InlineExecutor()).manifest
    assert manifest.rejected == {"VOLUME_MEMORY": 2}
    assert "raise site.volumes_gb" in manifest.reasons["VOLUME_MEMORY"]
    assert [case.id for case in manifest.cases] == ["a", "b", "c", "d"]


def test_the_room_changes_nothing_of_the_dataset(batch, configure):
    digests = set()
    for number, gb in enumerate((None, 0.5, 0.001)):
        config = configure(f"study{number}")
        site = config.site.model_copy(update={"volumes_gb": gb, "executor": "processes", "processes": 3})
        digests.add(ingest(replace(config, site=site), batch.root).digest)
    assert len(digests) == 1
