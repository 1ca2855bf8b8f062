"""The public face: these names, sorted, and light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import bedside

VERBS = {"accelerate", "evaluate", "ingest", "load", "open", "promote", "read", "train", "verify"}


def test_the_public_names_are_sorted_and_every_one_is_there() -> None:
    assert list(bedside.__all__) == sorted(bedside.__all__)
    for name in bedside.__all__:
        found = getattr(bedside, name)
        assert callable(found), name
        assert found.__doc__, f"{name} has no docstring"
    assert set(bedside.__all__) >= VERBS
    assert set(bedside.__all__) <= set(dir(bedside))


def test_what_a_type_checker_sees_is_what_there_is() -> None:
    tree = ast.parse(Path(bedside.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    shown = {
        name.asname or name.name
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert shown == set(bedside.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    assert not hasattr(bedside, "ingset")


def test_a_verb_stays_a_function_when_its_folder_is_imported() -> None:
    import bedside.train.pipeline

    assert callable(bedside.train)


def test_importing_bedside_loads_nothing_but_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import bedside; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    outside = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"bedside"}
    assert not outside
