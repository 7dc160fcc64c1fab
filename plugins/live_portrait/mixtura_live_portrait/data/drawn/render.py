"""Drawing one frame: wall, shoulders, hair behind, neck, head, ears, nose, hair, glasses, each over what was there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.drawn import backdrop, face, hair, styles
from mixtura_live_portrait.data.drawn.backdrop import Scene
from mixtura_live_portrait.data.drawn.curves import brow_now, eye_now, head_now, mouth_now
from mixtura_live_portrait.data.drawn.geometry import CAMERA, Ellipsoid, View, nose
from mixtura_live_portrait.data.drawn.identity import HeadShape, Identity
from mixtura_live_portrait.data.drawn.points import landmarks
from mixtura_live_portrait.data.drawn.rays import Canvas, Hit, Light, meet, rgb, shade, unit
from mixtura_live_portrait.data.drawn.state import Array, State
from mixtura_live_portrait.data.drawn.surface import Sheet, head_sheet

SEAM = 0.05
"""Width, in head units, over which nose and ears grow out of the head."""


class Drawn(NamedTuple):
    """A frame: `image` uint8 (S, S, 3) and `landmarks` (203, 2) in its pixels, see `points`."""

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


def render(who: Identity, state: State, scene: Scene, size: int, hand: KeyedRng | None = None) -> Drawn:
    """Draw a frame of `size` pixels; with `hand`, a key that a clip's frames share, as a painted picture (see `styles`)."""
    canvas = Canvas(size)
    paint_portrait(canvas, who, state, scene, scene.lit(styles.TONES if hand else 0))
    if hand:
        styles.finish(canvas, hand)
    image = (np.minimum(np.maximum(canvas.image, 0), 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return Drawn(np.ascontiguousarray(image.transpose(1, 2, 0)), landmarks(who, state, size))


def paint_portrait(canvas: Canvas, who: Identity, state: State, scene: Scene, light: Light) -> None:
    """Paint all layers, from the back to the front."""
    pose, doing = state
    view, shape = View.of(pose), head_now(who, doing)
    backdrop.paint_wall(canvas, scene)
    backdrop.paint_shoulders(canvas, who, scene, pose, light)
    hair.paint_back_hair(canvas, who, view, light)
    base = view.place(np.array([[0.0, 0.35, 0.12]]))[0]
    backdrop.paint_neck(canvas, who, scene, pose, base, light)
    sheet = head_sheet(canvas, view, shape, rgb(who.skin))
    if sheet is not None:
        _paint_head(canvas, sheet, who, state, light)
    for side in (-1, 1) if who.cut not in hair.OVER_EARS else ():
        _grow(canvas, _ear(who.head, side), view, rgb(who.skin) * (0.96, 0.86, 0.84), light)
    ridge, ball = nose(shape, who.nose)
    _grow(canvas, ridge, view, rgb(who.skin), light)
    tip = _grow(canvas, ball, view, rgb(who.skin), light)
    if tip is not None:
        _nostrils(canvas, who, tip)
    hair.paint_hair(canvas, who, view, light)
    hair.paint_glasses(canvas, who, view, (eye_now(who, doing, -1), eye_now(who, doing, 1)))


def _paint_head(canvas: Canvas, sheet: Sheet, who: Identity, state: State, light: Light) -> None:
    doing = state.expression
    mouth = mouth_now(who, doing)
    face.paint_skin(sheet, who, doing, mouth)
    face.paint_beard(sheet, who, mouth)
    face.paint_mouth(sheet, mouth, who, doing)
    for side in (-1, 1):
        face.paint_eye(sheet, eye_now(who, doing, side), who)
        face.paint_brow(sheet, brow_now(who, doing, side), who)
    canvas.blend(sheet.window, sheet.cover, sheet.whole.colour * shade(sheet.slopes, sheet.frame, light))
    near = canvas.near[sheet.window]
    near[:] = np.where(sheet.cover > 0.5, sheet.t, near)


def _ear(shape: HeadShape, side: int) -> Ellipsoid:
    axes = np.array([[0.05, 0, side * 0.06], [0.0, 0.19, 0.02], [-side * 0.05, 0, 0.11]])
    return Ellipsoid((side * (shape.width + 0.025), 0.1, 0.1), axes)


def _grow(canvas: Canvas, part: Ellipsoid, view: View, colour: Array, light: Light) -> Hit | None:
    """Paint a part that stands out of the head; where it is in the head the head's own skin stays."""
    frame = view.frame().within(part.centre, part.axes)
    hit = meet(canvas, frame)
    if hit is None:
        return None
    cover = hit.cover * _out(canvas, hit, view)
    canvas.blend(hit.window, cover, colour.astype(np.float32)[:, None, None] * shade(hit.point, frame, light))
    near = canvas.near[hit.window]
    np.minimum(near, np.where(hit.cover > 0.5, hit.t, np.inf), out=near)
    return hit


def _out(canvas: Canvas, hit: Hit, view: View) -> Array:
    """How far a surface stands before what is there, 0 to 1 over SEAM."""
    ahead = unit((canvas.near[hit.window] - hit.t) * np.float32(CAMERA / (SEAM * view.scale)))
    return ahead * ahead * (3 - 2 * ahead)


def _nostrils(canvas: Canvas, who: Identity, ball: Hit) -> None:
    """Two dark spots under the ball of the nose."""
    x, y, z = ball.point
    is_seen = (z < 0) & (ball.t <= canvas.near[ball.window] + np.float32(1e-4))
    alpha = face.spot(np.abs(x), y, (0.42, 0.62), (0.36, 0.32)) * is_seen
    canvas.blend(ball.window, ball.cover * np.minimum(alpha * np.float32(1.6), np.float32(0.8)), rgb(who.skin) * np.float32(0.3))
