"""The guides are true: their marked code blocks run, in order, as a reader would type them.

A block is run when the line before it is `<!-- run -->`; `<!-- run: real -->` needs the real scans and `<!-- run: slow -->` takes
minutes. All blocks of one guide share one folder, which looks like the checkout: `studies/` is there, and the scans lie in
`../shared/data`, every fifth patient of the hippocampus and all of the others. `bash` and `python` blocks run; a block that
should fail ends in `|| test $? -eq 5` or the like.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [
    path for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()
]
BLOCK = re.compile(r"^<!-- run(?:: ([a-z, ]+))? -->\n+```(bash|python)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def blocks(path: Path) -> list[tuple[str, str]]:
    return [(language, text) for _, language, text in BLOCK.findall(path.read_text())]


def marks(path: Path) -> list[pytest.MarkDecorator]:
    said = {word for words, _, _ in BLOCK.findall(path.read_text()) for word in re.split(r"[, ]+", words) if word}
    return [getattr(pytest.mark, word) for word in sorted(said)]


def lay_out(data_root: Path, place: Path) -> None:
    place.mkdir(parents=True)
    for collection in data_root.iterdir():
        if collection.name != "hippocampus_dev":
            (place / collection.name).symlink_to(collection)
    for kind in ("images", "labels"):
        (place / "hippocampus_dev" / kind).mkdir(parents=True)
        for path in sorted((data_root / "hippocampus_dev" / kind).iterdir())[::5]:
            shutil.copy(path, place / "hippocampus_dev" / kind)


def test_there_are_guides_and_some_of_their_blocks_run() -> None:
    assert ROOT / "README.md" in GUIDES
    assert any(path.is_relative_to(ROOT / "docs") and blocks(path) for path in GUIDES)


@pytest.mark.parametrize("path", [pytest.param(path, marks=marks(path), id=path.name) for path in GUIDES if blocks(path)])
def test_the_blocks_of_a_guide_run_in_order(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "studies").symlink_to(ROOT / "studies")
    if request.node.get_closest_marker("real"):
        lay_out(request.getfixturevalue("data_root"), tmp_path / "shared" / "data")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, text in blocks(path):
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_no_link_of_a_guide_leads_nowhere(path: Path) -> None:
    broken = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not broken


def test_a_block_is_found_by_its_mark_only() -> None:
    text = "<!-- run: real, slow -->\n```bash\na\n```\n\n```bash\nb\n```\n<!-- run -->\n\n```python\nc\n```\n"
    assert BLOCK.findall(text) == [("real, slow", "bash", "a\n"), ("", "python", "c\n")]
