"""What parts are tried with: a case, a model, evidence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from bedside.core.case import Case
from bedside.core.contract import Contract
from bedside.core.dataset import CaseRecord, Splits, VolumeRecord
from bedside.core.evidence import CaseTiming, Evidence, Interval
from bedside.core.ledger import GENESIS, Event, Verification
from bedside.core.lesson import Classroom, Teacher
from bedside.core.model import Model, ModelSpec, Preprocessing, put_model
from bedside.core.record import Part
from bedside.core.task import Network
from bedside.core.volume import Volume
from bedside.core.workspace import Workspace

CONTRACT = Contract(modality="MR", spacing_mm=(0.2, 5.0), labels={"background": 0, "anterior": 1, "posterior": 2})
SIDE = 16
"""Voxels along each axis of the windows that networks and engines are tried with; a part that needs more has `divisors`."""


@dataclass(frozen=True)
class GateExample:
    """What a gate is shown; every field is that of `bedside.core.task.GateInput`."""

    candidate: Evidence
    baseline: Evidence | None
    chain: Verification
    history: tuple[Event, ...]
    rules: str
    splits: Mapping[str, Splits] = field(default_factory=dict)


def sample_case() -> Case:
    """A made-up patient: (12, 14, 16) voxels of noise, with a label that holds every structure of `CONTRACT`."""
    shape, chance = (12, 14, 16), np.random.default_rng(0)
    label = np.zeros(shape, dtype=np.uint8)
    label[2:6, 3:9, 4:10], label[6:10, 3:9, 4:10] = 1, 2
    affine = np.diag([1.0, 0.8, 1.5, 1.0])
    image = (100 * label + chance.normal(50, 10, size=shape)).astype(np.float32)
    return Case("case-1", "patient-1", {"image": Volume.of(image, affine), "label": Volume.of(label, affine)})


def sample_classroom() -> Classroom:
    """Two cases like `sample_case` from two sites, and a teacher of random weights whatever digest is asked for."""
    shape = (1, *sample_case().image.shape[1:])
    affine = tuple((float(i == 0), float(i == 1), float(i == 2), float(i == 3)) for i in range(4))
    volume = VolumeRecord(file="image.npy", affine=affine, shape=shape, source=GENESIS, geometry="sform")
    records = tuple(
        CaseRecord(id=f"case-{number}", patient=f"patient-{number}", volumes={"image": volume, "label": volume}, site=site)
        for number, site in enumerate(("north", "south"), start=1)
    )

    def teacher(digest: str) -> Teacher:
        import torch

        from bedside.networks.unet import UNet

        network = UNet(features=2, levels=2, residual_units=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(digest[:4], 16))
            return Teacher(_spec(network), network.build(1, 3))

    return Classroom(CONTRACT, records, Preprocessing(), (shape[1], shape[2], shape[3]), teacher)


def tiny_model(workspace: Workspace, *, network: Part, engine: Part) -> Model:
    """Store a model with seeded random weights in the format that `engine` names in its class attribute `model_format`.

    Raises:
        UsageError: the network cannot be written in that format.
    """
    import torch
    from safetensors.torch import save_file

    from bedside.accelerate.export import restage

    spec = _spec(network)
    with torch.random.fork_rng(devices=[]), workspace.staging() as staged:
        torch.manual_seed(0)
        save_file(cast("Network", network).build(1, 3).state_dict(), staged / "weights.safetensors")
        model = put_model(workspace, staged, spec)
    return restage(model, engine, workspace=workspace)


def _spec(network: Part) -> ModelSpec:
    return ModelSpec(
        study="sample",
        format="safetensors",
        task={"name": "segmentation"},
        network=cast("dict[str, str]", network.settings()),
        contract=CONTRACT,
        preprocessing=Preprocessing(),
        patch=(SIDE, SIDE, SIDE),
        overlap=0.5,
        in_channels=1,
        out_channels=3,
        dataset=GENESIS,
        run=GENESIS,
        study_digest=GENESIS,
        engine={"name": "torch", "precision": "fp32", "threads": None},
    )


def gate_example(
    *,
    quality: float = 0.9,
    seconds: float = 1.0,
    missed: int = 0,
    patients: int = 40,
    baseline: bool = True,
    intact: bool = True,
) -> GateExample:
    """What a gate is shown of a model of some quality (0..1), against a baseline of quality 0.9."""
    chain = Verification(events=0, head=f"0:{GENESIS}")
    if not intact:
        chain = chain.model_copy(update={"first_bad_line": 1, "problem": "the line was edited"})
    return GateExample(
        candidate=sample_evidence(quality, patients=patients, seconds=seconds, missed=missed, model="a" * 64),
        baseline=sample_evidence(0.9, patients=patients, model="b" * 64) if baseline else None,
        chain=chain,
        history=(),
        rules="c" * 64,
    )


def sample_evidence(
    quality: float, *, patients: int = 40, seconds: float = 1.0, missed: int = 0, model: str = "a" * 64
) -> Evidence:
    """Evidence with every metric of segmentation for both structures of `CONTRACT`; `quality` 1 is perfect, 0 worst."""
    from bedside.metrics.segmentation import DEFINITIONS

    chance = np.random.default_rng(0)
    who = [f"p{number}" for number in range(patients)]
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, definition in DEFINITIONS.items():
        per_patient = np.clip(quality + 0.02 * chance.standard_normal(patients), 0, 1)
        values = per_patient if definition.higher_is_better else 20 * (1 - per_patient)
        row = {patient: float(value) for patient, value in zip(who, values, strict=True)}
        scores[name] = {label: dict(row) for label in CONTRACT.structures[1:]}
    return Evidence(
        model=model,
        dataset="d" * 64,
        split="test",
        engine={"name": "torch"},
        rules="c" * 64,
        definitions=tuple(DEFINITIONS.values()),
        scores=scores,
        summaries={name: _summary(row) for name, row in scores.items()} if patients else {},
        missed={"anterior": tuple(who[:missed])},
        timings={patient: CaseTiming(seconds=seconds, peak_memory_mb=100) for patient in who},
    )


def _summary(row: Mapping[str, Mapping[str, float]]) -> dict[str, Interval]:
    found = {}
    for label in (*row, "mean"):
        values = np.array(list((row.get(label) or next(iter(row.values()))).values()))
        half = 2 * float(values.std()) / math.sqrt(len(values))
        mean = float(values.mean())
        found[label] = Interval(mean=mean, low=mean - half, high=mean + half, n=len(values), confidence=0.95)
    return found
