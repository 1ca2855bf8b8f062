"""The report's pictures, drawn without a display: score distributions and three-plane overlays.

Colours are those of Okabe and Ito (2008), which people with any common colour vision can tell apart; shapes and line styles say
the same again, so that a grey print loses nothing.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from contourpy import LineType, contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bedside.core.evidence import MetricDefinition
from bedside.evaluate.planes import Plane

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
REFERENCE_COLOUR, PREDICTION_COLOUR = "#56E0FF", "#FFB000"
_INK, _QUIET = "#1b1f24", "#6a737d"
DPI = 160
WIDTH_INCHES = 9.7
_TALLEST_INCHES = 4.6
_MANY = 400
DASHES = (0, (2.6, 2.2))
_EDGES = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.015), (0.5, 0.985))
_UPRIGHT = ("center", "center", "top", "bottom")
_ACRONYMS = {"hd95": "HD95", "iou": "IoU", "surface dice": "Surface Dice"}


@dataclass(frozen=True)
class Spread:
    """One metric of every patient.

    Attributes:
        definition: what it is.
        scores: label -> patient -> value.
        charged: label -> patients in whom the structure was missed or hallucinated; they are marked with a cross.
    """

    definition: MetricDefinition
    scores: Mapping[str, Mapping[str, float]]
    charged: Mapping[str, Sequence[str]]


def distributions(spreads: Sequence[Spread]) -> bytes:
    """Draw a box and every patient's point per label, one panel per metric; returns PNG."""
    labels = max((len(spread.scores) for spread in spreads), default=1)
    width = min(WIDTH_INCHES, max(WIDTH_INCHES / 3, 0.5 * labels + 1.2))
    columns = max(1, min(len(spreads), round(WIDTH_INCHES // width)))
    rows = -(-len(spreads) // columns)
    with _style():
        figure = Figure(figsize=(columns * width, 2.9 * rows), layout="constrained")
        for place, spread in enumerate(spreads, start=1):
            _spread(figure.add_subplot(rows, columns, place), spread)
        return _png(figure)


def overlay(planes: Sequence[Plane], structures: Sequence[str]) -> bytes:
    """Draw three planes, all to one scale, with both outlines: reference solid, prediction dashed; returns PNG.

    Args:
        planes: as `bedside.evaluate.planes.three_planes` cuts them.
        structures: names by training id, background first; each outlined region carries its id as a number.
    """
    sizes = [_size_mm(plane) for plane in planes]
    across_mm, tallest_mm = sum(width for width, _ in sizes), max(height for _, height in sizes)
    inches_per_mm = min((WIDTH_INCHES - 0.5) / across_mm, _TALLEST_INCHES / tallest_mm)
    size = max(5.0, across_mm * inches_per_mm + 0.5), tallest_mm * inches_per_mm + 0.85
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(planes), width_ratios=[width for width, _ in sizes], squeeze=False)[0]
        for panel, plane in zip(axes, planes, strict=True):
            _draw_plane(panel, plane)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=3, frameon=False, title=_key(structures))
        return _png(figure)


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 8.5,
            "text.parse_math": False,  # a structure may be called "$x$"
            "axes.titlesize": 9,
            "axes.edgecolor": _QUIET,
            "axes.linewidth": 0.7,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "text.color": _INK,
            "legend.title_fontsize": 8,
        }
    ):
        yield


