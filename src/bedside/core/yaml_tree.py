"""YAML to plain values, with the line of every node: the small grammar that configuration files may use.

Refused, each with its line: tags, anchors and aliases (a 300-byte file can expand to billions of nodes), duplicate keys,
nesting beyond 32, files above 1 MiB or 20,000 values, and NaN. Booleans are `true` and `false` as in YAML 1.2; `on`, `off`,
`yes` and `no` are strings.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from bedside.core.errors import Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\Z")

Path = tuple[str | int, ...]


@dataclass
class Tree:
    """Values of a YAML file, the line each path stands on, and what is wrong with it."""

    source: str
    value: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str, source: str) -> Tree:
    """Parse a configuration file; never raises for what the file holds: see `Tree.problems`."""
    tree = Tree(source)
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        tree.problems.append(Problem(source, 0, "", f"the file is larger than {MAX_BYTES} bytes"))
        return tree
    problem = _scan(text, source)
    if problem is not None:
        tree.problems.append(problem)
        return tree
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    tree.value = {} if node is None else _value(node, (), tree)
    return tree


def _scan(text: str, source: str) -> Problem | None:
    """Look at the events before any tree is built, so that depth and aliases cannot hurt."""
    depth = documents = values = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                return Problem(source, line, "", "a second document begins; one file holds one")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                return Problem(source, line, "", "anchors and aliases are not allowed; write the value out")
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
                return Problem(source, line, "", f"tags are not allowed: {event.tag}")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                return Problem(source, line, "", f"nested deeper than {MAX_DEPTH} levels")
            values += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
            if values > MAX_VALUES:
                return Problem(source, line, "", f"more than {MAX_VALUES} keys and values")
    except yaml.reader.ReaderError as error:
        return Problem(source, text.count("\n", 0, error.position) + 1, "", "not YAML: a character that text cannot hold")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return Problem(source, mark.line + 1 if mark else 0, "", f"not YAML: {getattr(error, 'problem', None) or 'unreadable'}")
    return None


def _value(node: yaml.Node, path: Path, tree: Tree) -> object:
    tree.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, tree)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), tree) for index, item in enumerate(node.value)]
    text = str(node.value)
    if _beyond_numbers(text):  # quoted or not: pydantic would read "inf" and "1e999" as numbers
        tree.problems.append(Problem(tree.source, tree.lines[path], _dotted(path), "this is not a finite number"))
    return scalar(text) if isinstance(node, yaml.ScalarNode) and node.style is None else text


def _beyond_numbers(text: str) -> bool:
    try:
        return not math.isfinite(float(text.replace(".nan", "nan").replace(".inf", "inf")))
    except ValueError:
        return False


def _mapping(node: yaml.MappingNode, path: Path, tree: Tree) -> dict[str, object]:
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            tree.problems.append(Problem(tree.source, line, _dotted(path), "a key must be a plain word"))
            continue
        if key in found:
            tree.problems.append(Problem(tree.source, line, _dotted((*path, key)), "the key stands here twice"))
            continue
        tree.lines[(*path, key)] = line
        found[key] = _value(value_node, (*path, key), tree)
    return found


def scalar(text: str) -> str | int | float | bool | None:
    """Read an unquoted scalar by the YAML 1.2 core schema (without octal, hexadecimal and infinities)."""
    if text in {"", "~", "null"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if not (_INTEGER.match(text) or _FLOAT.match(text)) or not math.isfinite(float(text.replace("_", ""))):
        return text
    return int(text.replace("_", "")) if _INTEGER.match(text) else float(text)


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def override(tree: Tree, assignment: str) -> None:
    """Apply one `a.b.c=value` of the command line to the tree; the value is read as YAML."""
    name, equals, text = assignment.partition("=")
    source = f"--set {assignment}"
    if not assignment.isprintable():
        tree.problems.append(Problem("--set", 0, "", "expected section.key=value in letters that can be printed"))
        return
    keys = name.strip().split(".")
    parsed = parse(text, source)
    if not equals or not all(keys) or parsed.problems:
        tree.problems.append(Problem(source, 0, "", "expected --set section.key=value"))
        return
    target = tree.value
    for depth, key in enumerate(keys[:-1]):
        target = _step(target, key)
        if target is None:
            tree.problems.append(Problem(source, 0, ".".join(keys[: depth + 1]), "there is no such section"))
            return
    value = None if parsed.value == {} and not text.strip() else parsed.value
    if isinstance(target, dict):
        target[keys[-1]] = value
    elif isinstance(target, list) and keys[-1].isdigit() and int(keys[-1]) < len(target):
        target[int(keys[-1])] = value
    else:
        tree.problems.append(Problem(source, 0, name, "there is no such place"))


def _step(target: object, key: str) -> object:
    if isinstance(target, dict):
        return target.setdefault(key, {}) if not isinstance(target.get(key), list) else target[key]
    if isinstance(target, list) and key.isdigit() and int(key) < len(target):
        return target[int(key)]
    return None


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return `base` with `over` laid on top, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result
