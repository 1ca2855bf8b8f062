"""Hostile YAML (row A2 of the threat list): refused with its line, in no time, and never run."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.yaml_tree import MAX_VALUES, Tree, override, parse

HOSTILE = {
    "python object": ("a: 1\nb: !!python/object/apply:os.system [touch pwned]", 2, "tags are not allowed"),
    "python name": ("a: !!python/name:os.system", 1, "tags are not allowed"),
    "own tag": ("a:\n  - !x 1", 2, "tags are not allowed"),
    "binary": ("a: !!binary aGVsbG8=", 1, "tags are not allowed"),
    "tag prefix": ("%TAG ! tag:yaml.org,2002:python/\n---\na: !object:os.system 1", 3, "tags are not allowed"),
    "later version": ("%YAML 3.0\n---\na: 1", 1, "not YAML"),
    "anchor": ("a: 1\nb: &x 2", 2, "anchors and aliases"),
    "alias": ("a: *x", 1, "anchors and aliases"),
    "alias of itself": ("a: &a [*a]", 1, "anchors and aliases"),
    "depth in flow": ("a: " + "[" * 100_000, 1, "nested deeper"),
    "depth in maps": ("{a: " * 50_000, 1, "nested deeper"),
    "depth in blocks": ("\n".join(" " * i + "a:" for i in range(400)), 33, "nested deeper"),
    "depth in dashes": ("- " * 5000 + "a", 1, "nested deeper"),
    "key twice": ("a: 1\nb: 2\na: 3", 3, "stands here twice"),
    "key twice, quoted": ("a: 1\n'a': 2", 2, "stands here twice"),
    "key twice, below": ("a:\n  b: 1\n  b: 2", 3, "stands here twice"),
    "list as key": ("[a]: 1", 1, "a plain word"),
    "NaN": ("a: 1\nb: .nan", 2, "not a finite number"),
    "infinite": ("a: -.inf", 1, "not a finite number"),
    "beyond doubles": ("a: 1e999", 1, "not a finite number"),
    "beyond doubles, whole": ("a: " + "9" * 5000, 1, "not a finite number"),
    "two documents": ("a: 1\n---\nb: 2", 2, "second document"),
    "zero byte": ("a: 1\nb: \0", 2, "a character that text cannot hold"),
    "lone surrogate": ("a: \udcff", 1, "a character that text cannot hold"),
    "tabs": ("a:\n\t- 1", 2, "not YAML"),
    "too many keys": ("\n".join(f"k{i}: 1" for i in range(60_000)), MAX_VALUES // 2, "more than 20000 keys"),
    "too long": ("#" * (1 << 20) + "\n", 0, "larger than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_its_line_and_in_no_time(name: str) -> None:
    text, line, said = HOSTILE[name]
    began = time.process_time()
    problems = parse(text, "study.yaml").problems
    assert time.process_time() - began < 5
    assert problems[0].line == line
    assert said in problems[0].what


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("true", True),
        ("017", 17),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("190:20:30", "190:20:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", 1000),
        ("~", None),
        ("'1'", "1"),
    ],
)
def test_words_are_not_taken_for_something_else(text: str, value: object) -> None:
    assert parse(f"a: {text}", "study.yaml").value == {"a": value}


def test_a_merge_key_merges_nothing() -> None:
    assert parse("a: {<<: {b: 1}}", "study.yaml").value == {"a": {"<<": {"b": 1}}}


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_no_text_at_all_is_more_than_a_problem(text: str) -> None:
    tree = parse(text, "study.yaml")
    assert tree.value is not None or tree.problems or text.strip()
    override(Tree("study.yaml", value={}), text)


@pytest.mark.parametrize("assignment", ["a=\udcff", "\udcff=1", "a=\x1b[2J", "a\n=1", "a=b\0"])
def test_an_override_that_cannot_be_printed_is_refused_without_repeating_it(assignment: str) -> None:
    tree = Tree("study.yaml", value={})
    override(tree, assignment)
    assert str(tree.problems[0]).isascii()
    assert tree.value == {}
