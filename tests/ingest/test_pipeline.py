import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest

from bedside.core.custody import verify
from bedside.core.dataset import Dataset
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.volume import Volume
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest.pipeline import ingest, plan, summary


def test_images_and_masks_become_a_dataset_on_the_images_grid(batch, config):
    dataset = ingest(config, batch.root)
    cases = {case.id: case for split in ("test", "development") for case in dataset.cases(split)}
    assert sorted(cases) == ["a", "b", "c", "d"]
    for number, name in enumerate("abcd"):
        case = cases[name]
        assert case.patient == name
        assert np.array_equal(case.image.array[0], batch.image(number))
        assert np.array_equal(case.image.affine, batch.affine)
        assert np.array_equal(case.volumes["label"].affine, batch.affine)
        assert case.volumes["label"].array.dtype == np.uint8


def test_source_codes_become_training_ids_in_the_contracts_order(batch, config):
    case = ingest(config, batch.root).cases("development")[0]
    codes = batch.mask()
    label = case.volumes["label"].array[0]
    for code, training_id in ((0, 0), (7, 1), (300, 2)):
        assert np.array_equal(codes == code, label == training_id)


def test_what_was_received_is_what_was_accepted_rejected_and_repeated(batch, config):
    batch.add("nan", 9, image=np.full(batch.shape, np.nan, np.float32))
    batch.write("images", "same-as-a", batch.image(0))
    batch.write("labels", "same-as-a", batch.mask())
    batch.write("labels", "nobody", batch.mask())
    (batch.root / "images" / ".DS_Store").write_bytes(b"x")
    manifest = ingest(config, batch.root).manifest
    assert manifest.received == batch.count() == 14
    assert manifest.accepted == 8
    assert manifest.duplicates == 2
    assert manifest.rejected == {"DCM_NOT_DICOM": 1, "LABEL_ORPHAN": 2, "NOT_FINITE": 1}
    assert manifest.received == manifest.accepted + manifest.duplicates + sum(manifest.rejected.values())


def test_the_ledger_leads_from_the_dataset_back_to_every_scan(batch, config, events):
    dataset = ingest(config, batch.root)
    history = verify(config.workspace, dataset.digest)
    sources = {volume.source for case in dataset.manifest.cases for volume in case.volumes.values()}
    assert set(history.scans) == sources
    assert [event.action for event in config.workspace.ledger.events()] == ["rules_frozen", *["case_accepted"] * 4, "ingested"]
    assert events(config, "rules_frozen")[0].outputs == {"rules": config.promote.digest()}
    assert history.checked == 1


