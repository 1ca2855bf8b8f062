"""A batch makes a version: what was there stays, what came is added, and no patient moves."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property

import numpy as np
import pytest

from bedside.core.custody import verify
from bedside.core.dataset import Dataset
from bedside.core.digest import canonical_json, digest_file
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.ingest import manifest
from bedside.ingest.compare import diff, versions
from bedside.ingest.pipeline import ingest, plan, summary
from bedside.ingest.records import Records, alone
from bedside.ingest.versions import drop

from .conftest import SECTIONS, Received


@pytest.fixture
def second(tmp_path):
    """A second received folder."""
    return Received(tmp_path / "second")


def loaded(dataset):
    """Every case of a dataset, by name, its locked ones included."""
    return {case.id: case for split in ("test", "development") for case in dataset.cases(split)}


def homes(dataset):
    groups = [dataset.splits.test, *dataset.splits.folds]
    return {name: number for number, group in enumerate(groups) for name in group}


def test_a_batch_adds_its_cases_and_stores_only_its_own_arrays(batch, second, config):
    first = ingest(config, batch.root)
    for number, name in enumerate("efgh", start=4):
        second.add(name, number)
    version = ingest(config, second.root, add=True)
    assert version.manifest.parent == first.digest
    assert sorted(loaded(version)) == list("abcdefgh")
    for number, name in enumerate("abcdefgh"):
        assert np.array_equal(loaded(version)[name].image.array[0], batch.image(number))
    masks = 1  # every case has the same mask, which the first folder holds
    assert len(list(version.folder.iterdir())) == 4 + 1
    assert len(list(first.folder.iterdir())) == 4 + 1 + masks
    found = summary(version)
    assert (found.cases, found.added, found.received, found.accepted, found.duplicates) == (8, 4, 8, 8, 0)
    assert (version.manifest.received, version.manifest.accepted) == (16, 16)


def test_nobody_moves_when_a_batch_comes(batch, second, config):
    first = ingest(config, batch.root)
    for number in range(20, 40):
        second.add(f"n{number}", number)
    version = ingest(config, second.root, add=True)
    assert {name: home for name, home in homes(version).items() if name in homes(first)} == homes(first)
    assert len(version.splits.test) == 5


def test_the_same_batch_again_adds_nothing(batch, second, config):
    ingest(config, batch.root)
    second.add("e", 4)
    version = ingest(config, second.root, add=True)
    before = list(config.workspace.ledger.events())
    assert ingest(config, second.root, add=True) == version
    assert ingest(config, batch.root, add=True) == version
    assert list(config.workspace.ledger.events()) == before


def test_adding_a_batch_reads_as_many_manifests_however_many_versions_there_are(batch, second, config, monkeypatch):
    ingest(config, batch.root)
    read = []
    whole = Dataset.manifest.func
    counting = cached_property(lambda dataset: (read.append(dataset.digest), whole(dataset))[1])
    counting.__set_name__(Dataset, "manifest")
    monkeypatch.setattr(Dataset, "manifest", counting)
    counts = []
    for number, name in enumerate("efgh", start=4):
        second.add(name, number)
        read.clear()
        ingest(config, second.root, add=True)
        counts.append(len(read))
        assert len(read) == 1, "the version to add to; the one that is made is known"
    assert len(set(counts)) == 1


def test_a_folder_that_grew_adds_what_is_new_and_counts_the_rest_as_duplicates(batch, config):
    ingest(config, batch.root)
    batch.add("e", 4)
    version = ingest(config, batch.root, add=True)
    found = summary(version)
    assert (found.received, found.accepted, found.duplicates, found.added) == (10, 2, 8, 1)
    assert sorted(case.id for case in version.manifest.cases) == list("abcde")


def test_another_mask_of_a_known_image_takes_the_place_of_the_first(batch, second, config):
    first = ingest(config, batch.root)
    mask = batch.mask()[::-1].copy()
    second.add("renamed", 0, mask=mask)
    version = ingest(config, second.root, add=True)
    assert summary(version).relabelled == 1
    assert [case.id for case in version.manifest.cases] == list("abcd")
    assert np.array_equal(loaded(version)["a"].volumes["label"].array[0] > 0, mask > 0)
    assert np.array_equal(loaded(first)["a"].volumes["label"].array[0] > 0, batch.mask() > 0)
    found = diff(first, version)
    assert found.all.relabelled == found.by_scanner[""].relabelled == ("a",)
    assert (found.all.added, found.all.removed, found.all.changed, found.moved) == ((), (), (), ())


def test_two_masks_of_one_known_image_in_one_batch_are_a_conflict(batch, second, config):
    ingest(config, batch.root)
    second.add("one", 0, mask=batch.mask()[::-1].copy())
    second.add("two", 0, mask=batch.mask()[:, ::-1].copy() * 0)
    version = ingest(config, second.root, add=True)
    assert summary(version).rejected == {"LABEL_CONFLICT": 2}


def test_another_image_under_a_known_name_is_refused(batch, second, config):
    ingest(config, batch.root)
    second.add("a", 77)
    second.add("e", 78)
    assert summary(ingest(config, second.root, add=True)).rejected == {"CASE_ID": 2}


def test_what_if_counts_the_same_for_a_batch(batch, second, config):
    ingest(config, batch.root)
    second.add("e", 4)
    second.add("renamed", 0, mask=batch.mask()[::-1].copy())
    second.add("nan", 9, image=np.full(second.shape, np.nan, np.float32))
    planned = plan(config, second.root, add=True)
    done = summary(ingest(config, second.root, add=True))
    assert planned == done.model_copy(update={"dataset": ""})
    assert (done.added, done.relabelled, sum(done.rejected.values())) == (1, 1, 2)


def test_a_batch_without_one_sound_case_makes_no_version(batch, second, config):
    ingest(config, batch.root)
    second.add("nan", 9, image=np.full(second.shape, np.nan, np.float32))
    with pytest.raises(InputRejected) as caught:
        ingest(config, second.root, add=True)
    assert caught.value.code == "NO_CASES"


def test_there_must_be_a_version_to_add_to(batch, config):
    with pytest.raises(UsageError) as caught:
        ingest(config, batch.root, add=True)
    assert caught.value.code == "NOT_YET"


def test_a_batch_is_not_added_under_another_contract_or_key(batch, second, configure, monkeypatch):
    ingest(configure(), batch.root)
    second.add("e", 4)
    contract = {"modality": "CT", "spacing_mm": [0.5, 4.0], "labels": {"background": 0, "bone": 7, "marrow": 300}}
    with pytest.raises(UsageError) as caught:
        ingest(configure(contract=contract), second.root, add=True)
    assert caught.value.code == "VERSION_CONTRACT"
    monkeypatch.setenv("BEDSIDE_KEY", "a secret of this test only")
    hidden = {"images": "images", "labels": "labels", "identity": "pseudonym"}
    with pytest.raises(UsageError) as caught:
        ingest(configure(source=hidden), second.root, add=True)
    assert caught.value.code == "VERSION_KEY"


def test_a_version_leads_back_to_the_scans_of_all_its_batches(batch, second, config):
    first = ingest(config, batch.root)
    second.add("e", 4)
    version = ingest(config, second.root, add=True)
    history = verify(config.workspace, version.digest)
    sources = {volume.source for case in version.manifest.cases for volume in case.volumes.values()}
    assert set(history.scans) == sources
    assert history.checked == 2
    line = Records(config.workspace).line(version.digest)
    assert list(line) == [(version.digest, first.digest), (first.digest, "")]
    path = next(first.folder.glob("*.npy"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError):
        verify(config.workspace, version.digest)
    with pytest.raises(IntegrityError):
        Dataset(version.digest, config.workspace).cases("development")


def test_cases_can_be_dropped_and_the_others_stay_where_they_are(received, config):
    for number in range(12):
        received.add(f"p{number}", number)
    first = ingest(config, received.root)
    gone = {first.splits.test[0], first.splits.folds[0][0]}
    version = drop(config, gone)
    assert {case.id for case in version.manifest.cases} == {f"p{number}" for number in range(12)} - gone
    assert homes(version) == {name: home for name, home in homes(first).items() if name not in gone}
    assert [path.name for path in version.folder.iterdir()] == ["manifest.json"]
    assert diff(first, version).all.removed == tuple(sorted(gone))
    with pytest.raises(UsageError, match="1 are neither") as caught:
        drop(config, {"p3", "nobody"})
    assert caught.value.code == "CASE_ID"


def test_the_list_of_versions_accounts_for_every_file(batch, second, config):
    batch.add("nan", 9, image=np.full(batch.shape, np.nan, np.float32))
    first = ingest(config, batch.root)
    second.add("e", 4)
    second.write("images", "same-as-a", batch.image(0))
    second.write("labels", "same-as-a", batch.mask())
    version = ingest(config, second.root, add=True)
    rows = versions(config.workspace)
    assert [(row.digest, row.parent, row.cases, row.added) for row in rows] == [
        (version.digest, first.digest, 5, 1),
        (first.digest, "", 4, 4),
    ]
    for row in rows:
        assert row.received == row.accepted + sum(row.rejected.values()) + row.duplicates
    assert rows[1].rejected == {"LABEL_ORPHAN": 1, "NOT_FINITE": 1}
    assert set(rows[1].reasons) == set(rows[1].rejected)
    shutil.rmtree(config.workspace.store / first.digest)
    gone = versions(config.workspace)[1]
    assert (gone.here, gone.received, gone.rejected) == (False, 10, {"LABEL_ORPHAN": 1, "NOT_FINITE": 1})


def test_differences_are_counted_by_site(batch, second, configure):
    sources = [{"images": "images", "labels": "labels", "identity": "keep", "site": site} for site in ("north", "south")]
    first = ingest(configure(source=sources[0]), batch.root)
    second.add("e", 4)
    version = ingest(configure(source=sources[1]), second.root, add=True)
    found = diff(first, version)
    assert {site: changes.added for site, changes in found.by_site.items()} == {"south": ("e",)}
    assert {case.site for case in version.manifest.cases} == {"north", "south"}


def test_a_small_batch_costs_its_own_size_and_not_that_of_what_is_there(received, second, config):
    """Neither the arrays nor the received files of the version before are opened: they are not even there."""
    shape = (64, 64, 32)
    received.shape = shape
    for number in range(4):
        received.add(f"p{number}", number, mask=np.zeros(shape, np.uint8) + 7)
    first = ingest(config, received.root)
    shutil.rmtree(received.root)
    for path in first.folder.glob("*.npy"):
        path.unlink()
    second.add("e", 4)
    start = time.process_time()
    version = ingest(config, second.root, add=True)
    assert time.process_time() - start < 5
    assert len(version.manifest.cases) == 5


def test_a_dataset_of_deidentified_files_names_their_certificate(batch, config):
    """What matters is that every image is one that the de-identification wrote."""
    images = [digest_file(path) for path in sorted((batch.root / "images").iterdir())]

    def certified(written):
        with config.workspace.staging() as folder:
            (folder / "files.json").write_bytes(canonical_json({f"received {n}": digest for n, digest in enumerate(written)}))
            digest = config.workspace.put(folder)
        config.workspace.ledger.append("deidentified", outputs={"certificate": digest})
        return digest

    certified(images[:-1])
    without = ingest(config, batch.root)
    assert without.manifest.certificate == ""
    digest = certified(images)
    dataset = ingest(config, batch.root)
    assert dataset.manifest.certificate == versions(config.workspace)[0].certificate == digest
    assert dataset.manifest.cases == without.manifest.cases
    assert ingest(config, batch.root) == dataset


def test_a_known_patients_new_scan_goes_where_the_patient_is(tmp_path, configure):
    source = {"images": ".", "labels": None, "identity": "keep"}
    config = configure(source=source)
    grid = np.diag([-1.0, -1.5, 2.0, 1.0])

    def write(folder, patient, number):
        array = np.random.default_rng(number).integers(-900, 900, (6, 5, 4)).astype(np.int16)
        identity = SeriesIdentity.of(patient, str(number))
        write_series(tmp_path / folder / str(number), Volume.of(array, grid), identity=identity)

    for number in range(10):
        write("first", f"p{number}", number)
    first = ingest(config, tmp_path / "first")
    for number in range(10):
        write("second", f"p{number}", 100 + number)
    version = ingest(config, tmp_path / "second", add=True)
    assert len(version.manifest.cases) == 20
    assert version.splits == first.splits
    assert len(version.cases("test")) == 2 * len(first.cases("test"))


def test_who_was_dropped_does_not_come_back_with_a_later_batch(tmp_path, configure):
    config = configure(source={"images": ".", "labels": None, "identity": "keep"})
    grid = np.diag([-1.0, -1.5, 2.0, 1.0])

    def write(patient, number):
        array = np.random.default_rng(number).integers(-900, 900, (6, 5, 4)).astype(np.int16)
        write_series(tmp_path / "export" / str(number), Volume.of(array, grid), identity=SeriesIdentity.of(patient, str(number)))

    for number in range(10):
        write(f"p{number}", number)
    first = ingest(config, tmp_path / "export")
    drop(config, {"p1", "2"})  # a patient who withdrew, and one scan
    shutil.rmtree(config.workspace.store / first.digest)  # as a law may ask
    write("p1", 101)
    write("p2", 102)
    shutil.copytree(tmp_path / "export" / "2", tmp_path / "export" / "once-more", dirs_exist_ok=True)
    planned = plan(config, tmp_path / "export", add=True)
    grown = ingest(config, tmp_path / "export", add=True)
    assert {case.id for case in grown.manifest.cases} == {"0", *"3456789", "102"}
    found = summary(grown)
    assert found.rejected == planned.rejected == {"DROPPED": 4}
    assert found.received == found.accepted + 4 + found.duplicates
    write("p11", 11)
    assert "p1" not in {case.patient for case in ingest(config, tmp_path / "export", add=True).manifest.cases}


def test_a_refused_mask_of_a_known_image_is_refused_and_no_duplicate(batch, second, config, configure):
    ingest(configure(source={**SECTIONS["source"], "labels": None}), batch.root)
    second.add("a", 0).add("b", 1).path("labels", "a").write_bytes(b"broken")
    version = ingest(config, second.root, add=True)
    found = summary(version)
    assert (found.relabelled, found.received, found.accepted, sum(found.rejected.values()), found.duplicates) == (1, 4, 2, 2, 0)


def test_a_batch_follows_the_version_that_another_process_made_while_it_waited(batch, second, config, tmp_path):
    ingest(config, batch.root)
    second.add("e", 4)
    third = Received(tmp_path / "third").add("f", 5)
    beside = Workspace(config.workspace.folder)  # another process's view of the same study
    with ThreadPoolExecutor(1) as pool:
        with alone(beside):
            waiting = pool.submit(ingest, config, third.root, add=True)
            wait([waiting], timeout=0.5)
            assert not waiting.done()
            config.workspace.scratch.joinpath("ingest.lock").rename(tmp_path / "held.lock")
            middle = ingest(config, second.root, add=True)
        last = waiting.result(timeout=300)
    assert last.manifest.parent == middle.digest
    assert sorted(case.id for case in last.manifest.cases) == list("abcdef")


def test_a_manifest_is_the_canonical_json_of_itself_and_old_cases_are_not_encoded_again(batch, second, config, monkeypatch):
    first = ingest(config, batch.root)
    for number, name in enumerate("efgh", start=4):
        second.add(name, number)
    version = ingest(config, second.root, add=True)
    third = drop(config, ["e"])
    for dataset in (first, version, third):
        kept = (config.workspace.store / dataset.digest / "manifest.json").read_bytes()
        assert kept == canonical_json(Dataset(dataset.digest, config.workspace).manifest.model_dump(mode="json"))
    encoded = []
    real = manifest.canonical_json
    monkeypatch.setattr(manifest, "canonical_json", lambda value: encoded.append(value) or real(value))
    one = Received(second.root.parent / "third").add("i", 8)
    ingest(config, one.root, add=True)
    assert [value["id"] for value in encoded if "volumes" in value] == ["i"]
    assert version.manifest == Dataset(version.digest, config.workspace).manifest


def test_a_manifest_written_in_another_way_is_encoded_anew(batch, config):
    first = ingest(config, batch.root)
    assert len(dict(first.encoded_cases())) == 4
    path = config.workspace.store / first.digest / "manifest.json"
    path.chmod(0o644)
    for before, after in ((b'"site":"",', b""), (b'"acquisition":', b' "acquisition":')):
        plain = path.read_bytes()
        path.write_bytes(plain.replace(before, after))
        assert dict(first.encoded_cases()) == {}
        path.write_bytes(plain)


def test_a_name_that_looks_like_json_divides_no_manifest(batch, config):
    first = ingest(config, batch.root)
    case = first.manifest.cases[0].model_copy(
        update={"site": '},{"acquisition":{', "clinical": {"acquisition": 'a}],"certificate":'}}
    )
    odd = first.manifest.model_copy(update={"cases": (case, *first.manifest.cases[1:])})
    with config.workspace.staging() as staged:
        (staged / "manifest.json").write_bytes(canonical_json(odd.model_dump(mode="json")))
        stored = Dataset(config.workspace.put(staged), config.workspace)
    assert list(dict(stored.encoded_cases()).values()) == [canonical_json(c.model_dump(mode="json")) for c in odd.cases]
