"""Configuration: `study.yaml` is what is asked (hashed into the ledger), `site.yaml` is where it runs (never hashed).

One frozen tree each. Every problem is reported at once, with its path and line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

from pydantic import AliasChoices, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from bedside.core import yaml_tree
from bedside.core.adapt import LayerRates, Unfreeze
from bedside.core.contract import Contract, PositiveMm
from bedside.core.dataset import SafeName
from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_json
from bedside.core.errors import ConfigError, Problem, UsageError
from bedside.core.model import Preprocessing
from bedside.core.record import Part, Record, inlined
from bedside.core.registry import registry
from bedside.core.site import Site
from bedside.core.workspace import Workspace

T = TypeVar("T", bound=Record)
PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
DEFAULT_MINUTES = 30.0


@dataclass(frozen=True)
class PartOf:
    """Marks a field that holds a part of one kind: {name: ..., setting: ...} becomes the part itself."""

    kind: str

    def build(self, value: object) -> object:
        """Resolve the name and hand the settings to the part's constructor."""
        if isinstance(value, Part):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            known = ", ".join(registry(self.kind).names())
            raise ValueError(f"a {self.kind} is written as {{name: one of {known}}}")  # noqa: TRY004 - pydantic wants ValueError
        try:
            part = registry(self.kind).resolve(value["name"])
        except UsageError as error:
            raise ValueError(error.sentence) from error
        return part.model_validate({key: item for key, item in value.items() if key != "name"})

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self.build,
            core_schema.is_instance_schema(Part),
            serialization=core_schema.plain_serializer_function_ser_schema(Part.settings),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        known = registry(self.kind)
        return {"title": self.kind, "oneOf": [_named_schema(name, known.resolve(name)) for name in known.names()]}


def _named_schema(name: str, part: type[Part]) -> dict[str, object]:
    schema = inlined(part.model_json_schema())
    properties = cast("dict[str, object]", schema.get("properties", {}))
    required = cast("list[str]", schema.get("required", []))
    schema["properties"] = {"name": {"const": name}, **properties}
    schema["required"] = ["name", *required]
    return schema


TaskPart = Annotated[Part, PartOf("task")]
NetworkPart = Annotated[Part, PartOf("network")]
EnginePart = Annotated[Part, PartOf("engine")]
GatePart = Annotated[Part, PartOf("gate")]


class Source(Record):
    """Where cases lie below the `--from` folder.

    Attributes:
        images: folder with one NIfTI file or one DICOM series folder per case.
        labels: folder with one NIfTI mask per case, of the same relative name; None: no masks.
        identity: "pseudonym" replaces patient ids by a keyed hash (BEDSIDE_KEY); "keep" is for data without persons behind it.
        clinical: CSV file with one row per patient, its columns as in `contract.clinical`; None: no clinical values.
        site: name of the hospital for every case; "" when unknown.
        resample: put slices at unequal distances on a regular grid instead of refusing them; the record says so.
        tiff_preambles: take DICOM files that are TIFF files too (PS3.10 7.1) as usual here, without the note PREAMBLE_TIFF.
        keep_reformats: take series of reformats, projections and renderings, noted DERIVED, instead of setting them aside.
        deidentify: what of a header may be kept, and what a person has decided about pixels.
    """

    images: str = "images"
    labels: str | None = "labels"
    identity: Literal["pseudonym", "keep"] = "pseudonym"
    clinical: str | None = None
    site: str = ""
    resample: bool = False
    tiff_preambles: bool = False
    keep_reformats: bool = False
    deidentify: Deidentification = Deidentification()


class Split(Record):
    """How patients are divided, once, at ingest.

    Attributes:
        test: fraction of patients in the locked test split.
        folds: number of cross-validation folds the rest is divided into; 1 divides nothing, as a single patient needs.
        seed: of the division; the same patients and seed give the same split.
        always_test: patients, as the dataset calls them, who are locked by name; the fraction is then of the others.
    """

    test: Fraction = 0.2
    folds: PositiveInt = 5
    seed: int = 0
    always_test: tuple[SafeName, ...] = ()


class Augmentation(Record):
    """Random changes to training patches. Every value is a largest amount; 0 turns the change off.

    Attributes:
        space: chance that a patch is rotated, scaled and shifted at all. Below 1 a model also learns from voxels that no
            interpolation has smoothed, which is how it meets images afterwards.
        rotate_degrees: rotation about each axis.
        scale: relative change of size.
        translate: shift as a fraction of the patch.
        flip: whether left and right (the first axis) may be swapped.
        noise: standard deviation of Gaussian noise; brightness: shift of all values; both in units of the normalised image.
            None: a tenth of a standard deviation of the values.
        contrast, gamma: relative changes of intensity.
        blur: standard deviation of Gaussian blur in voxels.
        probability: chance of each intensity change for a patch.
    """

    space: Annotated[float, Field(ge=0, le=1)] = 0.6
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.15
    translate: Annotated[float, Field(ge=0, lt=1)] = 0.05
    flip: bool = True
    noise: Annotated[float, Field(ge=0)] | None = None
    brightness: Annotated[float, Field(ge=0)] | None = None
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.15
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    blur: Annotated[float, Field(ge=0)] = 0.7
    probability: Annotated[float, Field(ge=0, le=1)] = 0.3

    def amounts(self, deviation: float = 1.0) -> tuple[float, float]:
        """Noise and brightness as numbers, where a standard deviation of the values is so many units of the normalised image."""
        usual = round(0.1 * deviation, 4)
        return usual if self.noise is None else self.noise, usual if self.brightness is None else self.brightness


