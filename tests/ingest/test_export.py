"""A hospital export is any tree: mixed folders, odd names, spread series. The digest depends on the files alone."""

import os
import random
import time

import numpy as np
import pydicom
import pytest

from bedside.adapters.processes import LocalProcesses
from bedside.core.ports import InlineExecutor
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.nifti import write_nifti
from bedside.ingest import stats
from bedside.ingest.pipeline import ingest, plan, summary

GRID = np.diag([-1.0, -1.5, 2.0, 1.0])
ANY_TREE = {"images": ".", "labels": None, "identity": "keep"}
NO_TEST = {"test": 0.0, "folds": 2}
WITH_MASKS = {"images": ".", "labels": "masks", "identity": "keep"}


@pytest.fixture
def export(tmp_path):
    """Writes series into one tree, and empties what a series' own folder was."""
    root = tmp_path / "export"
    root.mkdir()

    def add(number, where, *, patient=None, name="{number}-{file}"):
        volume = Volume.of(np.random.default_rng(number).integers(-900, 900, (6, 5, 7)).astype(np.int16), GRID)
        identity = SeriesIdentity.of(patient or f"p{number}", str(number))
        paths = []
        for slice_number, path in enumerate(write_series(tmp_path / "own" / str(number), volume, identity=identity)):
            folder = root / (where[slice_number % len(where)] if isinstance(where, list) else where)
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(path.rename(folder / name.format(number=number, slice=slice_number, file=path.name)))
        return paths

    add.root = root
    return add


def mess(export):
    """Everything at once: loose files, mixed, deep and spread folders, junk, repetitions, a link, names without suffix."""
    export(1, ".", name="IM{slice}")
    export(2, "mixed")
    export(3, "mixed")
    export(4, "a/b/c/alone")
    export(5, ["left", "right", "left/deeper"])
    export(6, "mixed", patient="p2")
    copied = export.root / "again"
    copied.mkdir()
    for path in (export.root / "a/b/c/alone").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    directory = pydicom.Dataset()
    directory.FileSetID = "EXPORT"
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    directory.save_as(export.root / "DICOMDIR", enforce_file_format=True)
    (export.root / "mixed" / ".DS_Store").write_bytes(b"junk")
    (export.root / "README").write_text("made on a Monday")
    (export.root / "mixed" / "empty").write_bytes(b"")
    (export.root / "mixed" / "link").symlink_to(export.root / "README")


def test_any_tree_is_an_export(export, configure):
    mess(export)
    manifest = ingest(configure(source=ANY_TREE), export.root).manifest
    assert len(manifest.cases) == 6
    assert {case.patient for case in manifest.cases} == {"p1", "p2", "p3", "p4", "p5"}
    assert "a/b/c/alone" not in {case.id for case in manifest.cases}
    assert set(manifest.rejected) == {"DCM_NOT_DICOM", "DCM_DIRECTORY", "FILE_EMPTY", "FILE_KIND"}
    files = [path for path in export.root.rglob("*") if path.is_symlink() or not path.is_dir()]
    assert manifest.received == len(files) == 6 * 7 + 7 + 5
    assert manifest.accepted == 6 * 7
    assert manifest.duplicates == 7
    assert sum(manifest.rejected.values()) == 5


def test_the_digest_is_the_same_whatever_did_the_work_and_in_whatever_order_files_are_listed(export, configure, monkeypatch):
    mess(export)
    digests = {"inline": ingest(configure("inline", source=ANY_TREE), export.root, executor=InlineExecutor()).digest}
    for workers in (1, 2, 4):
        with LocalProcesses(workers, memory_gb=2, seconds=60) as executor:
            digests[workers] = ingest(configure(f"w{workers}", source=ANY_TREE), export.root, executor=executor).digest
    walk = os.walk

    def shuffled(top, **options):
        for place, folders, files in walk(top, **options):
            random.Random(len(files)).shuffle(files)
            folders.sort(reverse=True)
            yield place, folders, files

    monkeypatch.setattr(os, "walk", shuffled)
    digests["shuffled"] = ingest(configure("shuffled", source=ANY_TREE), export.root).digest
    assert len(set(digests.values())) == 1, digests


def test_a_series_is_called_the_same_wherever_it_lies_among_others(export, configure):
    """Its name comes from the SeriesInstanceUID, which is nowhere to be read."""
    for number in (1, 2, 3, 4):
        export(number, "mixed")
    config = configure(source=ANY_TREE)
    first = {case.volumes["image"].file: case.id for case in ingest(config, export.root).manifest.cases}
    (export.root / "mixed").rename(export.root / "renamed")
    for path in (export.root / "renamed").glob("1-*"):
        path.rename(export.root / path.name)
    export(5, "renamed")
    export(6, ".")
    second = {case.volumes["image"].file: case.id for case in ingest(config, export.root).manifest.cases}
    assert {file: second[file] for file in first} == first
    written = (config.workspace.ledger.path.read_text(), *map(str, second.values()))
    assert not any(SeriesIdentity.of(f"p{number}", str(number)).series_uid in text for text in written for number in (1, 2, 3, 4))


def test_series_without_a_patient_that_lie_together_are_one_patient(export, configure):
    """Two patients by mistake would put one person on both sides of a split; one patient by mistake costs a little data."""
    for number in (1, 2):
        for path in export(number, "visit"):
            image = pydicom.dcmread(path)
            image.PatientID = ""
            image.save_as(path)
    for number in (3, 4):
        export(number, "others")
    manifest = ingest(configure(source=ANY_TREE), export.root).manifest
    assert len(manifest.cases) == 4
    assert len({case.patient for case in manifest.cases}) == 3


