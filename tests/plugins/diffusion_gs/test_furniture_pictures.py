"""Furniture: meshes to pictures, depths and normals."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("embreex", reason="furniture is drawn with embreex: pip install embreex")

from mixtura_diffusion_gs.furniture import cameras, obj
from mixtura_diffusion_gs.furniture.mesh import Material, box, merged, quad
from mixtura_diffusion_gs.furniture.render import Lights, Renderer
from tests.plugins.diffusion_gs.cards import BLUE, GREEN, RED, card, view


def test_colour_depth_and_normal_at_the_centre_are_exact():
    picture = view(card(0, 0, 2.5, 1, GREEN))
    assert picture.rgb[16, 16].tolist() == [0, 1, 0]
    assert picture.depth[16, 16] == pytest.approx(2.5, abs=1e-4)
    assert np.allclose(picture.normals[16, 16], [0, 0, -1], atol=1e-6)
    assert picture.alpha[0, 0] == picture.depth[0, 0] == 0
    assert picture.rgb[0, 0].tolist() == [1, 1, 1]


def test_depth_is_along_z_everywhere_on_a_plane():
    depth = view(card(0, 0, 3, 20, RED), samples=2).depth
    assert np.abs(depth - 3).max() < 1e-4


def test_x_is_right_and_y_is_down():
    picture = view(merged([card(0.5, 0, 2, 0.4, RED), card(0, 0.5, 2, 0.4, GREEN), card(0, 0, 2, 0.4, BLUE)]))
    assert picture.rgb[16, 24].tolist() == [1, 0, 0]
    assert picture.rgb[24, 16].tolist() == [0, 1, 0]
    assert picture.rgb[8, 16].tolist() == [1, 1, 1]


def test_a_camera_of_the_world_sees_plus_x_right_and_plus_z_up():
    viewmat = cameras.looking_at([0, -4, 0], [0, 0, 0])
    cubes = [box(np.subtract(at, 0.2), np.add(at, 0.2), [material]) for at, material in (((1, 0, 0), RED), ((0, 0, 1), GREEN))]
    picture = view(merged(cubes), viewmat=viewmat)
    assert picture.rgb[16, 24].tolist() == [1, 0, 0]
    assert picture.rgb[8, 16].tolist() == [0, 1, 0]


def test_points_appear_where_the_matrices_put_them():
    rng = np.random.default_rng(3)
    for _ in range(10):
        eye, point = rng.normal(size=3) * 2, rng.uniform(-0.3, 0.3, 3)
        viewmat = cameras.looking_at(eye, rng.uniform(-0.2, 0.2, 3))
        picture = view(box(point - 0.03, point + 0.03, [RED]), 64, 4, 80.0, viewmat)
        seen = viewmat[:3, :3] @ point + viewmat[:3, 3]
        rows, columns = np.mgrid[:64, :64] + 0.5
        centre = [(picture.alpha * axis).sum() / picture.alpha.sum() for axis in (columns, rows)]
        assert np.allclose(centre, 80 * seen[:2] / seen[2] + 32, atol=0.25)


def test_pixels_are_means_of_their_samples():
    half = quad([-5, 5, 1], [5, 0, 0], [0, -10, 0], RED)  # covers the left half, its edge in the middle of pixel 16
    picture = view(half, samples=4)
    assert picture.alpha[16, [15, 16, 17]].tolist() == [1, 0.5, 0]
    assert np.allclose(picture.rgb[16, 16], [1, 0.5, 0.5])


def test_a_texture_stands_upright_and_is_not_mirrored():
    image = np.array([[[255, 0, 0, 255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255, 255, 0, 255]]], np.uint8)
    rgb = view(card(0, 0, 1, 0.9, Material("t", texture=image))).rgb
    quarters = rgb[[9, 9, 24, 24], [9, 24, 9, 24]]
    assert np.allclose(quarters, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], atol=0.1)


def test_textures_are_blended_between_texels_and_wrap():
    image = np.zeros((1, 2, 4), np.uint8)
    image[..., 3], image[0, 1, :3] = 255, 255
    wide = quad([-1, 1, 1], [2, 0, 0], [0, -2, 0], Material("t", texture=image), repeat=(2, 1))
    row = view(wide, 64, focal=32.0).rgb[32, :, 0]
    assert np.allclose(row[:32], row[32:], atol=1e-5)
    assert row[0] == pytest.approx(0.5 - 0.5 / 16, abs=1e-3)
    assert row[8] == pytest.approx(0.5 / 16, abs=1e-3)


def test_fine_textures_turn_grey_in_the_distance():
    squares = np.indices((256, 256)).sum(0)[..., None] % 2 * np.array([255, 255, 255, 0]) + np.array([0, 0, 0, 255])
    rgb = view(card(0, 0, 1, 0.9, Material("t", texture=squares.astype(np.uint8)))).rgb[4:29, 4:29]
    assert np.abs(rgb - 0.5).max() < 0.01


def test_what_is_behind_glass_shines_through():
    glass = Material("glass", (1.0, 0, 0), opacity=0.25)
    picture = view(merged([card(0, 0, 1, 0.5, glass), card(0, 0, 2, 1, BLUE)]))
    assert np.allclose(picture.rgb[16, 16], [0.25, 0, 0.75], atol=0.01)
    assert picture.depth[16, 16] == pytest.approx(2, abs=1e-4)
    alone = view(card(0, 0, 1, 0.5, glass))
    assert alone.alpha[16, 16] == pytest.approx(0.25, abs=0.01)
    assert alone.depth[16, 16] == 0


def test_holes_in_a_texture_are_empty_and_hide_their_colour():
    image = np.array([[[0, 255, 0, 0], [255, 0, 0, 255]]], np.uint8)
    picture = view(card(0, 0, 1, 0.9, Material("t", texture=image)))
    assert picture.alpha[16, 8] < 0.1
    assert picture.rgb[..., 1].min() >= 0
    assert np.allclose(picture.rgb[16, 24], [1, 0, 0], atol=0.06)
    assert (picture.rgb[16, 2:31, 1] <= picture.rgb[16, 2:31, 2] + 1e-6).all()  # no green rim


def test_both_sides_of_a_surface_are_lit_and_light_does_not_move_with_the_camera():
    lights = Lights(0.3, (((0, 0, -1), 0.7),))
    assert view(card(0, 0, 1, 0.5, RED), lights=lights).rgb[16, 16, 0] == pytest.approx(1)
    wall = quad([-1, 0, -1], [2, 0, 0], [0, 0, 2], RED)
    lights = Lights(0.3, (((0, -0.6, 0.8), 0.7),))
    seen = [
        view(wall, viewmat=cameras.looking_at(eye, [0, 0, 0]), lights=lights).rgb[16, 16, 0] for eye in ([0, -3, 1], [2, -3, 0])
    ]
    assert seen == pytest.approx([0.3 + 0.7 * 0.6] * 2, abs=1e-4)
    assert view(wall, viewmat=cameras.looking_at([0, 3, 1], [0, 0, 0]), lights=lights).rgb[16, 16, 0] == pytest.approx(
        0.3, abs=1e-4
    )


def test_nothing_is_background():
    nothing = obj.read_obj("a.obj", {"a.obj": b"v 0 0 0"}.get)
    picture = view(nothing)
    assert (picture.rgb == 1).all()
    assert not picture.alpha.any()
    assert Renderer(nothing).distances(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [np.inf]


def test_impossible_views_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        view(card(0, 0, 1, 1, RED), size=0)
    with pytest.raises(ValueError, match="straight up"):
        cameras.looking_at([0, 0, 0], [0, 0, 1])
    with pytest.raises(ValueError, match="no split 'test': take one of train, held_out"):
        cameras.phase("test")
