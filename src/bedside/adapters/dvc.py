"""DVC as `Store`: it moves the bytes of stored values to a remote and back. Our own digest decides whether they are the same.

A study folder may be a git repository, a folder inside one, or in no repository at all. What belongs in git is the ledger,
`study.yaml`, `store/*.dvc` and `.dvc/config`; stored bytes, refused scans, reports (they show patients) and `site.yaml` are
kept out by the `.gitignore` that the first push writes.

DVC runs in a process of its own: its logging, signal handling and locks stay out of ours, and several commands share one start.
"""

import configparser
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bedside.core import yaml_tree
from bedside.core.errors import BedsideError, IntegrityError, ResourceError, UnsafeArtefact, UsageError, disk_errors
from bedside.core.files import write_atomic
from bedside.core.workspace import Workspace

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?\Z")
_REMOTE = "storage"
_SETTINGS = {"core.analytics": "false", "core.check_update": "false", "cache.type": "reflink,hardlink,copy"}
_KEPT_OUT_OF_GIT = (
    "/scratch/",
    "/quarantine/",
    "/reports/",
    "/site.yaml",
    "/store/?*/",  # not "/store/*/": DVC would take store/ itself for ignored, and find no pointer in it
    "/mlflow.db*",
    "/mlartifacts/",
    "/.dvc/cache/",
    "/.dvc/tmp/",
    "/.dvc/config.local",
)
_NOT_WALKED_BY_DVC = ("/scratch/", "/quarantine/", "/reports/", "/mlartifacts/", "/store/.staging-*")
_RUNNER = """\
import json, sys
from dvc.cli import main
for command in json.loads(sys.argv[1]):
    code = main(command)
    if code:
        sys.exit(code)
"""