def test_one_number_from_two_issuers_is_two_patients(export, configure):
    for number, issuer in ((1, "NORTH"), (2, "SOUTH"), (3, "NORTH"), (4, "")):
        for path in export(number, "mixed", patient="4711"):
            image = pydicom.dcmread(path)
            image.IssuerOfPatientID = issuer
            image.save_as(path)
    manifest = ingest(configure(source=ANY_TREE, split=NO_TEST), export.root).manifest
    assert len(manifest.cases) == 4
    assert len({case.patient for case in manifest.cases}) == 3


def test_a_mask_may_be_named_by_its_series(export, configure, received):
    uids = {}
    for number in (1, 2, 3):
        export(number, "mixed")
        uids[number] = SeriesIdentity.of(f"p{number}", str(number)).series_uid
    (export.root / "masks" / "deep").mkdir(parents=True)
    for number, uid in uids.items():
        mask = np.zeros((6, 5, 7), np.uint16)
        mask[:number] = 7
        write_nifti(export.root / "masks" / f"{uid}.nii.gz", mask, GRID)
    manifest = ingest(configure(source=WITH_MASKS), export.root).manifest
    assert manifest.rejected == {}
    assert (len(manifest.cases), manifest.received, manifest.accepted) == (3, 24, 24)
    assert len({case.volumes["label"].file for case in manifest.cases}) == 3


@pytest.mark.parametrize(("same", "expected"), [(True, {}), (False, {"LABEL_CONFLICT": 1})])
def test_the_mask_of_a_repeated_folder_is_compared_with_the_first(export, configure, same, expected):
    for number in (1, 2):
        export(number, f"scan{number}")
    (export.root / "twin").mkdir()
    for path in (export.root / "scan1").iterdir():
        (export.root / "twin" / path.name).write_bytes(path.read_bytes())
    (export.root / "masks").mkdir()
    for name in ("scan1", "scan2", "twin"):
        mask = np.zeros((6, 5, 7), np.uint16)
        mask[3 if same or name != "twin" else 4] = 7
        write_nifti(export.root / "masks" / f"{name}.nii.gz", mask, GRID)
    manifest = ingest(configure(source=WITH_MASKS, split=NO_TEST), export.root).manifest
    assert manifest.rejected == expected
    assert manifest.duplicates == 7 + same
    assert manifest.received == 3 * 7 + 3


def test_a_folder_that_did_not_change_is_not_read_again(export, configure, monkeypatch):
    mess(export)
    config = configure(source=ANY_TREE)
    monkeypatch.setattr(stats, "_SETTLED_NS", -60_000_000_000)  # these files are younger than a disk's clock tick
    dataset = ingest(config, export.root)

    class Never(InlineExecutor):
        def map(self, function, items, **how):
            raise AssertionError("nothing was to be read")

    assert ingest(config, export.root, executor=Never()) == dataset
    path = export.root / "README"
    times = path.stat()
    path.write_text("made on a Friday")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time of writing
    with pytest.raises(AssertionError, match="nothing was to be read"):
        ingest(config, export.root, executor=Never())


def test_a_file_that_was_just_written_is_not_trusted_to_stay(export, configure):
    mess(export)
    config = configure(source=ANY_TREE)
    ingest(config, export.root)
    calls = []

    class Counting(InlineExecutor):
        def map(self, function, items, **how):
            calls.append(function)
            return super().map(function, items, **how)

    ingest(config, export.root, executor=Counting())
    assert len(calls) == 2  # headers, and those to look at again: nothing is converted


def test_ingesting_again_costs_less_than_a_tenth(configure, received, monkeypatch):
    shape = (96, 96, 48)
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 999, shape).astype(np.int16)
        received.add(f"c{number}", number, image=image, mask=np.full(shape, 7, np.uint8))
    monkeypatch.setattr(stats, "_SETTLED_NS", -60_000_000_000)
    config = configure()
    start = time.process_time()
    dataset = ingest(config, received.root)
    first = time.process_time() - start
    start = time.process_time()
    assert ingest(config, received.root) == dataset
    assert time.process_time() - start < 0.1 * first


def test_what_if_of_an_export_counts_the_same(export, configure):
    mess(export)
    config = configure(source=ANY_TREE)
    planned = plan(config, export.root)
    assert planned == summary(ingest(config, export.root)).model_copy(update={"dataset": ""})


def test_clinical_values_come_from_the_table_by_patient(export, configure):
    for number in (1, 2, 3, 4):
        export(number, "mixed")
    (export.root / "patients.csv").write_text("PatientID,age,smoker\np1,61,yes\np2,-9,no\np9,44,no\np3,abc,no\n")
    columns = {"age": {"kind": "number", "range": [0, 120]}, "smoker": {"kind": "flag"}}
    contract = {"modality": "CT", "spacing_mm": [0.5, 5.0], "labels": {"background": 0, "x": 1}, "clinical": columns}
    source = {**ANY_TREE, "clinical": "patients.csv"}
    manifest = ingest(configure(source=source, contract=contract), export.root).manifest
    values = {case.patient: case.clinical for case in manifest.cases}
    assert values["p1"] == {"age": 61, "smoker": True}
    assert values["p2"] == {"age": None, "smoker": False}
    assert values["p3"] == values["p4"] == {}
    rows = manifest.clinical
    assert (rows.received, rows.accepted, rows.refused, rows.unmatched) == (4, 3, 1, 1)
    assert manifest.received == 28
    required = {**contract, "clinical": {**columns, "smoker": {"kind": "flag", "required": True}}}
    manifest = ingest(configure("required", source=source, contract=required, split=NO_TEST), export.root).manifest
    assert manifest.rejected == {"CLINICAL_MISSING": 14}
    assert {case.patient for case in manifest.cases} == {"p1", "p2"}