def _png(figure: Figure) -> bytes:
    """Render to bytes that depend on nothing but the figure: no date, no version."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _spread(panel: Axes, spread: Spread) -> None:
    definition = spread.definition
    top = _top(spread)
    for place, (label, patients) in enumerate(spread.scores.items()):
        values = np.asarray(list(patients.values()))
        lost = np.isin(list(patients), list(spread.charged.get(label, ())))
        _box(panel, values, place)
        across = place + _swarm(np.minimum(values, top))
        panel.scatter(
            across[~lost],
            values[~lost],
            s=15,
            c=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            alpha=0.75 if len(values) < _MANY else 0.35,
            linewidths=0.4,
            edgecolors="white",
            zorder=3,
        )
        panel.scatter(across[lost], np.minimum(values[lost], 1.09 * top), s=30, c=_INK, marker="x", linewidths=1.3, zorder=4)
    if np.isfinite(top):
        _charge_band(panel, spread, top)
    _label_panel(panel, list(spread.scores), definition)


def _top(spread: Spread) -> float:
    """Where the axis ends for distances and volumes when some are charges: far above the rest, these would flatten it."""
    found = [v for label, row in spread.scores.items() for name, v in row.items() if name not in spread.charged.get(label, ())]
    every = [value for row in spread.scores.values() for value in row.values()]
    if spread.definition.higher_is_better or not found or max(found) <= 0 or max(every) <= 2 * max(found):
        return float("inf")
    return 1.05 * max(found)


def _charge_band(panel: Axes, spread: Spread, top: float) -> None:
    """A band above the axis that holds the charged patients, with the largest charge in words."""
    most = max(value for row in spread.scores.values() for value in row.values())
    panel.axhspan(1.03 * top, 1.15 * top, color="#e9ecef", zorder=1)
    panel.set_ylim(-0.04 * top, 1.15 * top)
    panel.set_yticks([tick for tick in panel.get_yticks() if 0 <= tick <= top])
    words = f"off the scale, up to {most:.3g} {spread.definition.unit}"
    panel.text(0.995, 1.02, words, transform=panel.transAxes, ha="right", color=_QUIET, fontsize=7.5)


def _label_panel(panel: Axes, labels: Sequence[str], definition: MetricDefinition) -> None:
    better = "higher is better" if definition.higher_is_better else "lower is better"
    panel.set_title(f"{metric_title(definition)}\n", loc="left", fontweight="bold")
    panel.text(0, 1.02, better, transform=panel.transAxes, color=_QUIET, fontsize=7.5)
    many = len(labels) > 4
    panel.set_xticks(
        range(len(labels)), [_short(label) for label in labels], rotation=35 if many else 0, ha="right" if many else "center"
    )
    panel.set_xlim(-0.6, len(labels) - 0.4)
    panel.grid(axis="y", color="#e3e6ea", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", length=0)


def _box(panel: Axes, values: NDArray[np.float64], place: int) -> None:
    line = {"color": _INK, "linewidth": 0.9}
    panel.boxplot(
        [values],
        positions=[place],
        widths=0.62,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": "#f1f3f5", "edgecolor": _QUIET, "linewidth": 0.8},
        medianprops={"color": _INK, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
        zorder=2,
    )


def _swarm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sideways places of points: those of nearly the same value spread out evenly, so that none hides another."""
    reach = max(float(np.ptp(values)), 1e-9) / 30
    bins = np.round((values - values.min()) / reach)
    across = np.zeros(len(values))
    for level in np.unique(bins):
        inside = np.flatnonzero(bins == level)
        step = min(0.09, 0.5 / max(1, len(inside) - 1))
        across[inside] = (np.arange(len(inside)) - (len(inside) - 1) / 2) * step
    return across


def _size_mm(plane: Plane) -> tuple[float, float]:
    rows, columns = plane.image.shape
    return columns * plane.pixel_mm[1], rows * plane.pixel_mm[0]


def _draw_plane(panel: Axes, plane: Plane) -> None:
    width, height = _size_mm(plane)
    panel.imshow(
        plane.image, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest", aspect="equal"
    )
    _outlines(panel, plane, plane.reference, REFERENCE_COLOUR, "solid")
    _outlines(panel, plane, plane.prediction, PREDICTION_COLOUR, "dashed")
    _numbers(panel, plane)
    for letter, (x, y), sideways, upright in zip(
        plane.letters, _EDGES, ("left", "right", "center", "center"), _UPRIGHT, strict=True
    ):
        _caption(panel, (x * width, y * height), letter, size=8.5, align=(sideways, upright))
    _scale_bar(panel, width, height)
    panel.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    panel.set_anchor("N")
    panel.set_title(plane.name, pad=4)


def _outlines(panel: Axes, plane: Plane, mask: NDArray[np.uint8], colour: str, style: str) -> None:
    """Outline each structure of a mask, a border that two of them share only once: two dashed lines would make a solid one."""
    rim = [] if style == "dashed" else [withStroke(linewidth=2.8, foreground=(0, 0, 0, 0.6))]
    drawn: set[bytes] = set()
    for structure in np.unique(mask[mask > 0]):
        lines = _contours(mask == structure)
        for line in lines:
            for x, y in _new_parts(line, drawn):
                panel.plot(
                    x * plane.pixel_mm[1],
                    y * plane.pixel_mm[0],
                    color=colour,
                    linewidth=1.6,
                    linestyle=DASHES if style == "dashed" else "solid",
                    path_effects=rim,
                )
        drawn |= {point.tobytes() for line in lines for point in line}


