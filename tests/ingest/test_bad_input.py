"""Each kind of bad input: named, kept in quarantine, and the rest of the batch goes on."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.formats.unknown import as_unknown

from bedside.core.errors import UsageError
from bedside.core.ports import InlineExecutor, Lost
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest

GRID = np.diag([-1.0, -1.5, 2.0, 1.0])


def truncated(batch):
    batch.add("bad", 9)
    path = batch.path("images", "bad")
    path.write_bytes(path.read_bytes()[:-40])


def truncated_mask(batch):
    batch.add("bad", 9)
    path = batch.path("labels", "bad")
    path.write_bytes(path.read_bytes()[:-20])


def no_nifti(batch):
    batch.path("images", "bad").write_bytes(b"GIF89a" * 100)
    batch.write("labels", "bad", batch.mask())


def empty(batch):
    batch.path("images", "bad").write_bytes(b"")
    batch.write("labels", "bad", batch.mask())


def other_shape(batch):
    batch.add("bad", 9, mask=batch.mask()[:, :, :3])


def other_place(batch):
    shifted = batch.affine.copy()
    shifted[2, 3] += 0.2
    batch.add("bad", 9, mask_affine=shifted)


def unknown_code(batch):
    mask = batch.mask()
    mask[0, 0, 0] = 5
    batch.add("bad", 9, mask=mask)


def fractional_code(batch):
    mask = batch.mask().astype(np.float32)
    mask[0, 0, 0] = 6.5
    batch.add("bad", 9, mask=mask)


def nan_code(batch):
    mask = batch.mask().astype(np.float32)
    mask[0, 0, 0] = np.nan
    batch.add("bad", 9, mask=mask)


def nan_image(batch):
    image = batch.image(9).astype(np.float32)
    image[0, 0, 0] = np.nan
    batch.add("bad", 9, image=image)


def constant_image(batch):
    batch.add("bad", 9, image=np.full(batch.shape, 40, np.int16))


def coarse_image(batch):
    batch.write("images", "bad", batch.image(9), np.diag([6.0, 1, 1, 1]))
    batch.write("labels", "bad", batch.mask(), np.diag([6.0, 1, 1, 1]))


def flat_image(batch):
    batch.add("bad", 9, image=batch.image(9)[:, :, :1], mask=batch.mask()[:, :, :1])


def no_mask(batch):
    batch.write("images", "bad", batch.image(9))


def no_image(batch):
    batch.write("labels", "bad", batch.mask())


def two_images(batch):
    batch.add("bad", 9)
    packed = batch.path("images", "bad")
    (batch.root / "images" / "bad.nii").write_bytes(gzip.decompress(packed.read_bytes()))


def two_masks(batch):
    batch.add("bad", 9)
    (batch.root / "labels" / "bad.nii").write_bytes(gzip.decompress(batch.path("labels", "bad").read_bytes()))


def two_series(batch):
    for number in (1, 2):
        identity = SeriesIdentity.of("p", str(number))
        write_series(batch.root / "images" / "bad" / str(number), Volume.of(batch.image(9 + number), GRID), identity=identity)
    for path in sorted((batch.root / "images" / "bad").rglob("*.dcm")):
        path.rename(batch.root / "images" / "bad" / f"{path.parent.name}-{path.name}")
    batch.write("labels", "bad", batch.mask(), GRID)


def other_modality(batch):
    write_series(batch.root / "images" / "bad", Volume.of(batch.image(9), GRID), identity=SeriesIdentity.of("p", modality="MR"))
    batch.write("labels", "bad", batch.mask(), GRID)


def lost_slice(batch):
    paths = write_series(batch.root / "images" / "bad", Volume.of(batch.image(9), GRID), identity=SeriesIdentity.of("p"))
    paths[1].unlink()
    batch.write("labels", "bad", batch.mask(), GRID)


def conflicting_mask(batch):
    batch.add("bad", 0, mask=batch.mask()[::-1].copy())


def text_among_masks(batch):
    (batch.root / "labels" / "README.txt").write_text("masks")


def text_among_images(batch):
    (batch.root / "images" / "README.txt").write_text("images")


def link_out(batch):
    (batch.root / "images" / "bad.nii.gz").symlink_to(batch.path("images", "a"))
    batch.write("labels", "bad", batch.mask())


def link_to_folder(batch):
    (batch.root / "images" / "bad").symlink_to(batch.root / "labels")


def pipe(batch):
    os.mkfifo(batch.root / "images" / "bad.nii")


BAD = [
    (truncated, {"NII_TRUNCATED": 1, "LABEL_ORPHAN": 1}),
    (truncated_mask, {"NII_TRUNCATED": 1, "LABEL_MISSING": 1}),
    (no_nifti, {"NII_NOT_NIFTI": 1, "LABEL_ORPHAN": 1}),
    (empty, {"FILE_EMPTY": 1, "LABEL_ORPHAN": 1}),
    (other_shape, {"LABEL_SHAPE": 2}),
    (other_place, {"LABEL_GEOMETRY": 2}),
    (unknown_code, {"LABEL_VALUES": 2}),
    (fractional_code, {"LABEL_VALUES": 2}),
    (nan_code, {"LABEL_VALUES": 2}),
    (nan_image, {"NOT_FINITE": 1, "LABEL_ORPHAN": 1}),
    (constant_image, {"CONSTANT": 1, "LABEL_ORPHAN": 1}),
    (coarse_image, {"SPACING": 1, "LABEL_ORPHAN": 1}),
    (flat_image, {"EXTENT": 1, "LABEL_ORPHAN": 1}),
    (no_mask, {"LABEL_MISSING": 1}),
    (no_image, {"LABEL_ORPHAN": 1}),
    (two_images, {"LABEL_AMBIGUOUS": 3}),
    (two_masks, {"LABEL_AMBIGUOUS": 3}),
    (two_series, {"LABEL_AMBIGUOUS": 9}),
    (other_modality, {"MODALITY": 4, "LABEL_ORPHAN": 1}),
    (lost_slice, None),
    (conflicting_mask, {"LABEL_CONFLICT": 2}),
    (text_among_masks, {"LABEL_FORMAT": 1}),
    (text_among_images, {"DCM_NOT_DICOM": 1}),
    (link_out, {"FILE_KIND": 1, "LABEL_ORPHAN": 1}),
    (link_to_folder, {"FILE_KIND": 1}),
    (pipe, {"FILE_KIND": 1}),
]


@pytest.mark.parametrize(("spoil", "rejected"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_bad_input_is_refused_by_name_and_the_rest_goes_on(batch, config, events, refusals, spoil, rejected):
    spoil(batch)
    dataset = ingest(config, batch.root)
    manifest = dataset.manifest
    assert [case.id for case in manifest.cases] == ["a", "b", "c", "d"]
    named = {volume.file for case in manifest.cases for volume in case.volumes.values()}
    assert {path.name for path in dataset.folder.iterdir()} == {*named, "manifest.json"}
    assert manifest.received == batch.count()
    assert manifest.received == manifest.accepted + manifest.duplicates + sum(manifest.rejected.values())
    if rejected is not None:
        assert manifest.rejected == rejected
    lines = refusals(config)
    assert {line["code"] for line in lines} == set(manifest.rejected)
    assert sum(len(line["files"]) for line in lines) == sum(manifest.rejected.values())
    quarantined = events(config, "quarantined")
    assert [(e.inputs["received"], e.facts["code"], e.facts["sentence"]) for e in quarantined] == [
        (line["received"], line["code"], line["sentence"]) for line in lines
    ]
    assert all(line["sentence"].endswith(".") and "bad" not in line["sentence"] for line in lines)


def test_refused_bytes_lie_in_quarantine_unchanged_and_read_only(batch, config, refusals):
    truncated(batch)
    ingest(config, batch.root)
    line = next(line for line in refusals(config) if line["code"] == "NII_TRUNCATED")
    kept = config.workspace.quarantine / line["files"][0]
    assert kept.read_bytes() == batch.path("images", "bad").read_bytes()
    assert kept.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("missing", ["images", "labels", ""])
def test_a_missing_folder_is_a_usage_error_that_names_it(received, config, missing):
    for path in sorted(received.root.rglob("*"), reverse=True):
        if missing in {path.name, ""}:
            path.rmdir()
    with pytest.raises(UsageError, match=r"There is no (images|labels) folder") as caught:
        ingest(config, received.root)
    assert (caught.value.code, caught.value.exit_code) == ("NO_SOURCE", 2)
    assert not config.workspace.folder.exists()


def test_one_folder_for_images_and_masks_is_a_usage_error(received, configure):
    with pytest.raises(UsageError, match="same folder"):
        ingest(configure(source={"images": "images", "labels": "images", "identity": "keep"}), received.root)


def test_masks_may_lie_inside_the_images_folder(batch, configure):
    (batch.root / "labels").rename(batch.root / "images" / "labels")
    config = configure(source={"images": "images", "labels": "images/labels", "identity": "keep"})
    assert ingest(config, batch.root).manifest.accepted == 8


INGEST = """
import resource, sys
from bedside.core.config import load
from bedside.core.errors import BedsideError
from bedside.ingest.pipeline import ingest
study, folder, source, *limit = sys.argv[1:]
config = load(study, folder=folder)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), int(limit[0])))
try:
    ingest(config, source)
