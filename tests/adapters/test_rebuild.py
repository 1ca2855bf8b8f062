"""Claims about an environment that is built again: exactly what was recorded, from where pip and uv were told to look.

The wheels are generated, the installers are the real ones, and nothing is asked of a network.
"""

import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from bedside.adapters import installers as found
from bedside.adapters import rebuild
from bedside.adapters.rebuild import LOCK, LOG, build, described, lock_of
from bedside.core.errors import Interrupted, ResourceError, UsageError

HERE = ".".join(map(str, sys.version_info[:3]))


def put_wheel(folder: Path, name: str, number: str, **files: str) -> None:
    """A wheel of a module of this name."""
    about = f"{name}-{number}.dist-info"
    texts = {
        f"{name}.py": f"number = {number!r}\n",
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    texts[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in (*texts, f"{about}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as archive:
        for path, text in texts.items():
            archive.writestr(path, text)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Say where pip and uv look, and that neither asks a network; None: it was told nothing."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))

    def tell(*, pip: str | None = None, uv: str | None = None) -> None:
        for names, folder in ((("PIP_FIND_LINKS", "PIP_NO_INDEX"), pip), (("UV_FIND_LINKS", "UV_OFFLINE"), uv)):
            for name, value in zip(names, (str(tmp_path / str(folder)), "1"), strict=True):
                if folder is None:
                    monkeypatch.delenv(name, raising=False)
                else:
                    monkeypatch.setenv(name, value)

    return tell


@pytest.fixture
def wheels(tmp_path):
    """Of torch only the build for processors and the newer one without a build, as where the public index has CUDA's."""
    put_wheel(tmp_path / "all", "alpha", "1.0")
    put_wheel(tmp_path / "all", "torch", "2.13.0+cpu")
    put_wheel(tmp_path / "cuda", "alpha", "1.0")
    put_wheel(tmp_path / "cuda", "torch", "2.13.0")
    return tmp_path


def number_of(interpreter: Path, module: str) -> str:
    said = subprocess.run(
        [interpreter, "-I", "-c", f"import {module}; print({module}.number)"], capture_output=True, text=True, check=True
    )
    return said.stdout.strip()


def test_pip_installs_exactly_what_was_recorded_and_nothing_else(wheels, told, tmp_path, monkeypatch):
    """Whatever else the settings say about where to install, and whatever is installed here."""
    told(pip="all")
    for name, value in (
        ("PIP_TARGET", str(tmp_path / "there")),
        ("PIP_USER", "1"),
        ("PYTHONPATH", sysconfig.get_path("purelib")),
    ):
        monkeypatch.setenv(name, value)
    made = build(tmp_path / "again", {"alpha": "1.0", "torch": "2.13.0+cpu", "bedside": "9.9"}, python=HERE)
    assert number_of(made.python, "torch") == "2.13.0+cpu"
    assert made.said.startswith("2 packages by pip in ")
    listed = {path.name for path in made.python.parents[1].glob("lib/python3*/site-packages/*.dist-info")}
    assert listed == {"alpha-1.0.dist-info", "torch-2.13.0+cpu.dist-info"}
    assert not (tmp_path / "there").exists()
    assert (tmp_path / "again" / LOCK).read_text() == "alpha===1.0\ntorch===2.13.0+cpu\n"


def test_an_environment_that_was_made_whole_is_kept_and_one_that_was_not_is_made_anew(wheels, told, tmp_path):
    told(pip="all")
    folder = tmp_path / "again"
    made = build(folder, {"alpha": "1.0"}, python=HERE)
    mark = made.python.parents[1] / "mark"
    mark.touch()
    assert build(folder, {"alpha": "1.0"}, python=HERE).said == "1 packages, kept from before"
    assert mark.exists()
    (folder / LOCK).unlink()  # as after a kill in the middle
    assert "by pip" in build(folder, {"alpha": "1.0"}, python=HERE).said
    assert not mark.exists()
    with pytest.raises(ResourceError, match="does not run"):  # it has no torch and no pydantic
        described(folder, made.python)


@pytest.mark.parametrize(("name", "asked", "there"), [("uv", "2.13.0+cpu", "cuda"), ("pip", "2.13.0", "all")])
def test_another_build_of_torch_is_never_taken_for_the_recorded_one(wheels, told, tmp_path, monkeypatch, name, asked, there):
    told(**{name: there})
    told_only = tuple(one for one in found.installers() if one.name == name)
    monkeypatch.setattr("bedside.adapters.rebuild.installers", lambda: told_only)
    with pytest.raises(ResourceError, match=f"{name} has not got torch=={asked.replace('+', '.')}") as caught:
        build(tmp_path / "again", {"alpha": "1.0", "torch": asked}, python=HERE)
    assert (caught.value.code, caught.value.exit_code) == ("INSTALL", 6)
    assert not (tmp_path / "again" / ".venv").exists()
    assert not (tmp_path / "again" / LOCK).exists()
    assert f"--- {name}" in (tmp_path / "again" / LOG).read_text()


def test_what_one_has_not_got_the_other_is_asked_for_and_it_is_said(wheels, told, tmp_path):
    told(pip="cuda", uv="all")
    made = build(tmp_path / "again", {"alpha": "1.0", "torch": "2.13.0+cpu"}, python=HERE)
    assert number_of(made.python, "torch") == "2.13.0+cpu"
    assert made.said.startswith("2 packages by uv as pip has not got torch==2.13.0+cpu in ")


def test_where_only_uv_was_told_it_is_asked_first(wheels, told, tmp_path):
    told(uv="all")
    assert [one.name for one in found.installers()] == ["uv"]  # and pip, told nothing, not after one that is kept off the index
    assert " by uv in " in build(tmp_path / "again", {"torch": "2.13.0+cpu"}, python=HERE).said


def test_the_order_follows_what_each_was_told(told, monkeypatch):
    def names() -> list[str]:
        return [one.name for one in found.installers()]

    told()
    assert names() == ["pip", "uv"]
    monkeypatch.setenv("UV_INDEX", "https://builds.example/cpu")
    assert names() == ["uv", "pip"]
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://builds.example/cpu")
    assert names() == ["pip", "uv"]
    monkeypatch.delenv("UV_INDEX")
    monkeypatch.setenv(
        "PIP_INDEX_URL", "https://mirror.example/simple"
    )  # nothing of the public index, so no uv that was told nothing
    assert names() == ["pip"]


def test_a_settings_file_of_uv_counts_as_being_told(told, monkeypatch, tmp_path):
    told()
    monkeypatch.delenv("UV_NO_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text('index-url = "https://mirror.example/simple"\n')
    assert found.installers()[0].name == "uv"


def test_an_index_that_does_not_answer_is_said(told, tmp_path, monkeypatch):
    told()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ResourceError, match="No package index answered") as caught:
        build(tmp_path / "again", {"alpha": "1.0"}, python=HERE)
    assert caught.value.code == "NO_INDEX"


def test_an_installer_that_is_stopped_leaves_nothing_running(tmp_path):
    """pip --python works in a second process, which would go on writing into the environment."""
    second = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    first = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {second!r}])"

    def stop(*_: object) -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise Interrupted("stopped")
        signal.alarm(1)

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(1)
    try:
        with pytest.raises(Interrupted):
            rebuild._ask([sys.executable, "-c", first])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(100):
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the second process goes on")


def test_another_python_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match=r"Python 3\.9\.1") as caught:
        build(tmp_path / "again", {"alpha": "1.0"}, python="3.9.1")
    assert caught.value.code == "PYTHON"


def test_a_version_that_is_not_in_normal_form_is_asked_for_as_it_stands():
    assert lock_of({"a": "2024.07.01", "b": "1.0rc1", "c": "1!2.0.post1.dev2+cu130"}) == (
        "a==2024.07.01\nb===1.0rc1\nc===1!2.0.post1.dev2+cu130\n"
    )


def test_looking_for_pip_leaves_torchs_compiler_the_distutils_that_it_needs():
    text = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from bedside.adapters.installers import installers\n"
        "assert any(one.name == 'pip' for one in installers())\n"
        "import setuptools, distutils.core; print(distutils.core.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "setuptools" in done.stdout
