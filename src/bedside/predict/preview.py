"""A picture of surfaces: three views, shaded, with a scale. Points spread over the triangles are drawn into a depth buffer."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from bedside.data.surface import Surface

PIXELS = 360
_MOST_SAMPLES = 1_500_000
_PER_PIXEL = 3
_VIEWS = (
    ("from the front", "R", "L", np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])),
    ("from the left", "A", "P", np.array([[0, -1.0, 0], [0, 0, 1], [-1, 0, 0]])),
    ("from above", "L", "R", np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])),
)
"""Name, letters at the left and right edge, and rows: to the right, up, and towards the viewer (RAS+)."""
_COLOURS = ("#e8dcc0", "#8fb8de", "#e39b8b", "#a4cf9f", "#c9a7d8", "#f0c36d", "#7fc8c2", "#d9a3b5", "#b5b86b", "#9aa5b1")
_LIGHT = np.array([0.35, 0.45, 0.82])

Floats = NDArray[np.float64]


def preview_png(surfaces: Sequence[Surface], *, title: str) -> bytes:
    """Draw surfaces from the front, the left and above; the same surfaces give the same bytes.

    Args:
        surfaces: at least one.
        title: above the picture; nothing of a patient.
    """
    ends = np.array([[one.points_mm.min(axis=0), one.points_mm.max(axis=0)] for one in surfaces], dtype=np.float64)
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    extent_mm = float((high - low).max()) * 1.06 or 1.0
    points, normals, owner = _spread(surfaces, extent_mm / PIXELS)
    figure = Figure(figsize=(12.6, 4.9), dpi=100, facecolor="white")
    colours = np.array([_rgb(_COLOURS[number % len(_COLOURS)]) for number in range(len(surfaces))])
    for number, (name, left, right, turn) in enumerate(_VIEWS):
        axes = figure.add_subplot(1, 3, number + 1)
        axes.imshow(
            _draw((points - (low + high) / 2) @ turn.T, normals @ turn.T, colours[owner], extent_mm), interpolation="none"
        )
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
        for x, letter, side in ((0.01, left, "left"), (0.99, right, "right")):
            axes.text(x, 0.5, letter, transform=axes.transAxes, ha=side, fontsize=9, color="#555555")
        bar = 50.0 if extent_mm > 120 else 10.0
        axes.plot([12, 12 + bar / extent_mm * PIXELS], [PIXELS - 10] * 2, color="#333333", linewidth=2)
        axes.text(12, PIXELS - 16, f"{bar:g} mm", fontsize=8, color="#333333")
    handles = [Patch(color=_COLOURS[n % len(_COLOURS)], label=one.structure) for n, one in enumerate(surfaces[:30])]
    figure.legend(handles=handles, loc="lower center", ncols=min(6, len(handles)), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.86, bottom=0.08, wspace=0.02)
    stream = BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def _spread(surfaces: Sequence[Surface], pixel_mm: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Points over all surfaces, evenly by area, with normals and the number of the surface that each lies on."""
    corners = np.concatenate([one.points_mm[one.faces].astype(np.float64) for one in surfaces])
    of = np.repeat(np.arange(len(surfaces)), [len(one.faces) for one in surfaces])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    chance = np.random.default_rng(0)
    count = min(_MOST_SAMPLES, int(_PER_PIXEL * areas.sum() / 2 / pixel_mm**2) + 1)
    at = np.minimum(np.searchsorted(np.cumsum(areas), (np.arange(count) + 0.5) / count * areas.sum()), len(areas) - 1)
    u, v = chance.random((2, count))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u)[:, None], np.where(over, 1 - v, v)[:, None]
    points = corners[at, 0] * (1 - u - v) + corners[at, 1] * u + corners[at, 2] * v
    return points, normals[at] / areas[at, None], of[at]


def _draw(points: Floats, normals: Floats, colours: Floats, extent_mm: float) -> Floats:
    """The nearest point of every pixel, shaded; (rows, columns, 3) in 0..1."""
    seen = np.flatnonzero(normals[:, 2] > 0)
    seen = seen[np.argsort(points[seen, 2].astype(np.float32), kind="stable")]
    place = points[seen] / extent_mm
    column = np.clip(((place[:, 0] + 0.5) * PIXELS).astype(int), 0, PIXELS - 1)
    row = np.clip(((0.5 - place[:, 1]) * PIXELS).astype(int), 0, PIXELS - 1)
    picture = np.ones((PIXELS, PIXELS, 3))
    shade = 0.25 + 0.75 * np.clip(normals[seen] @ _LIGHT, 0, 1)
    picture[row, column] = colours[seen] * shade[:, None]  # the last written is the nearest
    return np.asarray(median_filter(picture, size=(3, 3, 1)))


def _rgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
