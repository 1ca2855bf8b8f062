"""The preview shows what lies in front, the same way each time."""

import numpy as np
from matplotlib.image import imread

from bedside.data.surface import surfaces
from bedside.predict.preview import _draw, preview_png


def test_of_two_points_on_one_pixel_the_nearer_is_seen() -> None:
    side = np.stack(np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 200)), axis=-1).reshape(-1, 2)
    sheets = [np.c_[side, np.full(len(side), z)] for z in (5.0, -5.0)]
    colours = np.repeat(np.eye(3)[:2], len(side), axis=0)
    for order in (np.arange(2 * len(side)), np.arange(2 * len(side))[::-1]):
        picture = _draw(np.concatenate(sheets)[order], np.tile([0.0, 0, 1], (2 * len(side), 1)), colours[order], 10.0)
        shown = picture[(picture < 1).any(axis=2)]
        assert len(shown) > 1000
        assert (shown[:, 0] > 0).all()
        assert (shown[:, 1] == 0).all()


def test_a_surface_that_looks_away_is_not_seen() -> None:
    picture = _draw(np.zeros((99, 3)), np.tile([0.0, 0, -1], (99, 1)), np.ones((99, 3)) / 2, 10.0)
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
