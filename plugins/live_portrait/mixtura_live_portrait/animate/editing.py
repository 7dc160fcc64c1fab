"""Editing a still portrait by numbers: turn the head, move it, open eyes and lips, strengthen or fade its expression.

    x = edited(portrait, ratios, Edit(yaw=10, lip_ratio=0.3), small)     # keypoints (1, k, 3) to paint

Which combination of offsets is a smile or a frown isn't known of any network in general: `offsets` takes such a table as it is,
and `expression` scales all that the face shows, 0 being the person at rest.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mixtura.errors import ConfigError
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.regions import Lists, Region, check_region, taken
from mixtura_live_portrait.animate.retarget import Retargeted, Small, adjusted, retargeted
from mixtura_live_portrait.keypoints import rotation

Degrees = Annotated[float, Field(ge=-90, le=90)]
Ratio = Annotated[float, Field(ge=0, le=0.8)]
Strength = Annotated[float, Field(ge=-3, le=3)]
Offset = tuple[Annotated[int, Field(ge=0)], Literal["x", "y", "z"], float]
"""Keypoint, axis, how much is added to its offset of expression."""


class Edit(BaseModel):
    """Sliders, all at rest by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    pitch: Degrees = Field(0.0, description="degrees that the head nods")
    yaw: Degrees = Field(0.0, description="degrees that the head turns aside")
    roll: Degrees = Field(0.0, description="degrees that the head leans")
    x: float = Field(0.0, ge=-1, le=1, description="how far the head moves to the right, in halves of the crop")
    y: float = Field(0.0, ge=-1, le=1, description="how far the head moves down")
    scale: float = Field(1.0, ge=0.5, le=2, description="factor of the head's size")
    eye_ratio: Ratio | None = Field(None, description="how far both eyes are open; empty leaves them")
    lip_ratio: Ratio | None = Field(None, description="how far the lips are open; empty leaves them")
    expression: Strength = Field(1.0, description="factor of the whole expression; 0 is a face at rest")
    lip_expression: Strength = Field(1.0, description="factor of the lips' expression, where their keypoints are known")
    eye_expression: Strength = Field(1.0, description="factor of the eyes' expression, where their keypoints are known")
    offsets: tuple[Offset, ...] = Field((), description="keypoint, axis, amount to be added to its offset")

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is to be done."""
        return self == Edit()

    def check(self, keypoints: int, lists: Lists | None = None) -> None:
        """Raises ConfigError for keypoints that aren't there, and parts whose keypoints aren't known."""
        if wrong := sorted({index for index, *_ in self.offsets if index >= keypoints}):
            raise ConfigError(f"edit.offsets: keypoints {wrong}; expected 0 to {keypoints - 1}")
        for region, _ in self.parts:
            check_region(region, keypoints, lists)

    @property
    def parts(self) -> list[tuple[Region, float]]:
        """Regions whose expression is changed, with their factors."""
        factors: list[tuple[Region, float]] = [("lip", self.lip_expression), ("eyes", self.eye_expression)]
        return [(region, factor) for region, factor in factors if factor != 1]


def moved(source: Movement, edit: Edit, lists: Lists | None = None) -> Movement:
    """A face (n = 1) with its pose, place and offsets of expression as the sliders say."""
    edit.check(source.kp.shape[1], lists)
    angles = [torch.full_like(source.scale[:, 0], angle) for angle in (edit.pitch, edit.yaw, edit.roll)]
    factors = torch.full_like(source.exp, edit.expression)
    for region, factor in edit.parts:
        mask = taken(region, source.kp.shape[1], True, lists).to(factors.device)
        factors = torch.where(mask, factors * factor, factors)
    exp = source.exp * factors
    for index, axis, amount in edit.offsets:
        exp[:, index, "xyz".index(axis)] += amount
    shift = torch.tensor([edit.x, edit.y, 0.0], device=source.t.device)
    return source._replace(
        rotation=rotation(*angles) @ source.rotation, exp=exp, t=source.t + shift, scale=source.scale * edit.scale
    )


def edited(
    source: Movement,
    ratios: Tensor,
    edit: Edit,
    small: Small,
    stitching: bool = True,
    lists: Lists | None = None,
    told: Tensor | None = None,
) -> Tensor:
    """Keypoints (1, k, 3) of an edited face: moved, plus the offsets of eyes and lips, stitched.

    ratios (1, 3) are the source's; `told` (1, k, 3) its keypoints as eyes and lips are told them, by default those it has. Raises
    ConfigError for an eye or lip ratio where the source's own isn't known.
    """
    x_source, retargeting = source.keypoints(), []
    told = x_source if told is None else told
    for name, network, wanted, own in (
        ("eye_ratio", small.eyes, edit.eye_ratio, ratios[:, :2]),
        ("lip_ratio", small.lips, edit.lip_ratio, ratios[:, 2:]),
    ):
        if wanted is not None and not own.isfinite().all():
            raise ConfigError(
                f"edit.{name}: the landmarks don't tell how far they are open now; take a detector with lids and lips"
            )
        given = None if wanted is None else retargeted(network, told, own, own.new_tensor([[wanted]]))
        retargeting.append(given)
    x = moved(source, edit, lists).keypoints()
    return adjusted(small, x_source, x, stitching=stitching, is_relative=False, retargeting=Retargeted(*retargeting))
