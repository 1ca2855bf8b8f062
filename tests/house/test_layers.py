"""Who may import whom."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "bedside"
MODULES = sorted(SOURCE.rglob("*.py"))

# an imported package that another declared one brings along, and is part of its interface
COMES_WITH = {"contourpy": "matplotlib", "google": "onnx", "pydantic_core": "pydantic"}

# one outside library, one place (numpy, scipy, pydantic and torch have rules of their own)
ONLY_IN = {
    "alembic": ["adapters/mlflow"],
    "cryptography": ["adapters/vault"],
    "dask": ["adapters/dask"],
    "dask_jobqueue": ["adapters/dask"],
    "distributed": ["adapters/dask"],
    "dvc": ["adapters/dvc"],
    "fast_simplification": ["data/surface"],
    "gdcm": ["formats/dicom"],
    "highdicom": ["formats/seg"],
    "jinja2": ["evaluate", "ingest/quality", "predict"],
    "lightning_fabric": ["train"],
    "matplotlib": ["evaluate", "ingest/quality", "predict"],
    "mlflow": ["adapters/mlflow"],
    "monai": ["networks", "data/transforms"],
    "nibabel": ["formats/nifti"],
    "onnx": ["engines/onnxruntime", "accelerate"],
    "onnxruntime": ["engines/onnxruntime", "accelerate"],
    "onnxscript": ["accelerate"],
    "pandas": ["formats/table"],
    "pandera": ["formats/table"],
    "pydicom": [
        "formats/dicom",
        "formats/deidentify",
        "formats/burned_in",
        "formats/face",
        "formats/identity",
        "formats/seg",
    ],
    "pylibjpeg": ["formats/dicom"],
    "rich": ["cli"],
    "safetensors": ["engines/torch", "formats/bundle", "recreate", "train", "testing"],
    "skimage": [],  # tests and benchmarks only, as trimesh
    "sqlalchemy": ["adapters/mlflow"],
    "submitit": ["adapters/slurm"],
    "trimesh": [],
    "typer": ["cli"],
    "yaml": ["core/yaml_tree"],
}


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of everything a module imports, anywhere in it, except for types only."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        waiting.extend(ast.iter_child_nodes(node))


def test_the_layers_hold() -> None:
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", command], cwd=SOURCE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_an_outside_library_is_imported_in_its_own_place_only(module: Path) -> None:
    place = module.relative_to(SOURCE).as_posix()
    for name in set(imported(ast.parse(module.read_text()))) & set(ONLY_IN):
        assert any(place.startswith(allowed) for allowed in ONLY_IN[name]), f"{place} imports {name}"


def test_everything_that_is_imported_is_declared() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["dask"]]
    declared = {re.split(r"[<>=!~\[ ]", line)[0].lower().replace("_", "-") for line in lines}
    used = {name for module in MODULES for name in imported(ast.parse(module.read_text()))}
    for name in used - sys.stdlib_module_names - {"bedside"}:
        brings = {found.lower().replace("_", "-") for found in packages_distributions().get(COMES_WITH.get(name, name), [])}
        assert brings & declared, f"{name} is imported and its package is not in pyproject.toml"


@pytest.mark.parametrize("module", [p for p in MODULES if p.parent.name == "core"], ids=lambda path: path.name)
def test_core_imports_the_standard_library_numpy_pydantic_and_yaml_only(module: Path) -> None:
    allowed = sys.stdlib_module_names | {"numpy", "pydantic", "pydantic_core", "yaml", "bedside"}
    assert set(imported(ast.parse(module.read_text()))) <= allowed


def test_importing_all_of_core_loads_nothing_heavy() -> None:
    names = [f"bedside.core.{path.stem}" for path in MODULES if path.parent.name == "core" and path.stem != "__init__"]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names!r}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "monai", "scipy", "onnx", "matplotlib", "mlflow", "dvc", "typer"} & set(loaded)
