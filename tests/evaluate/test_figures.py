"""The pictures show what they claim, without colour too, and draw the same bytes each time."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bedside.core.volume import Volume
from bedside.evaluate.figures import (
    DASHES,
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    Spread,
    _contours,
    _new_parts,
    _short,
    _swarm,
    _top,
    distributions,
    metric_title,
    overlay,
)
from bedside.evaluate.planes import three_planes
from bedside.metrics.segmentation import DEFINITIONS


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]


def inked(png: bytes, colour: str) -> int:
    return int((np.abs(pixels(png) - to_rgb(colour)).max(axis=-1) < 0.02).sum())


def masks() -> tuple[np.ndarray, np.ndarray]:
    reference = np.zeros((30, 30, 30), np.uint8)
    reference[8:20, 8:20, 8:20] = 1
    return reference, np.roll(reference, 3, axis=0)


def test_the_reference_is_a_solid_line_and_the_prediction_a_dashed_one_of_another_colour():
    reference, prediction = masks()
    empty = np.zeros_like(reference)
    image = Volume.of(np.random.default_rng(0).normal(size=reference.shape), np.eye(4))
    both, only_reference, only_prediction = (
        overlay(three_planes(image, *pair, focus=1), ["background", "box"])
        for pair in ((reference, prediction), (reference, empty), (empty, prediction))
    )
    assert inked(both, REFERENCE_COLOUR) > 500
    assert inked(both, PREDICTION_COLOUR) > 300
    solid, dashed = inked(only_reference, REFERENCE_COLOUR), inked(only_prediction, PREDICTION_COLOUR)
    share = DASHES[1][0] / sum(DASHES[1])
    assert dashed / solid == pytest.approx(share, abs=0.2)


def test_equal_planes_give_equal_bytes():
    reference, prediction = masks()
    planes = three_planes(Volume.of(reference.astype(float), np.eye(4)), reference, prediction, focus=1)
    assert overlay(planes, ["background", "box"]) == overlay(planes, ["background", "box"])


def test_an_outline_runs_half_way_between_voxel_centres_and_closes_at_the_edge():
    (line,) = _contours(np.ones((3, 4), bool))
    assert np.array_equal(line[0], line[-1])
    assert (line[:, 0].min(), line[:, 0].max(), line[:, 1].min(), line[:, 1].max()) == (0.0, 4.0, 0.0, 3.0)


def test_a_border_that_two_structures_share_is_drawn_once():
    mask = np.ones((6, 10), np.uint8)
    mask[:, 5:] = 2
    (first,), (second,) = (_contours(mask == structure) for structure in (1, 2))
    drawn = {point.tobytes() for point in first}
    assert sum(len(x) - 1 for x, _ in _new_parts(first, set())) == len(first) - 1
    parts = list(_new_parts(second, drawn))
    shared = (np.isclose(second[:-1, 0], 5.0) & np.isclose(second[1:, 0], 5.0)).sum()
    assert shared > 0
    assert sum(len(x) - 1 for x, _ in parts) == len(second) - 1 - shared


def test_points_of_equal_value_do_not_hide_each_other():
    across = _swarm(np.array([0.9, 0.9, 0.9, 0.1]))
    assert len(set(across[:3])) == 3
    assert across[3] == 0.0
    assert np.abs(_swarm(np.full(500, 0.5))).max() < 0.3


def test_a_charged_patient_does_not_flatten_the_others():
    near = {f"p{n}": 1.0 + n / 10 for n in range(10)}
    definition = DEFINITIONS["hd95_mm"]
    charged = Spread(definition, {"femur": {**near, "lost": 400.0}}, {"femur": ("lost",)})
    assert _top(charged) == pytest.approx(1.05 * 1.9)
    assert _top(Spread(definition, {"femur": {**near, "far": 400.0}}, {})) == np.inf
    assert _top(Spread(DEFINITIONS["dice"], {"femur": {"a": 0.9, "lost": 0.0}}, {"femur": ("lost",)})) == np.inf
    assert _top(Spread(definition, {"femur": {"lost": 400.0}}, {"femur": ("lost",)})) == np.inf


def test_many_structures_stay_readable():
    rows = {f"structure_number_{n}": {"a": 0.5, "b": 0.6} for n in range(24)}
    shape = pixels(distributions([Spread(DEFINITIONS["dice"], rows, {}), Spread(DEFINITIONS["iou"], rows, {})])).shape
    assert shape[1] < 2000
    assert shape[0] > 800


def test_one_patient_can_be_drawn():
    assert pixels(distributions([Spread(DEFINITIONS["dice"], {"femur": {"a": 0.5}}, {})])).std() > 0


def test_metrics_are_called_what_the_field_calls_them():
    titles = {name: metric_title(definition) for name, definition in DEFINITIONS.items()}
    assert titles == {
        "dice": "Dice",
        "iou": "IoU",
        "surface_dice": "Surface Dice",
        "hd95_mm": "HD95 (mm)",
        "mean_surface_distance_mm": "Mean surface distance (mm)",
        "volume_error_ml": "Volume error (ml)",
    }


@pytest.mark.parametrize("label", ["femur", "a_very_long_structure_name", "x" * 60])
def test_labels_below_an_axis_are_short(label):
    assert max(map(len, _short(label).split("\n"))) < 30
