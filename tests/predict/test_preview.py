"""The preview shows what lies in front, the same way each time."""

import numpy as np
from matplotlib.image import imread

from bedside.data.surface import surfaces
from bedside.predict.preview import _draw, preview_png


def test_of_two_points_on_one_pixel_the_nearer_is_seen() -> None:
    points = np.array([[0.0, 0, 5], [0, 0, -5]])
    normals = np.array([[0.0, 0, 1], [0, 0, 1]])
    colours = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    for order in ([0, 1], [1, 0]):
        picture = _draw(points[order], normals, colours[order], 10.0)
        shown = picture[(picture < 1).any(axis=2)]
        assert len(shown) == 1
        assert shown[0][0] > 0
        assert shown[0][1] == 0


def test_a_surface_that_looks_away_is_not_seen() -> None:
    picture = _draw(np.zeros((1, 3)), np.array([[0.0, 0, -1]]), np.ones((1, 3)) / 2, 10.0)
    assert (picture == 1).all()


def test_the_picture_is_a_png_with_three_views_and_the_same_bytes_each_time(tmp_path) -> None:
    mask = np.zeros((20, 20, 20), dtype=np.uint8)
    mask[4:16, 6:14, 5:15] = 1
    made = surfaces(mask, np.diag([2.0, 2, 2, 1]), structures={1: "block"})
    first, second = (preview_png(made, title="prediction") for _ in range(2))
    assert first == second
    (tmp_path / "x.png").write_bytes(first)
    shades = imread(tmp_path / "x.png")[..., :3]
    third = shades.shape[1] // 3
    for view in range(3):
        part = shades[100:-100, view * third : (view + 1) * third]
        coloured = (part.max(axis=2) - part.min(axis=2)) > 0.05
        assert coloured.mean() > 0.05