class Train(Record):
    """How a model is trained.

    Attributes:
        minutes: the budget; the number of steps that fits is measured at the start and recorded.
        steps: exact number of steps instead of a budget; epochs: how often every case is seen, instead of both.
        patch: (I, J, K) voxels that the network sees at once; None: the plan decides, by data, memory and budget.
        batch: patches per step; None: the plan decides.
        micro_batch: patches that pass the network at once, with gradients added up to `batch`; None: as many as fit.
        fold: the fold that is left out and validated on; None: train on every development case, keep the last weights.
        precision: of the forward and backward pass; "auto" times both at the start and keeps the faster (bf16 pays only where
            the processor has instructions for it).
        compile: whether steps run as code compiled for this machine; "auto" times both ways where the budget is in minutes.
        learning_rate, weight_decay: of AdamW; the rate warms up and falls to zero over the budget along a cosine.
        warm_up: share of the steps in which the rate rises to its highest value; clip_norm: largest norm of a step's gradient.
        ema: decay of the exponential moving average of the weights, which is what is kept; None: by the length of the training.
        foreground: share of patches centred on a labelled voxel.
        checkpoint_minutes: how much work a kill may lose.
        validations: how often the left-out fold is scored.
        memory_gb: ceiling of resident memory, or of the accelerator's where one is used; there training stops with exit 6. None:
            four fifths of what this process may use.
        stall_seconds: how long a batch may take to come before training ends with the stacks of all threads.
        deterministic: only operations that repeat to the bit, and the plan's number of threads, wherever it goes on.
        parent: weights to begin with, called `from` in YAML: digest of a model, a .safetensors file or a MONAI Bundle.
        unfreeze: which layers learn from when on; empty: all of them, always. Those without weights of the parent always do.
        layer_rates: pattern of names of weights to a factor of their learning rate; of several that fit the last counts.
    """

    minutes: Annotated[float, Field(gt=0)] | None = None
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    batch: PositiveInt | None = None
    micro_batch: PositiveInt | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    compile: Literal["auto", "on", "off"] = "off"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warm_up: Fraction = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 12.0
    ema: Fraction | None = None
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: int = 0
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0
    validations: Annotated[int, Field(ge=1)] = 5
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    stall_seconds: Annotated[float, Field(gt=0)] = 600.0
    deterministic: bool = False
    augment: Augmentation = Augmentation()
    parent: Annotated[str, Field(min_length=4)] | None = Field(default=None, validation_alias=AliasChoices("from", "parent"))
    unfreeze: tuple[Unfreeze, ...] = ()
    layer_rates: LayerRates = Field(default_factory=dict)

    @model_validator(mode="after")
    def _repeats(self) -> "Train":
        if self.unfreeze and (self.parent is None or self.unfreeze[0].at):
            raise ValueError("train.unfreeze freezes weights of train.from, which must be given; its first entry is at: 0")
        if self.deterministic and self.minutes is not None:
            raise ValueError("train.deterministic needs train.steps or train.epochs: what fits into minutes never repeats")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_budget(cls, given: object) -> object:
        """Half an hour where no budget is given; two budgets contradict each other."""
        if not isinstance(given, dict):
            return given
        budgets = [name for name in ("minutes", "steps", "epochs") if given.get(name) is not None]
        if len(budgets) > 1:
            raise ValueError(f"there are {len(budgets)} budgets, {' and '.join(budgets)}; give one and set the other to null")
        return given if budgets else {**given, "minutes": DEFAULT_MINUTES}


class Evaluate(Record):
    """How a model is scored.

    Attributes:
        surface_tolerance_mm: of the surface Dice.
        overlap: of neighbouring windows, as a fraction of the patch.
        mirror: average each prediction over the image and its left-right mirror image, which takes twice as long; for models
            trained with train.augment.flip.
        confidence: of the intervals.
        resamples: of the bootstrap, over patients.
        seed: of the bootstrap.
    """

    surface_tolerance_mm: PositiveMm = 1.0
    overlap: Fraction = 0.5
    mirror: bool = False
    confidence: Probability = 0.95
    resamples: Annotated[int, Field(ge=100)] = 2000
    seed: int = 0


