"""A digest changes with the content and with nothing else."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.digest import canonical_json, digest_bytes, digest_file, digest_json, digest_tree, file_table
from bedside.core.errors import IntegrityError

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


@given(values)
def test_canonical_json_gives_the_value_back(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), values, min_size=2, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_count(value: dict, chance: object) -> None:
    keys = list(value)
    chance.shuffle(keys)
    assert digest_json({key: value[key] for key in keys}) == digest_json(value)


@given(values, values)
def test_different_values_have_different_digests(first: object, second: object) -> None:
    assert (canonical_json(first) == canonical_json(second)) == (digest_json(first) == digest_json(second))


def test_numbers_that_json_has_not_become_words_and_stay_apart() -> None:
    assert canonical_json([math.nan, math.inf, -math.inf]) == b'["NaN","Infinity","-Infinity"]'
    assert len({digest_json(x) for x in (math.nan, math.inf, -math.inf, 0.0, None)}) == 5


def test_a_known_value_has_the_digest_of_the_standard() -> None:
    assert digest_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_json({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()


def test_a_file_larger_than_a_chunk_is_hashed_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert digest_file(tmp_path / "file") == digest_bytes(data)


@given(st.dictionaries(names, st.binary(max_size=100), min_size=1, max_size=4), st.data())
def test_any_change_of_a_folder_changes_its_digest(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = digest_tree(folder)
    name = data.draw(st.sampled_from(sorted(files)))
    what = data.draw(st.sampled_from(["append", "remove", "rename", "move"]))
    if what == "append":
        (folder / name).write_bytes(files[name] + b"x")
    elif what == "remove":
        (folder / name).unlink()
    elif what == "rename":
        (folder / name).rename(folder / "another name that hypothesis did not draw")
    else:
        (folder / "a folder that hypothesis did not draw").mkdir()
        (folder / name).rename(folder / "a folder that hypothesis did not draw" / name)
    assert digest_tree(folder) != before


def test_times_and_permissions_do_not_count_and_a_copy_is_equal(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "file").write_bytes(b"x")
    before = digest_tree(folder)
    os.utime(folder / "in" / "file", (0, 0))
    (folder / "in" / "file").chmod(0o400)
    shutil.copytree(folder, tmp_path / "two")
    assert digest_tree(folder) == digest_tree(tmp_path / "two") == before


def test_a_name_with_a_separator_cannot_stand_for_two_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / 'a":"b').write_bytes(b"x")
    (tmp_path / "two" / 'a":"b').parent.mkdir()
    (tmp_path / "two" / "a").write_bytes(b"x")
    assert digest_tree(tmp_path / "one") != digest_tree(tmp_path / "two")


@pytest.mark.parametrize("target", ["file", "folder", "/etc/hostname", "nowhere"])
def test_a_symbolic_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(IntegrityError, match="symbolic link"):
        file_table(tmp_path)