def _contours(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Outlines half-way between voxel centres, (points, 2) as x and y in pixels; closed also at the edge of the picture."""
    lines = contour_generator(z=np.pad(mask, 1).astype(np.float64), line_type=LineType.Separate).lines(0.5)
    return [np.asarray(line, dtype=np.float64) - 0.5 for line in lines]


def _new_parts(line: NDArray[np.float64], drawn: set[bytes]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The runs of an outline, as x and y, of which at least one end of each step was not drawn yet."""
    old = np.asarray([point.tobytes() in drawn for point in line])
    steps = ~(old[:-1] & old[1:])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], steps, [False]]).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        yield line[first : last + 1, 0], line[first : last + 1, 1]


def _numbers(panel: Axes, plane: Plane) -> None:
    """Write each structure's id where the reference (or else the prediction) is thickest, so that it hides no outline."""
    height_mm, width_mm = plane.pixel_mm
    for structure in np.unique(np.concatenate([plane.reference.ravel(), plane.prediction.ravel()])):
        if structure == 0:
            continue
        mask = plane.reference == structure
        mask = mask if mask.any() else plane.prediction == structure
        depth_mm = distance_transform_edt(np.pad(mask, 1), sampling=plane.pixel_mm)[1:-1, 1:-1]
        rows, columns = np.nonzero(depth_mm >= depth_mm.max() - 1e-6)
        nearest = np.hypot(rows - np.nonzero(mask)[0].mean(), columns - np.nonzero(mask)[1].mean()).argmin()
        middle = (columns[nearest] + 0.5) * width_mm, (rows[nearest] + 0.5) * height_mm
        _caption(panel, middle, str(structure), size=7.5, align=("center", "center"))


def _scale_bar(panel: Axes, width_mm: float, height_mm: float) -> None:
    length = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= 0.4 * width_mm), default=1)
    x, y = 0.05 * width_mm, height_mm - 0.05 * height_mm
    edge = [withStroke(linewidth=3.6, foreground="black")]
    panel.plot([x, x + length], [y, y], color="white", linewidth=1.8, solid_capstyle="butt", path_effects=edge)
    _caption(panel, (x, y - 0.015 * height_mm), f"{length} mm", size=7, align=("left", "bottom"))


def _caption(panel: Axes, place_mm: tuple[float, float], text: str, *, size: float, align: tuple[str, str]) -> None:
    """White words with a black rim, readable on any grey."""
    panel.text(
        *place_mm,
        text,
        color="white",
        fontsize=size,
        fontweight="bold",
        horizontalalignment=align[0],
        verticalalignment=align[1],
        clip_on=True,
        path_effects=[withStroke(linewidth=1.9, foreground="black")],
    )


def _legend() -> list[Line2D]:
    edge = [withStroke(linewidth=3.0, foreground=(0, 0, 0, 0.55))]
    return [
        Line2D([], [], color=REFERENCE_COLOUR, linewidth=1.8, linestyle="solid", path_effects=edge, label="reference (solid)"),
        Line2D(
            [],
            [],
            color=PREDICTION_COLOUR,
            linewidth=1.8,
            linestyle=DASHES,
            label="prediction (dashed)",
        ),
    ]


def _key(structures: Sequence[str]) -> str:
    return ", ".join(f"{number} {_words(name)}" for number, name in enumerate(structures) if number)


def metric_title(definition: MetricDefinition) -> str:
    """A metric's name for people, with its unit: "HD95 (mm)"."""
    words = _words(definition.name.removesuffix(f"_{definition.unit}"))
    title = _ACRONYMS.get(words, words[:1].upper() + words[1:])
    return title if definition.unit == "1" else f"{title} ({definition.unit})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(label: str) -> str:
    words = _words(label)
    return words if len(words) <= 14 else words.replace(" ", "\n", 1) if " " in words[:14] else words[:13] + "…"
