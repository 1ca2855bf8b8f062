"""Looks that were packed away give the same volumes, the same refusals and the same duplicates as when all of them are held."""

import shutil
import sys
from array import array
from dataclasses import fields, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from bedside.core.digest import digest_json
from bedside.core.volume import Volume
from bedside.formats.dicom import Look, assemble, look
from bedside.formats.dicom_header import Header
from bedside.formats.dicom_pixels import Slice
from bedside.formats.dicom_write import SeriesIdentity, planes_of, write_planes, write_series
from bedside.formats.dicom_write_frames import write_frames
from bedside.ingest import pipeline
from bedside.ingest import stats as stats_module
from bedside.ingest.looks import Looks, whole
from bedside.ingest.names import Files, Names, Paths
from bedside.ingest.stats import Looks as StatLooks
from bedside.ingest.stats import Stats

GRID = np.diag([-1.0, -1.0, 2.0, 1.0])


def volume(seed, slices=4):
    return Volume.of(np.random.default_rng(seed).integers(-900, 900, (6, 5, slices)).astype(np.int16), GRID)


@pytest.fixture
def export(tmp_path):
    """Sound and damaged series, an enhanced one, strays, duplicates and other files, several to a folder."""
    root = tmp_path / "in"
    for number in range(3):
        write_series(root / "mixed" / f"{number}", volume(number), identity=SeriesIdentity.of(f"p{number}"))
    for path in sorted((root / "mixed" / "1").iterdir()):
        path.rename(root / "mixed" / f"one-{path.name}")
    write_frames(root / "enhanced", list(planes_of(volume(7))), identity=SeriesIdentity.of("e"))
    broken = write_series(root / "broken", volume(8), identity=SeriesIdentity.of("b"))
    broken[2].write_bytes(broken[2].read_bytes()[:300])
    holed = write_series(root / "holed", volume(9), identity=SeriesIdentity.of("h"))
    holed[1].unlink()
    (root / "mixed" / "0" / "stub").write_bytes(broken[0].read_bytes()[:140])
    (root / "again").mkdir()
    for path in sorted((root / "mixed" / "2").iterdir()):
        shutil.copy(path, root / "again" / path.name)
    (root / "notes.txt").write_text("no image")
    (root / "empty").write_bytes(b"")
    return root


def packed(root):
    """The same looks, held and packed, and the files."""
    files = Files(Names(root, (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())), Names(root, ()))
    seen = [look(path) for path in files.values()]
    digests = bytearray().join(bytes.fromhex(one.digest) or bytes(32) for one in seen)
    looks = Looks(files, digests)
    for number in reversed(range(len(seen))):
        looks.add(number, seen[number])
    return seen, looks, files


def said(look):
    """All of a look but the name of the instance, which is packed as a digest of it."""
    headers = [[getattr(one.header, f.name) for f in fields(Header) if f.name != "sop_uid"] for one in look.slices]
    slices = [[getattr(one, f.name) for f in fields(Slice) if f.name != "header"] for one in look.slices]
    problem = look.problem and (look.problem.code, look.problem.sentence)
    return [getattr(look, f.name) for f in fields(Look) if f.name not in {"slices", "problem"}], headers, slices, problem


def test_leaning_and_uneven_stacks_are_loaded_as_they_were_found(tmp_path):
    leaning = GRID.copy()
    leaning[1, 2] = 2.0 * np.tan(np.radians(15))
    tilted = Volume.of(np.arange(6 * 8 * 5, dtype=np.int16).reshape(6, 8, 5), leaning)
    write_planes(tmp_path / "tilted", planes_of(tilted), identity=SeriesIdentity.of("t"), tilt_degrees=15.0)
    planes = planes_of(volume(3, slices=6))
    uneven = [replace(one, position_mm=one.position_mm + np.array([0, 0, max(k - 2.0, 0.0)])) for k, one in enumerate(planes)]
    write_planes(tmp_path / "uneven", uneven, identity=SeriesIdentity.of("u"))
    seen, looks, _ = packed(tmp_path)
    expected, found = assemble(seen, resample=True).found, looks.reading(resample=True).found
    assert {note for one in expected for note in one.notes} == {"TILT_CORRECTED", "RESAMPLED"}
    for one, other in zip(found, expected, strict=True):
        assert one.frame == other.frame or np.array_equal(one.frame.affine, other.frame.affine)
        there = ForkingPickler.loads(ForkingPickler.dumps(whole(replace(one, acquisition={}))))
        np.testing.assert_array_equal(there.volume.array, other.volume.array)
        assert tuple(there.files) == tuple(other.files)


def test_every_field_of_a_look_comes_back(export):
    seen, looks, _ = packed(export)
    for number, one in enumerate(seen):
        assert said(looks.look(number)) == said(one)
    uids = [one.header.sop_uid for each in seen for one in each.slices]
    stand_ins = [one.header.sop_uid for number in range(len(seen)) for one in looks.look(number).slices]
    assert [uids.index(uid) for uid in uids] == [stand_ins.index(uid) for uid in stand_ins]


