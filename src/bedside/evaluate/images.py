"""The report's pictures as data addresses, each with its caption and with words for those who cannot see it."""

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bedside.core.evidence import Evidence, MetricDefinition
from bedside.core.workspace import Workspace
from bedside.evaluate.album import pictures
from bedside.evaluate.figures import DPI, Spread, distributions, metric_title, overlay
from bedside.evaluate.planes import Picture

CSS_DPI = 96


@dataclass(frozen=True)
class Image:
    """A picture as a data address, with what stands in for it and below it; sizes in CSS pixels."""

    data: str
    width: int
    height: int
    alt: str
    caption: str


def words(name: str) -> str:
    """A name without underscores."""
    return name.replace("_", " ")


def number(value: float, definition: MetricDefinition) -> str:
    """Three decimals for a ratio, two for mm and ml."""
    return f"{value:.3f}" if definition.unit == "1" else f"{value:.2f}"


def charged(evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """Label -> patients in whom it was missed or hallucinated, and who were charged for it."""
    return {label: (*evidence.missed.get(label, ()), *evidence.hallucinated.get(label, ())) for label in labels_of(evidence)}


def failed(evidence: Evidence) -> dict[str, str]:
    """Case -> code of its refusal."""
    found = evidence.settings.get("failed")
    return {str(case): str(code) for case, code in found.items()} if isinstance(found, dict) else {}


def labels_of(evidence: Evidence) -> tuple[str, ...]:
    """Structures in training-id order where the evidence says it (canonical JSON sorts keys), background left out."""
    measured = evidence.scores[evidence.definitions[0].name]
    named = evidence.settings.get("structures")
    order = [str(name) for name in named] if isinstance(named, list) else []
    return tuple(sorted(measured, key=lambda label: (order.index(label) if label in order else len(order), label)))


def distribution_image(evidence: Evidence) -> Image:
    """Every metric of every patient."""
    labels = [label for label in labels_of(evidence) if evidence.scores[evidence.definitions[0].name][label]]
    spreads = [
        Spread(definition, {label: evidence.scores[definition.name][label] for label in labels}, charged(evidence))
        for definition in evidence.definitions
    ]
    told = [
        f"{metric_title(spread.definition)} of {words(label)}: median {_median(row.values(), spread.definition)}"
        for spread in spreads
        for label, row in spread.scores.items()
    ]
    return _image(
        distributions(spreads),
        alt=f"Box plots with one point per patient. {'; '.join(told)}.",
        caption=(
            "One point per patient, one shape and colour per structure; a black cross marks one that was missed or"
            " hallucinated. The box holds the middle half, the line is the median, whiskers reach to the farthest patient within"
            " 1.5 times the box's height."
        ),
    )


def overlay_images(evidence: Evidence, workspace: Workspace, digest: str) -> tuple[Image, ...]:
    """The worst and the median patient, as far as their pictures are still there."""
    named = evidence.settings.get("structures")
    structures = [str(name) for name in named] if isinstance(named, list) else ["", *labels_of(evidence)]
    return tuple(_picture(evidence, which, picture, structures) for which, picture in pictures(workspace, digest).items())


def _picture(evidence: Evidence, which: str, picture: Picture, structures: Sequence[str]) -> Image:
    leading = evidence.definitions[0]
    scores = ", ".join(
        f"{words(label)} {number(evidence.scores[leading.name][label][picture.patient], leading)}"
        for label in labels_of(evidence)
        if picture.patient in evidence.scores[leading.name][label]
    )
    what = f"{which.capitalize()} patient: {picture.patient} (case {picture.case})"
    focus = words(picture.focus)
    refused = failed(evidence).get(picture.case)
    nothing = f" There is no prediction: the case was refused ({refused})." if refused else ""
    return _image(
        overlay(picture.planes, structures),
        alt=f"{what}. Axial, coronal and sagittal plane through {focus} with the outlines of reference and prediction.",
        caption=(
            f"{what}. {metric_title(leading)}: {scores}.{nothing} Planes through {focus}. R and L are the patient's right and"
            " left, A and P front and back, S and I head and feet, each the closest direction of the voxel grid."
        ),
    )


def _image(png: bytes, *, alt: str, caption: str) -> Image:
    width, height = struct.unpack(">II", png[16:24])
    return Image(
        f"data:image/png;base64,{base64.b64encode(png).decode()}", width * CSS_DPI // DPI, height * CSS_DPI // DPI, alt, caption
    )


def _median(values: Iterable[float], definition: MetricDefinition) -> str:
    return number(float(np.median(list(values))), definition)
