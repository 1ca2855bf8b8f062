"""A model and received series to masks, surfaces, a DICOM segmentation, a preview and a report, each known by its digest.

The same contract that checked the training scans checks these. Each series gets a folder of its own, which appears when it is
complete; what is refused is named and counted. Nothing from a header is written except by the DICOM segmentation, which belongs
beside its source and carries the identity that the source carries.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bedside.adapters.machine import MEGABYTE, memory_bytes
from bedside.adapters.site import executor_of
from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.digest import canonical_json, digest_file
from bedside.core.errors import InputRejected, UsageError, disk_errors
from bedside.core.files import sync_folder, write_atomic
from bedside.core.labels import label_map_words
from bedside.core.lesson import check_finds_structures
from bedside.core.model import Model
from bedside.core.ports import Executor
from bedside.core.progress import SILENT, Progress
from bedside.core.site import Site
from bedside.core.task import Predictor
from bedside.core.workspace import staging_in
from bedside.data.surface import Surface, surfaces
from bedside.formats.found import Found, Reading, Refused
from bedside.formats.limited import MODULES, limited, read_limited
from bedside.formats.mesh import write_mesh
from bedside.formats.nifti import write_nifti
from bedside.predict.records import CaseResult, PredictPlan, PredictResult, PredictSettings, RefusedSeries
from bedside.predict.report import REPORT, preview, write_report
from bedside.predict.within import WithinSeries

RESULT = "result.json"
DEFAULTS = PredictSettings()


def predict(
    model: Model,
    source: str | Path,
    to: str | Path,
    *,
    settings: PredictSettings = DEFAULTS,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> PredictResult:
    """Predict every series of a folder, or one file, and write what comes of it below `to`.

    Received files are read and decoded in limited workers: one that crashes, swells or hangs a decoder is refused (LOST_DIED,
    LOST_MEMORY, LOST_TIME), and the others are predicted.

    Args:
        model: from the store; its bytes are hashed again here.
        source: a folder of DICOM files, a DICOM file or a NIfTI file.
        to: folder of the results, one folder per series, named by the beginning of its digest.
        settings: what is made.
        executor: where files are read and decoded; None: limited processes of this machine.
        progress: told of every series and its windows.

    Raises:
        UsageError: there is nothing to read, or a result's place is taken by something else (OUTPUT_TAKEN) or by the result of
            another model (OTHER_MODEL).
        InputRejected: not one series could be predicted; the refusal of most files is raised.
        IntegrityError: the model's bytes have changed.
        ResourceError: the disk is full, or a case needs more memory than there is (MEMORY); no half-written result is left.
    """
    _check_place(Path(to))
    check_finds_structures(model.spec)
    with ExitStack() as stack:
        workers = executor or stack.enter_context(executor_of(Site(), modules=MODULES))
        reading = read_limited(Path(source), workers, keep_reformats=settings.keep_reformats, progress=progress)
        refused = list(reading.refused)
        if not reading.found:
            raise _nothing(_counted(refused, ()))
        named = _named(reading.found)
        for name, _ in named:
            _check_model(Path(to) / name, model, replace=settings.replace)
        from bedside.engines.predict import open_model  # brings torch, which a refusal need not wait for

        within = WithinSeries(progress)
        opened = open_model(model, progress=within, memory_mb=memory_bytes() / MEGABYTE)
        job = _Job(model, opened, Path(to), settings)
        with disk_errors("making a folder for decoded volumes"):
            model.workspace.scratch.mkdir(parents=True, exist_ok=True)
        folder = stack.enter_context(staging_in(model.workspace.scratch, prefix="decoded-"))
        read = partial(limited, executor=workers, folder=folder)
        done, used = _every(job, named, read, refused, within)
    rows = _counted(refused, used)
    if not done:
        raise _nothing(rows)
    return PredictResult(
        received=_received(reading),
        predicted_files=len(used),
        cases=tuple(done),
        refused=rows,
        duplicates=len(reading.duplicates),
    )


def _every(
    job: "_Job",
    named: Sequence[tuple[str, Found]],
    read: Callable[[Found], Found],
    refused: list[Refused],
    within: WithinSeries,
) -> tuple[list[CaseResult], set[Path]]:
    """Predict one after the other: results and the files that they were made of; what is refused is added to the refusals."""
    done: list[CaseResult] = []
    used: set[Path] = set()
    within.begin(len(named))
    for number, (name, found) in enumerate(named, start=1):
        try:
            done.append(job.run(name, read(found)))
            used.update(found.files)
        except InputRejected as problem:
            refused.append(Refused(found.files, problem.code, problem.sentence))
        within.finished(number, name)
    return done, used


def _counted(refused: Iterable[Refused], used: Iterable[Path]) -> tuple[RefusedSeries, ...]:
    """Refusals with their files, each file once; one that gave a case for another of its volumes is in `used`."""
    seen = set(used)
    rows = []
    for one in refused:
        new = set(one.files) - seen
        seen |= new
        rows.append(RefusedSeries(code=one.code, sentence=one.sentence, files=len(new)))
    return tuple(rows)


def _nothing(refused: Sequence[RefusedSeries]) -> InputRejected:
    """What is raised when there is nothing to predict: the refusal of most files."""
    if not refused:
        return InputRejected("There is no series among the files; give a folder of CT or MR slices.", code="NO_INPUT")
    worst = max(refused, key=lambda one: one.files)
    return InputRejected(worst.sentence, code=worst.code)


def plan(
    model: Model, source: str | Path, to: str | Path, *, settings: PredictSettings = DEFAULTS, executor: Executor | None = None
) -> PredictPlan:
    """Say what `predict` would do, from the headers; no pixel is decoded and nothing is written."""
    _check_place(Path(to))
    with ExitStack() as stack:
        workers = executor or stack.enter_context(executor_of(Site(), modules=MODULES))
        reading = read_limited(Path(source), workers, keep_reformats=settings.keep_reformats)
    contract = model.spec.contract
    refused = list(reading.refused)
    sound: list[Found] = []
    for found in reading.found:
        try:
            _check_kind(found, contract)
            sound.append(found)
        except InputRejected as problem:
            refused.append(Refused(found.files, problem.code, problem.sentence))
    counts: Counter[str] = Counter()
    for row in _counted(refused, (path for found in sound for path in found.files)):
        counts[row.code] += row.files
    names = [f"{_file_name(name, at)}.{kind}" for at, name in enumerate(contract.structures) if at for kind in settings.meshes]
    shown = ["mask.nii.gz", *(["segmentation.dcm"] if settings.seg else []), *names, "preview.png", "report.html", RESULT]
    return PredictPlan(
        model=model.digest, series=len(sound), refused=dict(sorted(counts.items())), outputs=tuple(shown), folder=Path(to)
    )


def _check_place(to: Path) -> None:
    """Refuse a place for results that can be no folder, before anything is computed."""
    nearest = next((place for place in (to, *to.parents) if place.exists() or place.is_symlink()), None)
    if nearest is not None and not nearest.is_dir():
        raise UsageError(
            "The place for the results is a file, or lies below one; choose a folder with --to.", code="OUTPUT_TAKEN"
        )


def _received(reading: Reading) -> int:
    """Number of received files, each counted once."""
    files = {path for found in reading.found for path in found.files}
    files |= {path for one in reading.refused for path in one.files}
    return len(files | set(reading.duplicates))


def _named(series: Sequence[Found]) -> list[tuple[str, Found]]:
    """A folder name for each series; several volumes of one source are numbered."""
    seen: dict[str, int] = {}
    named = []
    for found in series:
        short = found.source[:16]
        seen[short] = seen.get(short, 0) + 1
        named.append((short if seen[short] == 1 else f"{short}-{seen[short]}", found))
    return named


def _check_kind(found: Found, contract: Contract) -> None:
    """Refuse another modality, and a picture whose header says that it shows something else."""
    if found.modality not in {"", contract.modality}:
        raise InputRejected(f"The image is no {contract.modality} but of another modality.", code="MODALITY")
    contract.check_acquisition(found.acquisition)


def _file_name(structure: str, number: int) -> str:
    """A structure's name as a file's name; one that had to be changed gets its number, so that no two are the same."""
    clean = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in structure)
    return clean if clean == structure and clean[:1].isalnum() and len(clean) < 64 else f"structure-{number}"


def _check_model(target: Path, model: Model, *, replace: bool) -> None:
    """Refuse to put one model's result in the place of another's, unless that is asked for.

    Raises:
        UsageError: OTHER_MODEL.
    """
    try:
        before = CaseResult.model_validate_json((target / RESULT).read_bytes()).model
    except (OSError, ValidationError):
        return  # nothing is there, or what no prediction wrote, which `_check_free` refuses
    if before != model.digest and not replace:
        raise UsageError(
            f"The folder {target.name} holds the result of another model ({before[:12]}); choose another place with --to, or"
            " say --replace.",
            code="OTHER_MODEL",
        )


def _check_free(target: Path) -> None:
    """Refuse to replace a folder in which anything lies that an earlier prediction did not write as it is now.

    Raises:
        UsageError: OUTPUT_TAKEN.
    """
    if not target.is_symlink() and not target.exists():
        return
    try:
        files = CaseResult.model_validate_json((target / RESULT).read_bytes()).files
        here = {path.name for path in target.iterdir()} - {REPORT, RESULT}
        ours = not target.is_symlink() and here == files.keys() and all(digest_file(target / n) == d for n, d in files.items())
    except (OSError, ValidationError):
        ours = False
    if not ours:
        raise UsageError(
            f"The folder {target.name} is there and holds what no prediction wrote, or what was changed since; choose another"
            " place, or move it away.",
            code="OUTPUT_TAKEN",
        )


@dataclass(frozen=True)
class _Job:
    """One call of `predict`: the model, what predicts with it, where results go and what is made."""

    model: Model
    predictor: Predictor
    to: Path
    settings: PredictSettings

    def run(self, name: str, found: Found) -> CaseResult:
        """Predict one series, write its folder and the ledger's line."""
        contract = self.model.spec.contract
        _check_kind(found, contract)
        target = self.to / name
        _check_free(target)
        case = Case(name, name, {"image": found.volume}, scanner=found.scanner, acquisition=found.acquisition)
        answer = self.predictor(case)
        mask: NDArray[np.uint8 | np.uint16] = answer.value.astype(np.uint8 if len(contract.structures) < 256 else np.uint16)
        with disk_errors("writing a prediction"):
            self.to.mkdir(parents=True, exist_ok=True)
        with staging_in(self.to, prefix=".predicting-") as staged, disk_errors("writing a prediction"):
            new = staged / name
            new.mkdir()
            result = self._fill(new, name, found, mask, dict(answer.seconds))
            if target.exists():  # moved, not emptied: half of an earlier result would be taken for somebody's files
                target.rename(staged / "earlier")
            new.rename(target)
            sync_folder(self.to)
        self._record(found, result, digest_file(target / RESULT))
        return result

    def _fill(
        self, folder: Path, name: str, found: Found, mask: NDArray[np.uint8 | np.uint16], seconds: dict[str, float]
    ) -> CaseResult:
        """Write every file of one case."""
        contract = self.model.spec.contract
        named = {at: structure for at, structure in enumerate(contract.structures) if at}
        begun = perf_counter()
        words = label_map_words(contract.label_map_digest)
        write_nifti(folder / "mask.nii.gz", mask, found.volume.affine, description=words)
        made: tuple[Surface, ...] = ()
        if self.settings.meshes and mask.any():
            made = surfaces(mask, found.volume.affine, structures=named, settings=self.settings.surface)
        numbers = {structure: at for at, structure in named.items()}
        for one in made:
            for kind in self.settings.meshes:
                path = folder / f"{_file_name(one.structure, numbers[one.structure])}.{kind}"
                write_mesh(path, one.points_mm, one.faces, name=one.structure)
        seconds["surfaces"] = perf_counter() - begun
        begun = perf_counter()
        uid, notes = self._segment(folder, found, mask, named)
        seconds["segmentation"] = perf_counter() - begun
        begun = perf_counter()
        picture = preview(folder, made, name)
        seconds["preview"] = perf_counter() - begun
        counts = np.bincount(mask.ravel(), minlength=len(contract.structures))
        voxel_ml = float(abs(np.linalg.det(found.volume.affine[:3, :3]))) / 1000
        result = CaseResult(
            case=name,
            source=found.source,
            model=self.model.digest,
            label_map=contract.label_map_digest,
            files={path.name: digest_file(path) for path in sorted(folder.iterdir())},
            voxels={structure: int(counts[at]) for at, structure in named.items()},
            mask_ml={structure: float(counts[at]) * voxel_ml for at, structure in named.items()},
            surfaces=tuple(one.check for one in made),
            seg_uid=uid,
            notes=notes,
            seconds={stage: round(value, 4) for stage, value in seconds.items()},
        )
        write_report(folder, result, picture)
        write_atomic(folder / RESULT, canonical_json(result.model_dump(mode="json")), doing="writing a prediction")
        return result

    def _segment(
        self, folder: Path, found: Found, mask: NDArray[np.uint8 | np.uint16], named: dict[int, str]
    ) -> tuple[str, tuple[str, ...]]:
        """Write the DICOM segmentation where there can be one; returns its UID and the notes of the case."""
        contract = self.model.spec.contract
        notes = [*found.notes, *contract.check_acquisition(found.acquisition), *contract.check_axes(found.volume)]
        if found.acquisition.get("face") == "recognizable":
            notes.append("RECOGNIZABLE_FACE")
        if found.frame is not None:
            notes.append("OWN_FRAME")
        if not mask.any():
            return "", (*notes, "NOTHING_FOUND")
        if not self.settings.seg:
            return "", tuple(notes)
        if not found.geometry.startswith("dicom"):
            return "", (*notes, "NO_SERIES")
        from bedside import __version__
        from bedside.formats.seg import SegMaker, write_seg

        spec = self.model.spec
        maker = SegMaker(self.model.digest, spec.study, __version__, spec.contract.label_map_digest)
        uid = write_seg(
            folder / "segmentation.dcm",
            mask,
            found,
            structures=named,
            terms=spec.contract.terms,
            maker=maker,
            kind=self.settings.seg_kind,
        )
        return uid, tuple(notes)

    def _record(self, found: Found, result: CaseResult, digest: str) -> None:
        self.model.workspace.ledger.append(
            "predicted",
            inputs={"model": self.model.digest, "source": found.source},
            outputs={**result.files, RESULT: digest},
            facts={"case": result.case, "voxels": dict(result.voxels), "notes": list(result.notes)},
        )