def test_the_digest_depends_on_the_data_and_not_on_the_folder(batch, configure, tmp_path):
    again = tmp_path / "moved"
    for path in sorted(batch.root.rglob("*.nii.gz"), reverse=True):
        target = again / path.relative_to(batch.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert ingest(configure("one"), batch.root).digest == ingest(configure("two"), again).digest
    batch.add("e", 77)
    assert ingest(configure("three"), batch.root).digest != ingest(configure("one"), again).digest


def test_ingesting_the_same_again_adds_nothing(batch, config):
    batch.add("nan", 9, image=np.full(batch.shape, np.nan, np.float32))
    first = ingest(config, batch.root)
    before = list(config.workspace.ledger.events())
    stored = config.workspace.digests()
    again = ingest(config, batch.root)
    assert again == first
    assert list(config.workspace.ledger.events()) == before
    assert config.workspace.digests() == stored


def test_a_dataset_that_is_gone_from_the_store_is_made_again(batch, config):
    first = ingest(config, batch.root)
    before = list(config.workspace.ledger.events())
    shutil.rmtree(config.workspace.store / first.digest)
    assert ingest(config, batch.root).digest == first.digest
    assert Dataset(first.digest, config.workspace).manifest.accepted == 8
    assert list(config.workspace.ledger.events()) == before


def test_changed_rules_of_promotion_are_frozen_again_and_unchanged_ones_are_not(batch, configure, events):
    ingest(configure(), batch.root)
    ingest(configure(promote={"gates": [{"name": "absolute", "metric": "dice", "floor": 0.9}]}), batch.root)
    ingest(configure(promote={"gates": [{"name": "absolute", "metric": "dice", "floor": 0.9}]}), batch.root)
    assert len(events(configure(), "rules_frozen")) == 2
    assert len(events(configure(), "ingested")) == 1


def test_a_new_case_adds_its_own_event_and_not_those_of_the_others(batch, config, events):
    ingest(config, batch.root)
    batch.add("e", 4)
    ingest(config, batch.root)
    assert Counter(event.facts["case"] for event in events(config, "case_accepted")) == Counter("abcde")
    assert len(events(config, "ingested")) == 2


def test_a_mask_that_is_a_little_off_is_laid_on_the_image_and_how_far_is_written_down(batch, config, events):
    near = batch.affine.copy()
    near[0, 3] += 0.05
    batch.add("e", 5, mask_affine=near)
    dataset = ingest(config, batch.root)
    facts = {event.facts["case"]: event.facts["label_apart_mm"] for event in events(config, "case_accepted")}
    assert facts["e"] == pytest.approx(0.05, abs=1e-4)
    assert facts["a"] == 0
    record = next(case for case in dataset.manifest.cases if case.id == "e")
    assert record.volumes["label"].affine == record.volumes["image"].affine


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(False, False, False), (False, True, False), (True, False, True)])
def test_a_mask_stored_in_another_axis_order_is_turned_without_interpolation(batch, config, order, flips):
    codes = batch.mask()
    codes[0, 1, 2] = 7  # no symmetry
    stored, turn = np.transpose(codes, order), np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        turn[old, new] = -1 if flip else 1
        turn[old, 3] = codes.shape[old] - 1 if flip else 0
        stored = np.flip(stored, new) if flip else stored
    batch.add("turned", 6, mask=np.ascontiguousarray(stored), mask_affine=batch.affine @ turn)
    dataset = ingest(config, batch.root)
    record = next(case for case in dataset.manifest.cases if case.id == "turned")
    label = np.load(dataset.folder / record.volumes["label"].file)[0]
    assert np.array_equal(label > 0, codes > 0)
    assert np.array_equal(label == 2, codes == 300)


def test_several_cases_of_one_patient_stay_on_one_side(received, config):
    for number in range(12):
        volume = Volume.of(received.image(number), np.diag([-1.0, -1.5, 2.0, 1.0]))
        write_series(
            received.root / "images" / f"scan{number}", volume, identity=SeriesIdentity.of(f"p{number // 3}", str(number))
        )
        received.write("labels", f"scan{number}", received.mask(), volume.affine)
    manifest = ingest(config, received.root).manifest
    assert len(manifest.cases) == 12
    assert {case.patient for case in manifest.cases} == {"p0", "p1", "p2", "p3"}
    groups = [manifest.splits.test, *manifest.splits.folds]
    assert sorted(name for group in groups for name in group) == ["p0", "p1", "p2", "p3"]


def test_a_patient_on_both_sides_of_a_split_is_an_integrity_error(batch, config):
    """The manifest is written by us, so such a division can only come from outside; it must not be used."""
    dataset = ingest(config, batch.root)
    manifest = dataset.manifest.model_dump(mode="json")
    manifest["splits"]["test"] = [*manifest["splits"]["test"], manifest["splits"]["folds"][0][0]]
    with config.workspace.staging() as folder:
        shutil.copytree(dataset.folder, folder, dirs_exist_ok=True)
        (folder / "manifest.json").chmod(0o644)
        (folder / "manifest.json").write_bytes(json.dumps(manifest).encode())
        digest = config.workspace.put(folder)
    with pytest.raises(IntegrityError) as caught:
        Dataset(digest, config.workspace).cases("test")
    assert (caught.value.code, caught.value.exit_code) == ("SPLIT_LEAK", 4)


