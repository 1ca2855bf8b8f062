"""A dataset is read back as it was accepted, its test split is locked, and no patient stands on both sides."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord, Dataset, Manifest, Splits, VolumeRecord, check_splits, stored_volume
from bedside.core.digest import canonical_json, digest_bytes
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.workspace import Workspace

EYE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
CONTRACT = Contract(modality="MR", spacing_mm=(0.5, 2), labels={"background": 0, "anterior": 1})
SPLITS = Splits(test=("p0", "p1"), folds=(("p2", "p3"), ("p4",)))


def stored(workspace: Workspace, *, splits: Splits = SPLITS, patients: int = 5) -> Dataset:
    """One patient has two cases, the others one."""
    with workspace.staging() as staged:
        cases = []
        for number in range(patients + 1):
            np.save(staged / f"c{number}.npy", np.full((1, 3, 4, 5), number, dtype=np.int16))
            volume = VolumeRecord(
                file=f"c{number}.npy", affine=EYE, shape=(1, 3, 4, 5), source=f"{number:064x}", geometry="sform"
            )
            patient = f"p{min(number, patients - 1)}"
            cases.append(CaseRecord(id=f"c{number}", patient=patient, volumes={"image": volume}, scanner="S"))
        manifest = Manifest(
            study="x",
            contract=CONTRACT,
            cases=tuple(cases),
            splits=splits,
            received=6,
            accepted=6,
            rejected={},
            duplicates=0,
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        return Dataset(workspace.put(staged), workspace)


def ids(dataset: Dataset, split: str) -> list[str]:
    return [case.id for case in dataset.cases(split)]


def test_every_case_is_in_test_or_in_exactly_one_fold_and_train_is_the_rest(workspace: Workspace) -> None:
    dataset = stored(workspace)
    assert ids(dataset, "test") == ["c0", "c1"]
    assert ids(dataset, "development") == ids(dataset, "calibrate") == ["c2", "c3", "c4", "c5"]
    assert ids(dataset, "fold0") == ids(dataset, "train1") == ["c2", "c3"]
    assert ids(dataset, "fold1") == ids(dataset, "train0") == ["c4", "c5"]


def test_reading_the_test_split_is_counted_in_the_ledger_and_nothing_else_is(workspace: Workspace) -> None:
    dataset = stored(workspace)
    ids(dataset, "development")
    assert not workspace.exists()
    ids(dataset, "test")
    ids(dataset, "test")
    events = list(workspace.ledger.events())
    assert [(event.action, event.facts) for event in events] == [
        ("test_split_read", {"cases": 2, "times_read": 1}),
        ("test_split_read", {"cases": 2, "times_read": 2}),
    ]


@pytest.mark.parametrize("split", ["", "tset", "fold2", "fold-1", "train2", "Test"])
def test_an_unknown_split_lists_the_known_ones(workspace: Workspace, split: str) -> None:
    with pytest.raises(UsageError, match=r"fold0\.\.fold1"):
        stored(workspace).cases(split)


@pytest.mark.parametrize(
    "splits",
    [
        Splits(test=("p0", "p1"), folds=(("p1", "p2", "p3"), ("p4",))),
        Splits(test=("p0", "p1"), folds=(("p2", "p3"), ("p3", "p4"))),
        Splits(test=("p0", "p1", "p1"), folds=(("p2", "p3"), ("p4",))),
    ],
)
def test_a_patient_on_both_sides_of_a_split_is_refused(workspace: Workspace, splits: Splits) -> None:
    with pytest.raises(IntegrityError) as caught:
        stored(workspace, splits=splits).cases("development")
    assert caught.value.code == "SPLIT_LEAK"


@pytest.mark.parametrize(
    "splits", [Splits(test=("p0",), folds=(("p2", "p3"), ("p4",))), Splits(test=("p0", "p1", "p9"), folds=())]
)
def test_a_patient_in_no_split_or_from_nowhere_is_refused(splits: Splits) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_splits(splits, {"p0", "p1", "p2", "p3", "p4"})
    assert caught.value.code == "SPLIT_MISSING"


def test_one_changed_byte_of_any_file_is_found_before_a_case_is_read(workspace: Workspace) -> None:
    dataset = stored(workspace)
    path = workspace.store / dataset.digest / "c3.npy"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        Dataset(dataset.digest, workspace).cases("development")
    assert caught.value.code == "CHANGED"


def test_volumes_are_memory_maps_with_their_place_and_values(workspace: Workspace) -> None:
    case = stored(workspace).cases("development")[1]
    assert (case.id, case.patient, case.scanner, case.image.spacing_mm) == ("c3", "p3", "S", (1, 1, 1))
    assert np.unique(case.image.array).tolist() == [3]
    with pytest.raises(ValueError, match="read-only"):
        case.image.array[0, 0, 0, 0] = 1


def test_a_limit_spreads_evenly_and_slices_stay_cases(workspace: Workspace) -> None:
    dataset = stored(workspace)
    assert [case.id for case in dataset.cases("development", limit=2)] == ["c2", "c5"]
    assert [case.id for case in dataset.cases("development", limit=99)] == ids(dataset, "development")
    assert [case.id for case in dataset.cases("development")[1:3]] == ["c3", "c4"]
    assert [case.id for case in dataset.cases("development")] == [case.id for case in list(dataset.cases("development"))]


@pytest.mark.parametrize("file", ["../manifest.json", "/etc/hostname", "a/b.npy"])
def test_a_manifest_cannot_name_a_file_outside(tmp_path: Path, file: str) -> None:
    record = VolumeRecord(file=file, affine=EYE, shape=(1, 1, 1, 1), source="", geometry="sform")
    with pytest.raises(IntegrityError):
        stored_volume(tmp_path, record)


def test_an_array_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    record = VolumeRecord(file="x.npy", affine=EYE, shape=(1, 1, 1, 1), source="", geometry="sform")
    with pytest.raises(ValueError, match=r"Object arrays|Array can't be memory-mapped"):
        _ = stored_volume(tmp_path, record).array


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a" * 65, "a\n", ".hidden", "a b"])
def test_a_case_or_patient_name_is_letters_digits_and_little_else(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        CaseRecord(id=name, patient="p", volumes={})
    with pytest.raises(ValueError, match="pattern"):
        CaseRecord(id="c", patient=name, volumes={})


def test_a_folder_that_is_no_dataset_says_so(workspace: Workspace) -> None:
    with workspace.staging() as staged:
        (staged / "manifest.json").write_text('{"format": 1}')
        digest = workspace.put(staged)
    with pytest.raises(IntegrityError, match="not a dataset"):
        Dataset(digest, workspace).cases("test")


def versioned(workspace: Workspace) -> Dataset:
    """Two cases; the array of the first lies in the folder of an earlier version."""
    arrays = [np.full((1, 3, 4, 5), number, dtype=np.int16) for number in range(2)]
    records = []
    for number, array in enumerate(arrays):
        stream = BytesIO()
        np.save(stream, array)
        file = f"{digest_bytes(stream.getvalue())}.npy"
        volume = VolumeRecord(file=file, affine=EYE, shape=(1, 3, 4, 5), source=f"{number:064x}", geometry="sform")
        records.append((stream.getvalue(), CaseRecord(id=f"c{number}", patient=f"p{number}", volumes={"image": volume})))
    parent = ""
    for count in (1, 2):
        with workspace.staging() as staged:
            cases = [record for _, record in records[:count]]
            if parent:
                held = cases[0].volumes["image"].model_copy(update={"held_by": parent})
                cases[0] = cases[0].model_copy(update={"volumes": {"image": held}})
            (staged / records[count - 1][1].volumes["image"].file).write_bytes(records[count - 1][0])
            splits = Splits(test=(), folds=(tuple(case.patient for case in cases), ()))
            manifest = Manifest(
                study="x",
                contract=CONTRACT,
                cases=tuple(cases),
                splits=splits,
                received=count,
                accepted=count,
                rejected={},
                duplicates=0,
                parent=parent,
            )
            (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
            parent = workspace.put(staged)
    return Dataset(parent, workspace)


def test_a_version_reads_what_an_earlier_version_stores(workspace: Workspace) -> None:
    dataset = versioned(workspace)
    assert [int(case.image.array.max()) for case in dataset.cases("development")] == [0, 1]
    assert len(list(dataset.folder.iterdir())) == 2


@pytest.mark.parametrize("version", ["parent", "own"])
def test_changed_bytes_in_any_folder_of_a_version_are_found_before_a_case_is_read(workspace: Workspace, version: str) -> None:
    dataset = versioned(workspace)
    folder = workspace.store / (dataset.manifest.parent if version == "parent" else dataset.digest)
    (path,) = folder.glob("*.npy")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = Dataset(dataset.digest, workspace)
    assert len(again.manifest.cases) == 2
    with pytest.raises(IntegrityError) as caught:
        again.cases("development")
    assert caught.value.code == "CHANGED"


def test_a_changed_manifest_is_never_taken_at_its_word(workspace: Workspace) -> None:
    dataset = versioned(workspace)
    path = dataset.folder / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"received":2', b'"received":3'))
    with pytest.raises(IntegrityError) as caught:
        _ = Dataset(dataset.digest, workspace).manifest
    assert caught.value.code == "CHANGED"


def test_a_manifest_is_proved_without_reading_an_array(workspace: Workspace) -> None:
    dataset = versioned(workspace)
    for path in dataset.folder.glob("*.npy"):
        path.unlink()
    assert len(Dataset(dataset.digest, workspace).manifest.cases) == 2


def test_a_dataset_of_format_1_is_still_read(workspace: Workspace) -> None:
    new = stored(workspace)
    body = new.manifest.model_dump(mode="json")
    for name in ("batch", "reasons", "certificate", "names", "parent"):
        del body[name]
    with workspace.staging() as staged:
        for path in new.folder.glob("*.npy"):
            (staged / path.name).write_bytes(path.read_bytes())
        (staged / "manifest.json").write_bytes(canonical_json({**body, "format": 1}))
        old = Dataset(workspace.put(staged), workspace)
    assert ids(old, "development") == ["c2", "c3", "c4", "c5"]
    assert old.manifest.batch is None