def test_one_series_after_the_other_gives_what_all_together_give(export):
    seen, looks, _ = packed(export)
    expected, found = assemble(seen), looks.reading(resample=False)
    assert len(expected.found) >= 3
    assert {one.code for one in expected.refused} >= {"SERIES_INCOMPLETE", "SERIES_MISSING_SLICE", "FILE_EMPTY"}
    assert tuple(found.duplicates) == expected.duplicates
    assert len(expected.duplicates) == 4

    def refusals(reading):
        return sorted((one.code, one.sentence, tuple(one.files)) for one in reading.refused)

    assert refusals(found) == refusals(expected)
    for one, other in zip(found.found, expected.found, strict=True):
        for name in {f.name for f in fields(other)} - {"volume", "files"}:
            assert getattr(one, name) == getattr(other, name), name
        assert isinstance(one.files, Paths)
        assert tuple(one.files) == tuple(other.files)
        np.testing.assert_array_equal(one.volume.array, other.volume.array)
        full = whole(replace(one, volume=Volume(one.volume.affine, one.volume.shape, one.volume.load)))
        assert isinstance(full.files, tuple)
        np.testing.assert_array_equal(full.volume.array, other.volume.array)
        np.testing.assert_array_equal(one.volume.affine, other.volume.affine)


def test_a_packed_file_takes_some_two_hundred_bytes(export):
    seen, _, _ = packed(export)
    sound = next(one for one in seen if len(one.slices) == 1)
    files = Files(Names(Path("x"), (f"{n:05d}" for n in range(2000))), Names(Path("x"), ()))
    digests = bytearray(32 * 2000)
    looks = Looks(files, digests)
    for number in range(2000):
        looks.add(number, sound)
    held = sum(sys.getsizeof(one) for one in vars(looks).values() if isinstance(one, bytearray | array))
    assert held - len(digests) < 260 * 2000


def test_names_are_found_by_path_and_by_place(tmp_path):
    for root in (tmp_path, Path("received"), Path(), Path("/")):
        images, labels = Names(root / "a", ["z", "b/c", "\udcff"]), Names(root / "a" / "l", ["z", "b/c"])
        files = Files(images, labels)
        assert list(files) == ["images/b/c", "images/z", "images/\udcff", "labels/b/c", "labels/z"]
        assert [files.number(path) for path in files.values()] == list(range(5))
        assert [files.path(number) for number in range(5)] == list(files.values())
        assert files["labels/z"] == root / "a" / "l" / "z"
        assert "images/l" not in files
        assert "other/z" not in files
        with pytest.raises(KeyError):
            files.number(root / "elsewhere")
    same = files.all_of((files.path(3), files.path(0)))
    assert list(same.numbers) == [3, 0]
    assert same == (files.path(3), files.path(0))
    assert files.all_of(same) is same
    assert tuple(same[1:]) == (files.path(0),)


def test_a_memory_of_stats_recalls_only_the_same_files_in_the_same_state(tmp_path, monkeypatch):
    monkeypatch.setattr(stats_module, "_SETTLED_NS", -60_000_000_000)
    for name in "abc":
        (tmp_path / name).write_text(name)
    files = [(digest_json(name), tmp_path / name) for name in "abc"]
    stats = Stats(tmp_path / "scratch" / "seen.txt")
    assert stats.recall(files) is None
    digests = bytearray(bytes.fromhex(digest_json("x")) + bytes(32) + bytes.fromhex(digest_json("y")))
    stats.remember(StatLooks(files), digests)
    assert stats.recall(files) == digests
    assert stats.recall(files[:2]) is None
    assert stats.recall([*files, (digest_json("d"), tmp_path / "d")]) is None
    assert stats.recall([files[1], files[0], files[2]]) is None
    text = stats.path.read_text()
    for spoilt in (text[:-2], text.replace(digest_json("x"), "xy"), text + "\n", "é", ""):
        stats.path.write_text(spoilt)
        assert stats.recall(files) is None
    stats.remember(StatLooks(files), digests)
    (tmp_path / "b").write_text("other")
    assert stats.recall(files) is None


def test_a_receipt_is_the_digest_of_the_list_it_stands_for(batch, configure):
    given = pipeline._batch(configure(), batch.root, add=False)
    names = [name for name, _ in given.hidden()]
    digests = bytearray(b"".join(bytes([n]) * 32 for n in range(len(names))))  # that of the first file is zeros: not read
    listed = {name: digests[32 * n : 32 * n + 32].hex() if n else "" for n, name in enumerate(names)}
    study = given.config.study
    asked = [study.study, *(part.model_dump(mode="json") for part in (study.contract, study.source, study.split))]
    whole_list = [pipeline.RULES_VERSION, pipeline.FORMAT, asked, given.clinical, "c", sorted(listed.items()), "p"]
    assert given.receipt(digests, "c", "p") == digest_json(whole_list)