def test_a_changed_file_under_a_known_digest_is_an_integrity_error(batch, config):
    dataset = ingest(config, batch.root)
    file = next(dataset.folder.glob("*.npy"))
    file.chmod(0o644)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for use in (lambda: Dataset(dataset.digest, config.workspace).cases("development"), lambda: ingest(config, batch.root)):
        with pytest.raises(IntegrityError) as caught:
            use()
        assert (caught.value.code, caught.value.exit_code) == ("CHANGED", 4)


def test_without_one_accepted_case_the_counts_say_why(received, config):
    received.add("a", 1, image=np.zeros(received.shape, np.int16))
    with pytest.raises(InputRejected, match=r"of 2 received files 2 were refused \(1 CONSTANT, 1 LABEL_ORPHAN\)") as caught:
        ingest(config, received.root)
    assert caught.value.code == "NO_CASES"
    assert config.workspace.digests() == ()
    assert list(config.workspace.store.iterdir()) == []


def test_an_empty_images_folder_has_no_cases(received, config):
    with pytest.raises(InputRejected, match="the images folder is empty") as caught:
        ingest(config, received.root)
    assert caught.value.code == "NO_CASES"


def test_too_few_patients_for_the_split_are_a_usage_error(received, config):
    received.add("a", 1)
    with pytest.raises(UsageError) as caught:
        ingest(config, received.root)
    assert caught.value.code == "TOO_FEW_PATIENTS"


def test_one_patient_is_a_dataset_where_nothing_is_to_be_divided(received, configure):
    received.add("a", 1)
    dataset = ingest(configure(split={"test": 0.0, "folds": 1}), received.root)
    assert dataset.splits.test == ()
    assert dataset.splits.folds == ((dataset.manifest.cases[0].patient,),)
    assert len(dataset.cases("development")) == 1


def test_without_masks_in_the_study_images_stand_alone(batch, configure):
    config = configure(source={"images": "images", "labels": None, "identity": "keep"})
    manifest = ingest(config, batch.root).manifest
    assert manifest.received == 4
    assert all(set(case.volumes) == {"image"} for case in manifest.cases)


def test_without_masks_every_series_of_a_folder_is_a_case_of_its_patient(batch, configure):
    config = configure(source={"images": "images", "labels": None, "identity": "keep"})
    folder = batch.root / "images" / "visit"
    for number in (1, 2):
        volume = Volume.of(batch.image(9 + number), np.diag([-1.0, -1.5, 2.0, 1.0]))
        for path in write_series(folder / str(number), volume, identity=SeriesIdentity.of("p", str(number))):
            path.rename(folder / f"{number}-{path.name}")
    manifest = ingest(config, batch.root).manifest
    assert [case.patient for case in manifest.cases].count("p") == 2
    assert len({case.id for case in manifest.cases}) == 6


def test_what_if_counts_the_same_and_writes_nothing(batch, config):
    batch.add("nan", 9, image=np.full(batch.shape, np.nan, np.float32))
    planned = plan(config, batch.root)
    assert not config.workspace.folder.exists()
    done = summary(ingest(config, batch.root))
    assert planned == done.model_copy(update={"dataset": ""})
    assert plan(config, batch.root) == done


def test_progress_counts_files_and_then_images(batch, config):
    class Heard:
        def __init__(self):
            self.said = []
            self.notes = []

        def start(self, what, total):
            self.said.append((what, total))

        def advance(self, done, note=""):
            self.said.append(done)
            self.notes.append(note)

    heard = Heard()
    ingest(config, batch.root, progress=heard)
    assert heard.said == [("reading headers", 8), 2, 4, 6, 8, ("reading cases", 4), 1, 2, 3, 4]
    assert re.fullmatch(r"[0-9]+ files/s", heard.notes[0])
