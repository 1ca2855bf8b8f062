"""A second study folder for a run: its study, its plan, and the values it was made of, fetched by digest and verified."""

import json
import os
import shutil
from pathlib import Path

from pydantic import JsonValue

from bedside.adapters.site import store_for
from bedside.core.config import Config, Study, load
from bedside.core.dataset import Dataset
from bedside.core.digest import digest_json, file_table
from bedside.core.errors import BedsideError, IntegrityError, UsageError, disk_errors
from bedside.core.files import write_atomic
from bedside.core.run import Run
from bedside.core.site import Site
from bedside.core.workspace import Workspace
from bedside.train.again import study_of

EVENT = "recreation_begun"


def find_run(workspace: Workspace, name: str) -> Run:
    """The run that a digest (or its beginning, or that of its model) or "latest" names, as the ledger knows it.

    Raises:
        UsageError: NOT_YET, or DIGEST: no run, or several, have this name.
    """
    trained = [event for event in workspace.ledger.events() if event.action == "trained"]
    if not trained:
        raise UsageError("There is no run in this study folder yet; run bedside train first.", code="NOT_YET")
    if name == "latest":
        return Run(trained[-1].outputs["run"], trained[-1].outputs["model"], workspace)
    found = {
        (event.outputs["run"], event.outputs["model"])
        for event in trained
        if len(name) >= 4 and any(event.outputs[role].startswith(name) for role in ("run", "model"))
    }
    if len(found) != 1:
        count = f"{len(found)} runs" if found else "no run"
        raise UsageError(f"The ledger knows {count} by this name; give more digits, as bedside runs shows them.", code="DIGEST")
    return Run(*found.pop(), workspace)


def fetch(config: Config, digest: str) -> Path:
    """The verified folder of a value: from the store, or pulled from the study's remote when it is not there or has changed.

    Raises:
        IntegrityError: MISSING or CHANGED, and no remote has it.
    """
    try:
        return config.workspace.get(digest)
    except IntegrityError as error:
        if config.site.versioning == "off":
            if error.code != "MISSING":
                raise
            raise IntegrityError(
                f"The value {digest[:12]} of this run is not in the store, and no remote is configured to fetch it from"
                " (site.versioning is off).",
                code="MISSING",
            ) from error
        try:
            store_for(config).pull(digest)
        except BedsideError as failed:
            raise IntegrityError(f"{error.sentence} The remote was asked: {failed.sentence}", code=error.code) from failed
        return config.workspace.get(digest)


def target(config: Config, run: Run, to: Path | None) -> Path:
    """The folder to recreate a run in: a new one, or one where the same run is being recreated.

    Raises:
        UsageError: FOLDER: it lies in the study folder, or holds something else.
    """
    home = config.workspace.folder.resolve()
    folder = home.with_name(f"{home.name}-recreated-{run.digest[:12]}") if to is None else to.resolve()
    if folder.is_relative_to(home):
        raise UsageError("A run is not recreated inside its own study folder; give a folder beside it (--to).", code="FOLDER")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        begun = Workspace(folder).ledger.last(EVENT)
        if begun is None or begun.inputs.get("run") != run.digest:
            raise UsageError("The folder of --to holds something else; give a new or an empty one.", code="FOLDER")
    return folder


def lay_out(config: Config, run: Run, folder: Path, *, study: Study, model: bool = False) -> Config:
    """Fill the folder with the study, a site and everything that the run was made of; what is there already stays.

    Args:
        config: of the study folder that knows the run.
        run: the run.
        folder: as `target` gave it.
        study: to be written, with what it is scored by.
        model: whether the run's model is needed too.

    Raises:
        IntegrityError: a value is missing or changed and cannot be fetched, or STUDY_CHANGED.
        ResourceError: the disk is full.
    """
    record, second = run.record, Workspace(folder)
    mirrors = {"versioning": "off", "remote": None, "tracking": "off", "tracking_uri": None}
    # a site divides its threads among the processes of a training; the record has those of one
    computed = {"training_processes": record.processes, "threads": record.threads * record.processes or None}
    site = config.site.model_copy(update=mirrors | computed)
    with disk_errors("laying out a second study folder"):
        folder.mkdir(parents=True, exist_ok=True)
    if second.ledger.last(EVENT) is None:
        head = config.workspace.ledger.verify().head
        second.ledger.append(EVENT, inputs={"run": run.digest, "dataset": record.dataset}, facts={"ledger": head})
    for name, tree in (("study.yaml", study.model_dump(mode="json")), ("site.yaml", _changed(site))):
        write_atomic(folder / name, f"{json.dumps(tree, indent=2)}\n".encode(), doing="writing a study")
    for digest in values_of(config, run, model=model):
        _bring(config, digest, second)
    found = load(folder)
    if found.study != study:
        raise IntegrityError("The recorded study does not read back as it was written; report this.", code="STUDY_CHANGED")
    return found


def _changed(site: Site) -> dict[str, JsonValue]:
    """What differs from the defaults."""
    plain: dict[str, JsonValue] = Site().model_dump(mode="json")
    return {name: value for name, value in site.model_dump(mode="json").items() if value != plain[name]}


def values_of(config: Config, run: Run, *, model: bool) -> tuple[str, ...]:
    """Digests of what a run was made of: the dataset with the versions that hold its arrays, and the weights it began with."""
    record = run.record
    fetch(config, record.dataset)
    manifest = Dataset(record.dataset, config.workspace).manifest
    held = {volume.held_by for case in manifest.cases for volume in case.volumes.values()} - {""}
    parent = study_of(record).train.parent
    return (record.dataset, *sorted(held), *([parent] if parent else []), *([run.model] if model else []))


def _bring(config: Config, digest: str, second: Workspace) -> None:
    """Put a value into the second store: as links where the disk is the same, for neither store ever writes to its files."""
    if (second.store / digest).is_dir():
        second.get(digest)
        return
    source = fetch(config, digest)
    with second.staging() as staged, disk_errors("copying a value"):
        for path in sorted(source.rglob("*")):
            place = staged / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            else:
                _link(path, place)
        table = file_table(staged)
        if digest_json(table) != digest:
            raise IntegrityError(f"The bytes of {digest[:12]} changed while they were copied; repeat this.", code="CHANGED")
        second.put(staged, known=table)


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, place)