except BedsideError as error:
    print(error.code)
    sys.exit(error.exit_code)
"""

WITHOUT_RIGHTS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # prctl(2), capabilities(7)
for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
    if ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, right, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "root could not give a right away")
os.execv(sys.argv[1], sys.argv[1:])
"""


def as_plain_user(study_file, config, batch):
    """Ingest in a process that has no more rights than the files' owner gives."""
    command = [sys.executable, "-c", INGEST, str(study_file), str(config.workspace.folder), str(batch.root)]
    if os.geteuid() == 0:
        command = [sys.executable, "-c", WITHOUT_RIGHTS, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout.strip(), done.stderr


def test_a_file_that_this_user_may_not_read_is_refused_and_the_rest_goes_on(batch, config, study_file, refusals):
    truncated(batch)
    batch.path("images", "bad").chmod(0)
    assert as_plain_user(study_file, config, batch) == (0, "", "")
    assert {line["code"] for line in refusals(config)} == {"FILE_UNREADABLE", "LABEL_ORPHAN"}


def test_a_folder_that_cannot_be_listed_is_a_usage_error_because_its_files_cannot_be_counted(batch, config, study_file):
    folder = batch.root / "images" / "closed"
    folder.mkdir(mode=0)
    assert as_plain_user(study_file, config, batch) == (2, "SOURCE_UNREADABLE", "")
    assert not config.workspace.folder.exists()


def test_more_structures_than_a_byte_can_name_are_a_usage_error(batch, configure):
    labels = {f"structure{code}": code for code in range(257)}
    config = configure(contract={"modality": "CT", "spacing_mm": [0.5, 5.0], "labels": labels})
    with pytest.raises(UsageError, match="257 structures") as caught:
        ingest(config, batch.root)
    assert caught.value.code == "TOO_MANY_STRUCTURES"


class Slow(InlineExecutor):
    """Lets something happen to the received files between the header pass and the reading of pixels."""

    def __init__(self, meanwhile):
        self.meanwhile = meanwhile
        self.calls = 0

    def map(self, function, items, **how):
        self.calls += 1
        if self.calls == 3:  # headers, headers to look at again, then pixels
            self.meanwhile()
        return super().map(function, items, **how)


def test_a_series_that_is_still_arriving_is_refused_and_the_rest_goes_on(batch, configure):
    folder = batch.root / "images" / "bad"
    paths = write_series(folder, Volume.of(batch.image(11), GRID), identity=SeriesIdentity.of("p"))

    def spoil():
        for path in paths:
            path.write_bytes(path.read_bytes() + b"\0\0")

    config = configure(source={"images": "images", "labels": None, "identity": "keep"})
    manifest = ingest(config, batch.root, executor=Slow(spoil)).manifest
    assert manifest.rejected == {"FILE_CHANGED": 4}
    assert [case.id for case in manifest.cases] == ["a", "b", "c", "d"]


class Losing(InlineExecutor):
    """Loses the worker of every item that holds a file of one name, and of one function only."""

    def __init__(self, name, why, *, task):
        self.name, self.why, self.task = name, why, task

    def map(self, function, items, **how):
        at = getattr(function, "func", function).__name__
        for item in items:
            if at.startswith(self.task) and self.name in repr_of(item):
                yield Lost(self.why)
            else:
                yield function(item)


def repr_of(item):
    """Names of the files of an item, whatever it is."""
    paths = item if isinstance(item, tuple) else getattr(item, "files", (item,))
    return " ".join(path.name for path in paths)


@pytest.mark.parametrize("why", ["died", "memory", "time"])
@pytest.mark.parametrize("task", ["look_at", "convert"])
def test_a_file_that_costs_its_worker_is_refused_by_name_and_no_other(batch, config, why, task):
    batch.add("bad", 9)
    manifest = ingest(config, batch.root, executor=Losing("bad", why, task=task)).manifest
    assert manifest.rejected == {f"LOST_{why.upper()}": 2}
    assert [case.id for case in manifest.cases] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("written", ["explicit", "UN"])
@pytest.mark.parametrize("place", ["own folder", "mixed folder"])
def test_a_slice_that_costs_its_worker_is_never_left_out_of_a_volume(batch, configure, place, written):
    """Without its last slice a series would look whole."""
    folder = batch.root / "images" / "bad"
    write_series(folder, Volume.of(batch.image(11), GRID), identity=SeriesIdentity.of("p"))
    if place == "mixed folder":
        for number, path in enumerate(
            write_series(folder / "x", Volume.of(batch.image(12), GRID), identity=SeriesIdentity.of("q"))
        ):
            path.rename(folder / f"q{number}")
    for path in folder.glob("*.dcm") if written == "UN" else ():
        path.write_bytes(as_unknown(path.read_bytes()))
    lost = sorted(folder.glob("*.dcm"))[-1].name
    config = configure(source={"images": "images", "labels": None, "identity": "keep"})
    manifest = ingest(config, batch.root, executor=Losing(lost, "died", task="look_at")).manifest
    assert manifest.rejected == {"LOST_DIED": 1, "SERIES_INCOMPLETE": 3}
    assert {case.patient for case in manifest.cases} == {"a", "b", "c", "d", *(["q"] if place == "mixed folder" else [])}


@pytest.mark.parametrize("limit", [200, 2500, 30_000])
def test_a_full_disk_is_a_resource_error_and_nothing_is_lost(batch, config, study_file, limit):
    """A limit on file size stands in for the disk: the ledger, then the quarantine, then an array no longer fits."""
    rng = np.random.default_rng(0)
    batch.add("large", 9, image=rng.integers(0, 99, (40, 40, 20)).astype(np.int16), mask=np.zeros((40, 40, 20), np.uint16))
    batch.write("images", "lonely", rng.integers(0, 9999, (20, 20, 20)).astype(np.int16))
    command = [sys.executable, "-c", INGEST, str(study_file), str(config.workspace.folder), str(batch.root), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (6, "DISK_FULL", "")
    assert config.workspace.ledger.verify().intact
    assert config.workspace.digests() == ()
    assert list(config.workspace.folder.rglob(".*")) == []
    manifest = ingest(config, batch.root).manifest
    assert manifest.accepted == 10
    assert manifest.rejected == {"LABEL_MISSING": 1}
    assert config.workspace.ledger.verify().intact
