"""What no file of ours may hold. An exception stands here with its reason, or not at all."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "bedside"
OURS = sorted(path for top in ("src", "tests", "benchmarks") for path in (ROOT / top).rglob("*.py"))
SHIPPED = [path for path in OURS if path.is_relative_to(SOURCE)]

LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
BROAD_EXCEPT = {
    "src/bedside/cli/__init__.py": "the one place where a defect becomes exit 1, with its traceback",
    "src/bedside/adapters/process_worker.py": "a worker hands every exception to its parent, which raises it again",
}
SKIPS = {
    "tests/conftest.py": (2, "scans of patients are not committed, and git is a program of the system: a clone may lack both"),
    "tests/needs.py": (1, "SLURM, DICOM validators and encoders are programs of the system; `.ci/run` installs them"),
    "tests/core/test_heap.py": (1, "mallopt(3) is glibc's, and what it changes can be seen with no other C library"),
    "tests/evaluate/test_memory.py": (
        1,
        "some sandboxes have no /proc/self/clear_refs; without it there is another test",
    ),
    "tests/house/test_repository.py": (1, "an unpacked archive has no list of what is committed"),
    "tests/test_recreate.py": (1, "an index of packages is the world outside; that none answers is tested by itself"),
    "tests/train/test_device.py": (1, "a step on a real accelerator needs one; torch's meta device stands in for it everywhere"),
}
"""Files with tests that may be left out: in how many places, and why none of them can go. Its words begin in capitals."""
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
CODE_IN_DISGUISE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    return ((ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def keyword(call: ast.Call, name: str) -> object:
    return next((getattr(item.value, "value", "?") for item in call.keywords if item.arg == name), None)


def unsafe(tree: ast.AST) -> list[str]:
    """Everything in a module that could run what a file holds."""
    found = []
    for node in ast.walk(tree):
        names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"imports {name}" for name in names if name.partition(".")[0] in CODE_IN_DISGUISE]
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        if name in {"eval", "exec", "os.system", "os.popen", "compile"} or last in {"read_pickle", "to_pickle", "load_model"}:
            found.append(name)
        if name.startswith("yaml.") and last in {
            "load",
            "load_all",
            "unsafe_load",
            "full_load",
            "unsafe_load_all",
            "full_load_all",
        }:
            found.append(name)
        if name.endswith("torch.load") and keyword(call, "weights_only") is not True:
            found.append(f"{name} without weights_only=True")
        if keyword(call, "allow_pickle") not in {None, False} or keyword(call, "shell") not in {None, False}:
            found.append(f"{name} with allow_pickle or shell")
    return found


def broad_excepts(tree: ast.AST) -> list[int]:
    """Lines of handlers that catch everything and do not raise again."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            if {"Exception", "BaseException"} & set(caught.strip("()").split(", ")) and not isinstance(node.body[-1], ast.Raise):
                found.append(node.lineno)
    return found


def skips(tree: ast.AST) -> list[int]:
    """Lines that leave a test out, or mark what may be."""
    last = ((name.rpartition(".")[2], call.lineno) for name, call in calls(tree))
    return [line for name, line in last if name in {"skip", "skipif", "importorskip", "xfail"}]


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


@every(OURS)
def test_no_module_is_longer_than_400_lines(path: Path) -> None:
    count = len(path.read_text().splitlines())
    assert count <= MOST_LINES or LONG_MODULES.get(name_of(path)), f"{count} lines"


@every(OURS)
def test_no_function_is_longer_than_60_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            assert count <= MOST_FUNCTION_LINES or LONG_FUNCTIONS.get(f"{name_of(path)}:{node.name}"), (
                f"{node.name}: {count} lines"
            )


@every(SHIPPED)
def test_nothing_shipped_could_run_what_a_file_holds(path: Path) -> None:
    assert unsafe(ast.parse(path.read_text())) == []


@every(SHIPPED)
def test_no_handler_swallows_everything(path: Path) -> None:
    lines = broad_excepts(ast.parse(path.read_text()))
    assert not lines or (name_of(path) in BROAD_EXCEPT and len(lines) == 1)


@every([path for path in OURS if not path.is_relative_to(SOURCE)])
def test_no_test_is_left_out_without_a_reason(path: Path) -> None:
    assert len(skips(ast.parse(path.read_text()))) == SKIPS.get(name_of(path), (0, ""))[0]


@every(SHIPPED)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_stated_exception_is_still_needed() -> None:
    modules = {name_of(path): path for path in OURS}
    assert set(LONG_MODULES) | set(BROAD_EXCEPT) | set(SKIPS) <= set(modules)
    assert all(broad_excepts(ast.parse(modules[name].read_text())) for name in BROAD_EXCEPT)
    assert all(len(modules[name].read_text().splitlines()) > MOST_LINES for name in LONG_MODULES)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "yaml.load(x, Loader=yaml.SafeLoader)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=y)",
        "mlflow.pytorch.load_model(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_rule_against_unsafe_loading_finds_it(text: str) -> None:
    assert unsafe(ast.parse(text))


@pytest.mark.parametrize(
    "text", ["torch.load(x, weights_only=True)", "np.load(x, allow_pickle=False)", "yaml.compose(x)", "net.eval()"]
)
def test_the_rule_against_unsafe_loading_lets_safe_code_be(text: str) -> None:
    assert unsafe(ast.parse(text)) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pytest.skip('x')", 1),
        ("@pytest.mark.skipif(x, reason='y')\ndef test_z(): pass", 1),
        ("pytest.importorskip('x'); pytest.xfail('y')", 2),
        ("stream.skipped(3)", 0),
    ],
)
def test_the_rule_against_skips_finds_them(text: str, count: int) -> None:
    assert len(skips(ast.parse(text))) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("except Exception: pass", 1),
        ("except: pass", 1),
        ("except (OSError, Exception): x = 1", 1),
        ("except BaseException:\n  f()\n  raise", 0),
        ("except OSError: pass", 0),
    ],
)
def test_the_rule_against_broad_handlers_finds_them(text: str, count: int) -> None:
    assert len(broad_excepts(ast.parse(f"try: f()\n{text}"))) == count