class Promote(Record):
    """Rules of promotion; frozen by their hash before the test split is read.

    Attributes:
        baseline: "released" (the model in production, if any) or a model digest.
        gates: all of them must pass.
    """

    baseline: str = "released"
    gates: tuple[GatePart, ...] = Field(min_length=1)

    def digest(self) -> str:
        """The hash by which the rules are frozen."""
        return digest_json(self.model_dump(mode="json"))


class Accelerate(Record):
    """Which faster forms are tried, and what they may cost.

    Attributes:
        stages: engines, tried in order; each is compared with torch eager FP32.
        cases: how many development cases are used for the comparison.
        max_dice_change: largest change of any label's mean Dice against the ground truth.
        repeats: timed runs per case.
    """

    stages: tuple[EnginePart, ...] = Field(min_length=1)
    cases: PositiveInt = 8
    max_dice_change: Annotated[float, Field(ge=0)] = 0.005
    repeats: PositiveInt = 3


class Study(Record):
    """The whole of `study.yaml`.

    Where `preprocess`, `network` or `train.patch` is left out, a plan is made of data and machine (`train --plan-only`).
    """

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    contract: Contract
    source: Source = Source()
    split: Split = Split()
    preprocess: Preprocessing | None = None
    task: TaskPart
    network: NetworkPart | None = None
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    promote: Promote
    accelerate: Accelerate

    @model_validator(mode="after")
    def _agree(self) -> "Study":
        if self.train.fold is not None and self.train.fold >= self.split.folds:
            raise ValueError(f"train.fold is {self.train.fold} and split.folds is {self.split.folds}; folds count from 0")
        if self.train.fold is not None and self.split.folds == 1:
            raise ValueError("train.fold leaves one fold out and split.folds is 1; nothing would be left to train on")
        if self.train.micro_batch and self.train.batch and self.train.batch % self.train.micro_batch:
            raise ValueError(
                f"train.batch is {self.train.batch} and train.micro_batch {self.train.micro_batch}, which must divide it"
            )
        return self

    def digest(self) -> str:
        """The hash of the resolved tree."""
        return digest_json(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Config:
    """A study, the site it runs at, and its folder."""

    study: Study
    site: Site
    workspace: Workspace

    @property
    def promote(self) -> Promote:
        """The rules of promotion."""
        return self.study.promote


def load(path: str | Path, *, overrides: Sequence[str] = (), folder: str | Path | None = None) -> Config:
    """Read `study.yaml` (and `site.yaml` from the study folder, if there is one).

    Args:
        path: the study file, or a study folder that holds `study.yaml`.
        overrides: "section.key=value" each, as in `--set`; a name that begins with "site." goes to the site.
        folder: the study folder; default: the file's own folder if it is called `study.yaml`, else `./<study>/`.

    Raises:
        UsageError: the file is not there.
        ConfigError: with every problem found in both files.
    """
    file = Path(path)
    file = file / "study.yaml" if file.is_dir() else file
    tree = yaml_tree.parse(_text(file), file.name)
    for assignment in overrides:
        if not assignment.startswith("site."):
            yaml_tree.override(tree, assignment)
    problems, study = _validate(Study, tree)
    home = _home(file, tree, folder)
    site_file = home / "site.yaml"
    site_tree = yaml_tree.parse(_text(site_file) if site_file.is_file() else "", site_file.name)
    for assignment in overrides:
        if assignment.startswith("site."):
            yaml_tree.override(site_tree, assignment.removeprefix("site."))
    site_problems, site = _validate(Site, site_tree)
    if problems or site_problems or study is None or site is None:
        raise ConfigError([*problems, *site_problems])
    return Config(study, site, Workspace(home))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UsageError(
            f"There is no study file {file}; give a study.yaml or a folder that holds one.", code="NO_STUDY"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(file.name, 0, "", "the file is not UTF-8 text")]) from error


def _home(file: Path, tree: yaml_tree.Tree, folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder)
    if file.name == "study.yaml":
        return file.parent
    name = tree.value.get("study") if isinstance(tree.value, dict) else None
    return Path(name if isinstance(name, str) and "/" not in name and not name.startswith(".") else file.stem)


def _validate(kind: type[T], tree: yaml_tree.Tree) -> tuple[list[Problem], T | None]:
    problems = list(tree.problems)
    if problems and tree.value is None:
        return problems, None
    try:
        return problems, kind.model_validate(tree.value)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False, include_context=False)
        for item in items:
            path = tuple(part for part in item["loc"] if isinstance(part, str | int))
            if item["type"] == "too_short" and any(len(o["loc"]) > len(path) and o["loc"][: len(path)] == path for o in items):
                continue  # pydantic counts what is left after the wrong entries, which are in the list already
            known = {"extra_forbidden": "unknown key", "missing": "this key is missing"}
            what = known.get(item["type"], item["msg"].removeprefix("Value error, "))
            problems.append(Problem(tree.source, tree.line(path), ".".join(map(str, path)), what))
    return problems, None