class DvcStore:
    """Versions values of one study folder with DVC.

    Args:
        workspace: the study folder.
        remote: URL of a DVC remote, or a path (relative to the study folder). None: the remote that the folder's DVC
            configuration names already, else a folder `<name>-remote` beside the git repository that holds the study (beside the
            study folder where there is none), so that a clone made beside the original finds it.

    Raises:
        UsageError: the URL holds a password, which would be committed with the configuration.
    """

    def __init__(self, workspace: Workspace, remote: str | None = None) -> None:
        if remote is not None and _password(remote):
            raise UsageError(
                "The remote's URL holds a password, and DVC's configuration is committed; give it through the environment or"
                " `dvc remote modify --local`.",
                code="REMOTE_PASSWORD",
            )
        self.workspace = workspace
        self.remote = remote
        self._root = workspace.folder.absolute()

    def push(self, digest: str) -> None:
        """Take a value under version and copy it to the remote.

        Raises:
            UsageError: no such value, or DVC cannot use the remote.
            ResourceError: the disk is full, or the remote cannot be reached.
        """
        self.push_all((digest,))

    def push_all(self, digests: Sequence[str]) -> None:
        """Push several values with one start of DVC."""
        for digest in digests:
            if not _DIGEST.match(digest) or not (self.workspace.store / digest).is_dir():
                raise UsageError(f"There is no value {digest[:12]} in the store to push.", code="DIGEST")
        if not digests:
            return
        with self._locked():
            commands = [*self._setup(), ["add", "-q", *(f"store/{digest}" for digest in digests)]]
            self._dvc("push", [*commands, ["push", "-q", *(f"store/{digest}.dvc" for digest in digests)]])

    def pull(self, digest: str) -> None:
        """Bring a value's bytes back into the store; bytes that have changed are replaced once the right ones are here.

        Raises:
            UsageError: the value was never pushed from this study.
            IntegrityError: the remote has not got it, or what came is not what was stored.
            UnsafeArtefact: what came would be written outside the store.
            ResourceError: the disk is full, or the remote cannot be reached.
        """
        pointer = self.workspace.store / f"{digest}.dvc"
        if not _DIGEST.match(digest) or not pointer.is_file():
            raise UsageError(f"The value {digest[:12]} was never pushed from this study: there is no .dvc file.", code="DIGEST")
        md5 = _pointed_at(pointer, digest)
        with self._locked():
            if self._sound(digest):
                return
            self._forget(md5)
            self._dvc("pull", [["fetch", "-q", f"store/{digest}.dvc"]])
            self._listing(md5)
            shutil.rmtree(self.workspace.store / digest, ignore_errors=True)
            self._dvc("pull", [["checkout", "-q", "--force", f"store/{digest}.dvc"]])
        self.workspace.get(digest)

    def revision(self, digest: str) -> str:
        """The MD5 in the value's `.dvc` file, which is what DVC calls a revision of a folder; "" before it is pushed."""
        pointer = self.workspace.store / f"{digest}.dvc"
        return _pointed_at(pointer, digest) if _DIGEST.match(digest) and pointer.is_file() else ""

    def _sound(self, digest: str) -> bool:
        try:
            self.workspace.get(digest)
        except IntegrityError:
            return False
        return True

    def _cached(self, md5: str) -> Path:
        return self._root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]

    def _listing(self, md5: str) -> tuple[str, ...]:
        """MD5 names of the files of a cached folder, after a look at where they would be written."""
        try:
            rows = json.loads(self._cached(md5).read_bytes())
            names = [(str(row["md5"]), str(row["relpath"])) for row in rows]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                "DVC's table of the value's files is not in the remote, or cannot be read; push it from where it was made.",
                code="REMOTE_MISSING",
            ) from error
        for name, path in names:
            if not _MD5.match(name) or path.startswith(("/", "~")) or ".." in path.split("/"):
                raise UnsafeArtefact("DVC's table of the value's files names a place outside the store.", code="TRAVERSAL")
        return tuple(name for name, _ in names)

    def _forget(self, md5: str) -> None:
        """Drop a value from DVC's cache: DVC trusts what lies there, and a hard link to a changed file has changed with it."""
        try:
            names = self._listing(md5)
        except IntegrityError:
            names = ()
        for name in (*names, md5):
            self._cached(name).unlink(missing_ok=True)

    def _setup(self) -> list[list[str]]:
        """Write the ignore files and return the DVC commands that bring its configuration to what this study needs."""
        top = _repository(self._root)
        _add_lines(self._root / ".gitignore", _KEPT_OUT_OF_GIT)
        commands: list[list[str]] = []
        config = _configuration(self._root / ".dvc" / "config")
        if not config:
            inside = [] if top == self._root else ["--subdir"]
            commands.append(["init", "-q", *(inside if top else ["--no-scm"])])
        elif top and config.get("core.no_scm", "").lower() == "true":
            commands.append(["config", "-q", "--unset", "core.no_scm"])
        commands += [["config", "-q", name, value] for name, value in _SETTINGS.items() if config.get(name) != value]
        url = config.get(f"remote.{_REMOTE}.url")
        if self.remote is None and url is None:
            commands.append(self._point_to(os.path.relpath(_default_remote(top or self._root), self._root)))
        elif self.remote is not None and url != self._as_stored(self.remote):
            commands.append(self._point_to(self.remote))
        _add_lines(self._root / ".dvcignore", _NOT_WALKED_BY_DVC)
        return commands

    def _point_to(self, remote: str) -> list[str]:
        return ["remote", "add", "-q", "--default", "--force", _REMOTE, "--", remote]

    def _as_stored(self, remote: str) -> str:
        """A path as DVC writes it down, relative to its own folder; a URL as it is."""
        if urlsplit(remote).scheme or Path(remote).is_absolute():
            return remote
        return os.path.relpath(self._root / remote, self._root / ".dvc")

    def _dvc(self, doing: str, commands: Sequence[Sequence[str]]) -> None:
        environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self._root / "scratch" / "dvc"),  # by default DVC writes to /var/tmp
        }
        # -P: a file dvc.py or json.py in the study folder must not be imported in place of the library
        done = subprocess.run(  # noqa: S603 - an argument list of our own; the only outside text is the remote, behind `--`
            [sys.executable, "-P", "-c", _RUNNER, json.dumps(commands)],
            cwd=self._root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            write_atomic(self.workspace.scratch / "dvc.log", said.encode(), doing="keeping DVC's message")
            raise _error(doing, said)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One DVC at a time in a study folder: DVC itself gives up after a few seconds when another one runs."""
        with disk_errors("preparing DVC"):
            self.workspace.scratch.mkdir(parents=True, exist_ok=True)
            with (self.workspace.scratch / "dvc.lock").open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield


def _password(remote: str) -> bool:
    try:
        return urlsplit(remote).password is not None
    except ValueError as error:
        raise UsageError("The remote is neither a path nor a URL.", code="REMOTE") from error


def _pointed_at(pointer: Path, digest: str) -> str:
    """The MD5 that a `.dvc` file names, after checking that it can only ever write the value's own folder."""
    tree = yaml_tree.parse(pointer.read_text(encoding="utf-8", errors="replace"), pointer.name)
    value = tree.value
    outs = value.get("outs") if isinstance(value, dict) else None
    out = outs[0] if isinstance(outs, list) and len(outs) == 1 and isinstance(outs[0], dict) else {}
    md5 = str(out.get("md5"))
    if tree.problems or not isinstance(value, dict) or set(value) != {"outs"} or out.get("path") != digest or not _MD5.match(md5):
        raise UnsafeArtefact(f"The .dvc file of {digest[:12]} names more than the value itself; it is not used.", code="DVC_FILE")
    return md5


def _configuration(path: Path) -> dict[str, str]:
    """DVC's configuration as "section.key" (remotes: "remote.NAME.key"), empty where there is none."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        if not parser.read(path, encoding="utf-8"):
            return {}
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError("The study folder's .dvc/config cannot be read; mend it or remove .dvc.", code="DVC_CONFIG") from error
    found = {"core": "there"}
    for section in parser.sections():
        name = ".".join(re.sub(r"[\"']", "", section).split())
        found |= {f"{name}.{key}": value.strip("\"'") for key, value in parser[section].items()}
    return found


def _repository(folder: Path) -> Path | None:
    """Top of the git repository that the folder is part of; None without git, outside of one, or where git ignores the folder."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = [git, "-C", str(folder), "rev-parse", "--show-toplevel"]
    top = subprocess.run(asked, capture_output=True, check=False)  # noqa: S603 - fixed arguments
    ignored = subprocess.run([git, "-C", str(folder), "check-ignore", "-q", "."], capture_output=True, check=False)  # noqa: S603
    if top.returncode or ignored.returncode == 0:
        return None
    found = Path(os.fsdecode(top.stdout.removesuffix(b"\n")))
    return folder if found.samefile(folder) else found


def _default_remote(home: Path) -> Path:
    """Make the folder beside `home`; git is told to ignore it wherever it happens to lie."""
    folder = home.parent / f"{home.name}-remote"
    with disk_errors("making the DVC remote"):
        try:
            folder.mkdir(exist_ok=True)
        except PermissionError as error:
            raise UsageError(
                "The folder above the study is not writable, so the DVC remote cannot be made there; set `remote` in site.yaml.",
                code="REMOTE",
            ) from error
        write_atomic(folder / ".gitignore", b"*\n", doing="making the DVC remote")
    return folder


def _add_lines(path: Path, wanted: Sequence[str]) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    missing = [line for line in wanted if line not in text.splitlines()]
    if missing:
        text += "" if text.endswith("\n") or not text else "\n"
        write_atomic(path, (text + "\n".join(missing) + "\n").encode(), doing=f"writing {path.name}")


def _error(doing: str, said: str) -> BedsideError:
    """One of our errors for what DVC said; its own words stay in scratch/dvc.log, for they may hold paths."""
    words = said.lower()
    if "no space left" in words or "[errno 28]" in words or "[errno 27]" in words or "disk quota" in words:
        return ResourceError(f"The disk is full during dvc {doing}; free some space and repeat the command.", code="DISK_FULL")
    if "missing-files" in words or "do not exist neither locally nor on remote" in words or "missing cache files" in words:
        return IntegrityError(
            "The remote has not got all of the value's files; push it from where it was made.", code="REMOTE_MISSING"
        )
    if "requires `dvc-" in words or "is supported, but requires these missing dependencies" in words or "unsupported" in words:
        return UsageError("DVC needs a plug-in for this kind of remote (dvc-s3, dvc-ssh, ...); install it.", code="REMOTE")
    if "permission" in words or "forbidden" in words or "credential" in words or "authentication" in words:
        return UnsafeArtefact("The DVC remote refused access; check the credentials of this account.", code="REMOTE_ACCESS")
    if "no remote" in words or "default remote" in words or "invalid remote" in words:
        return UsageError("No DVC remote is configured; set `remote` in site.yaml.", code="REMOTE")
    return ResourceError(f"DVC could not {doing} the value; its own words are in scratch/dvc.log.", code="DVC")
