"""The quality report's pictures, drawn without a display: three planes of a case, and how intensities are spread."""

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from bedside.core.volume import Volume
from bedside.ingest.quality import CaseQuality

_THUMBNAIL = 112
_COLOURS = np.array([[0, 0, 0], [86, 224, 255], [255, 176, 0], [0, 200, 130], [230, 120, 190], [240, 228, 66]], np.float32)
_TINT = 0.45
_MOST_LINES = 200


def thumbnail(image: Volume, label: Volume | None) -> bytes:
    """Draw the axial, coronal and sagittal plane that show most of the mask (else the middle ones) side by side; returns PNG.

    The patient's right, and in the sagittal plane the front, is on the picture's left.

    Args:
        image: (C, I, J, K) with axes turned to the closest RAS+.
        label: mask on the same grid; it tints what it covers.
    """
    mask = None if label is None else np.asarray(label.array[0], dtype=np.uint8)
    places = _places(image, mask)
    low, high = np.percentile(np.asarray(image.array[0])[:: max(1, image.shape[1] // 64)], [1, 99.5])
    tiles = []
    for axis in (2, 1, 0):
        plane = np.take(image.array[0], places[axis], axis=axis).astype(np.float32)
        grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1) * 255
        colour = np.repeat(grey[..., None], 3, axis=2)
        if mask is not None:
            ids = np.take(mask, places[axis], axis=axis).astype(np.int64)
            tint = _COLOURS[np.where(ids > 0, 1 + (ids - 1) % (len(_COLOURS) - 1), 0)]
            colour = np.where(ids[..., None] > 0, (1 - _TINT) * colour + _TINT * tint, colour)
        steps = [image.spacing_mm[other] for other in range(3) if other != axis]
        tiles.append(_fitted(np.flip(colour.transpose(1, 0, 2), axis=(0, 1)), (steps[1], steps[0])))
    stream = io.BytesIO()
    imsave(stream, np.concatenate(tiles, axis=1).astype(np.uint8), format="png", metadata={"Software": ""})
    return stream.getvalue()


def histograms(measured: Sequence[CaseQuality]) -> bytes:
    """Draw the intensities of every case (at most 200, evenly chosen) as one faint line, and three percentiles of all; PNG."""
    chosen = [measured[round(place)] for place in np.linspace(0, len(measured) - 1, min(len(measured), _MOST_LINES))]
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8.5}):
        figure = Figure(figsize=(9.7, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        faint = min(0.9, max(0.15, 8 / max(1, len(chosen))))
        for case in chosen:
            centres = np.linspace(case.edges[0], case.edges[1], len(case.histogram))
            left.plot(centres, case.histogram, color="#0072B2", alpha=faint, linewidth=0.8)
        widest = max((abs(edge) for case in chosen for edge in case.edges), default=1.0)
        narrow = np.median([case.edges[1] - case.edges[0] for case in chosen])
        if widest > 50 * narrow:
            left.set_xscale("symlog", linthresh=max(10 * float(narrow), 1e-6))
        left.set(title="Intensity histograms", xlabel="value", ylabel="share of voxels")
        places = np.arange(len(measured))
        for name, colour in (("p01", "#56B4E9"), ("p50", "#0072B2"), ("p99", "#D55E00")):
            values = [case.numbers[name] for case in measured]
            right.scatter(places, values, s=5, color=colour, label=name, linewidths=0)
        if widest > 50 * narrow:
            right.set_yscale("symlog", linthresh=max(10 * float(narrow), 1e-6))
        right.set(title="1st, 50th and 99th percentile of each case", xlabel="case, in the order of the manifest")
        right.legend(frameon=False, fontsize=7.5)
        for panel in (left, right):
            panel.spines[["top", "right"]].set_visible(False)
        FigureCanvasAgg(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=120, metadata={"Software": ""})
    return stream.getvalue()


def data_address(png: bytes) -> str:
    """A PNG as an address that an HTML file can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _places(image: Volume, mask: NDArray[np.uint8] | None) -> tuple[int, int, int]:
    if mask is None or not (mask > 0).any():
        i, j, k = (length // 2 for length in image.shape[1:])
    else:
        inside = mask > 0
        i, j, k = (int(inside.sum(axis=tuple(a for a in range(3) if a != axis)).argmax()) for axis in range(3))
    return i, j, k


def _fitted(plane: NDArray[np.generic], pixel_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """Fit (rows, columns, 3) into a black square, pixels in proportion to their mm, nearest neighbour."""
    size_mm = plane.shape[0] * pixel_mm[0], plane.shape[1] * pixel_mm[1]
    scale = _THUMBNAIL / max(size_mm)
    rows, columns = (max(1, min(_THUMBNAIL, round(size * scale))) for size in size_mm)
    picked = plane[np.arange(rows) * plane.shape[0] // rows][:, np.arange(columns) * plane.shape[1] // columns]
    square = np.zeros((_THUMBNAIL, _THUMBNAIL, 3), np.uint8)
    top, left = (_THUMBNAIL - rows) // 2, (_THUMBNAIL - columns) // 2
    square[top : top + rows, left : left + columns] = picked
    return square
