"""A study that is encrypted at rest: what lies on the disk says nothing, and everything works with the key, nothing without."""

import dataclasses

import numpy as np
import pytest

from bedside.core.custody import verify
from bedside.core.dataset import Dataset
from bedside.core.errors import IntegrityError, UnsafeArtefact, UsageError
from bedside.ingest.pipeline import ingest, plan, summary
from bedside.ingest.quarantine import Quarantine

from .conftest import Received

KEY = "BEDSIDE_STORE_KEY"


@pytest.fixture
def sealed(config, monkeypatch):
    """The same study with site.encrypt, and a key in the environment."""
    monkeypatch.setenv(KEY, "k" * 40)
    return dataclasses.replace(config, site=config.site.model_copy(update={"encrypt": True, "executor": "inline"}))


@pytest.fixture
def filled(batch):
    """Twelve sound cases and a broken file."""
    for number in range(12):
        batch.add(f"case-{number:02d}", number)
    (batch.root / "images" / "broken.nii.gz").write_bytes(b"IDENTITY-OF-A-PERSON" * 40)
    return batch


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_voxels_come_back_with_the_key(filled, config, sealed):
    dataset = ingest(sealed, filled.root)
    sent = {filled.image(number).tobytes() for number in range(12)}
    cases = [*dataset.cases("development"), *dataset.cases("test")]
    assert {np.ascontiguousarray(case.image.array[0]).tobytes() for case in cases} == sent
    assert all(v.file.endswith(".npy.sealed") for record in dataset.manifest.cases for v in record.volumes.values())


def test_nothing_on_the_disk_holds_voxels_or_refused_bytes(filled, sealed):
    ingest(sealed, filled.root)
    written = bytes_below(sealed.workspace.folder)
    assert b"IDENTITY-OF-A-PERSON" not in written
    for number in range(12):
        assert filled.image(number).tobytes(order="F")[:64] not in written
        assert filled.image(number).tobytes()[:64] not in written


def test_the_chain_is_verified_without_the_key_because_sealed_bytes_are_what_is_hashed(filled, sealed, monkeypatch):
    ingest(sealed, filled.root)
    monkeypatch.delenv(KEY)
    assert verify(sealed.workspace).chain.intact


def test_without_the_key_and_with_another_one_no_voxel_is_read(filled, sealed, monkeypatch):
    dataset = ingest(sealed, filled.root)
    monkeypatch.delenv(KEY)
    with pytest.raises(UsageError) as missing:
        _ = Dataset(dataset.digest, sealed.workspace).cases("development")[0].image.array
    assert missing.value.code == "NO_STORE_KEY"
    monkeypatch.setenv(KEY, "other" * 10)
    with pytest.raises(UnsafeArtefact) as wrong:
        _ = Dataset(dataset.digest, sealed.workspace).cases("development")[0].image.array
    assert wrong.value.code == "WRONG_STORE_KEY"


def test_the_same_files_give_the_same_sealed_dataset_and_a_second_ingest_is_a_no_op(filled, sealed):
    first = ingest(sealed, filled.root)
    assert ingest(sealed, filled.root).digest == first.digest
    again = dataclasses.replace(sealed, workspace=type(sealed.workspace)(sealed.workspace.folder / "elsewhere"))
    assert ingest(again, filled.root).digest == first.digest


def test_refused_bytes_come_back_to_who_holds_the_key(filled, sealed, monkeypatch):
    ingest(sealed, filled.root)
    quarantine = Quarantine(sealed.workspace.quarantine)
    (refusal,) = quarantine.refusals()
    assert quarantine.read(refusal.received) == b"IDENTITY-OF-A-PERSON" * 40
    (kept,) = [path for path in quarantine.folder.iterdir() if path.suffix == ".sealed"]
    kept.chmod(0o600)
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        quarantine.read(refusal.received)


def test_workers_seal_as_this_process_does(filled, sealed):
    inline = ingest(sealed, filled.root).digest
    workers = sealed.site.model_copy(update={"executor": "processes", "processes": 2})
    folder = type(sealed.workspace)(sealed.workspace.folder / "elsewhere")
    assert ingest(dataclasses.replace(sealed, site=workers, workspace=folder), filled.root).digest == inline


def test_an_encrypted_study_does_not_begin_without_a_key(filled, sealed, monkeypatch):
    monkeypatch.delenv(KEY)
    with pytest.raises(UsageError) as caught:
        ingest(sealed, filled.root)
    assert caught.value.code == "NO_STORE_KEY"
    assert not sealed.workspace.store.exists() or not list(sealed.workspace.store.iterdir())


def test_a_study_that_becomes_encrypted_or_gets_another_key_is_stored_again(filled, config, sealed, monkeypatch):
    plain = ingest(config, filled.root)
    dataset = ingest(sealed, filled.root)
    assert dataset.digest != plain.digest
    assert all(v.file.endswith(".npy.sealed") for record in dataset.manifest.cases for v in record.volumes.values())
    monkeypatch.setenv(KEY, "other" * 10)
    assert ingest(sealed, filled.root).digest not in {plain.digest, dataset.digest}


def test_a_batch_is_not_added_to_a_version_that_is_stored_otherwise(filled, config, sealed, monkeypatch):
    ingest(config, filled.root)
    with pytest.raises(UsageError) as caught:
        ingest(sealed, filled.root, add=True)
    assert caught.value.code == "VERSION_SEAL"
    ingest(sealed, filled.root)
    with pytest.raises(UsageError) as caught:
        ingest(config, filled.root, add=True)
    assert caught.value.code == "VERSION_SEAL"
    monkeypatch.setenv(KEY, "other" * 10)
    with pytest.raises(UnsafeArtefact) as wrong:
        ingest(sealed, filled.root, add=True)
    assert wrong.value.code == "WRONG_STORE_KEY"


def test_what_if_knows_a_repeated_scan_of_an_encrypted_version(filled, sealed, tmp_path):
    ingest(sealed, filled.root)
    again = Received(tmp_path / "again").add("other-name", 3)
    planned = plan(sealed, again.root, add=True)
    assert (planned.added, planned.duplicates) == (0, 2)
    assert summary(ingest(sealed, again.root, add=True)).duplicates == 2
