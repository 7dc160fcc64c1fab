"""What all sources of posed pictures share: settings, and the way from a scene to a sample.

A source says which scenes there are and gives a `PosedScene`; `PosedSource.read` picks views, opens only their pictures, brings
them to the network's size and the cameras to its frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data.pictures import Filter, Picture, Square, resized, squared
from mixtura_diffusion_gs.frames import (
    RADIUS,
    Array,
    check_cameras,
    meeting_point,
    object_frame,
    official_object_frame,
    scene_frame,
)
from mixtura_diffusion_gs.views import AnglesRule, Rules, select


class ObjectFrame(BaseModel):
    """The object around the origin, the condition camera at `radius` on the -y side, z up."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["object"] = "object"
    radius: float = Field(RADIUS, gt=0, description="distance of the condition camera; the system's `radius` must agree")
    centre: Literal["origin", "axes"] = Field("origin", description="axes: the object is where the optical axes meet")


class SceneFrame(BaseModel):
    """The mean camera of the network's views; lengths by these cameras, or by a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["scene"] = "scene"
    scale: Literal["cameras"] | Annotated[float, Field(gt=0)] = Field(
        "cameras",
        description="factor on lengths, for instance 0.3 for metres; cameras: their largest coordinate becomes 1 / 1.35",
    )


class PosedConfig(SourceConfig):
    """Settings of every source of posed pictures."""

    kind: Literal["object", "scene"] = "object"
    size: int = Field(64, ge=8, description="pixels of the samples; the system's `image_size` must agree")
    views: Rules = AnglesRule()
    frame: Annotated[ObjectFrame | SceneFrame, Field(discriminator="type")] | None = Field(
        None, description="how cameras are normalised; by kind when left out"
    )
    compat: Literal["fixed", "official"] = Field(
        "fixed", description="official: the published loaders' frames (objects mirrored, scenes by all views) and filters"
    )
    resize: Filter | None = Field(
        None, description="filter of pictures; area, under compat official nearest for objects, lanczos for scenes"
    )
    square: Square | None = Field(None, description="how pictures become square: objects are padded with white, scenes cropped")
    depth: Literal["use", "require", "ignore"] = Field("use", description="require: a sample without depths is bad")

    @model_validator(mode="after")
    def _agree(self) -> PosedConfig:
        if self.compat == "official" and self.frame is not None:
            raise ValueError("compat official has frames of its own; leave `frame` out")
        return self


@dataclass(frozen=True)
class PosedScene:
    """A scene before its pictures are opened: `c2w` (V, 4, 4) float64 with OpenCV axes and z up for objects.

    `picture(view, with_depth)` opens one and raises DataError when it is broken. `order` names the views of a sample where the
    data set does (the condition first); rules choose them otherwise.
    """

    name: str
    c2w: Array
    picture: Callable[[int, bool], Picture]
    order: tuple[int, ...] | None = None


class PosedSource:
    """A source whose items are scenes. Sub-classes set `folder`, `info` and give `scene(index)`."""

    Config: type[PosedConfig] = PosedConfig
    info: SourceInfo

    def __init__(self, config: Any, name: str, root: Path) -> None:
        self.config: Any = config
        self.name = name

    def __len__(self) -> int:
        return self.info.size

    def scene(self, index: int) -> PosedScene:
        """The scene at `index`."""
        raise TypeError(f"{type(self).__name__} gives no scenes")

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The sample at `index`: fields `images`, `c2w`, `intrinsics`, `kind`, and `depths` and `masks` where there are any.

        Views are chosen by `rng`, but for rules that are `fixed`. Raises BadSample when the scene can't be read or has no choice
        of views that fits.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no sample {index}, it has {len(self)}")
        try:
            return self._sample(self.scene(index), rng)
        except DataError as error:
            raise BadSample(str(error)) from error

    def _sample(self, scene: PosedScene, rng: KeyedRng) -> Sample:
        config: PosedConfig = self.config
        is_object = config.kind == "object"
        draw = KeyedRng("views", scene.name) if config.views.fixed else rng.at("views")
        c2w = self._centred(scene)
        if scene.order is None:
            order, network = select(config.views, c2w, draw.numpy(), scene.name, is_object)
        else:
            order, network = np.array(scene.order), min(config.views.network, len(scene.order))
        wants_depth = config.depth != "ignore"
        pictures = [self._fitted(scene, int(view), wants_depth and place < network) for place, view in enumerate(order)]
        try:
            poses, factor = self._normalised(c2w[order], network)
        except DataError as error:
            raise DataError(f"{scene.name}: {error}") from error
        fields: dict[str, Any] = {
            "images": np.stack([picture.image for picture in pictures]),
            "c2w": poses.astype(np.float32),
            "intrinsics": np.stack([picture.intrinsics for picture in pictures]).astype(np.float32),
            "kind": config.kind,
        }
        self._add_depths(fields, pictures[:network], factor, scene.name)
        masks = [picture.mask for picture in pictures[:network]]
        if all(mask is not None for mask in masks):
            fields["masks"] = np.stack([mask for mask in masks if mask is not None])
        return Sample(fields, key=f"{scene.name}@{int(order[0]):03d}")

    def _centred(self, scene: PosedScene) -> Array:
        """Cameras of the scene, an object's centre at the origin."""
        frame = self.config.frame
        if not isinstance(frame, ObjectFrame) or frame.centre == "origin":
            return scene.c2w
        centre = meeting_point(scene.c2w)
        if centre is None:
            raise DataError(f"{scene.name}: the optical axes meet nowhere in front of the cameras; use `centre: origin`")
        moved = scene.c2w.copy()
        moved[:, :3, 3] -= centre
        return moved

    def _normalised(self, c2w: Array, network: int) -> tuple[Array, float]:
        """Cameras in the frame of the network, and the factor on lengths."""
        config: PosedConfig = self.config
        if config.compat == "official":
            return official_object_frame(c2w) if config.kind == "object" else scene_frame(c2w)
        frame = config.frame or (ObjectFrame() if config.kind == "object" else SceneFrame())
        if isinstance(frame, ObjectFrame):
            return object_frame(c2w, frame.radius)
        return scene_frame(c2w, network, None if frame.scale == "cameras" else float(frame.scale))

    def _fitted(self, scene: PosedScene, view: int, with_depth: bool) -> Picture:
        """A picture of the network's size."""
        picture = scene.picture(view, with_depth)
        width, height = picture.size
        check_cameras(scene.c2w[view][None], picture.intrinsics[None], width, height, [f"{scene.name}: view {view}"])
        if picture.depth is not None and picture.depth.shape != (height, width):
            raise DataError(
                f"{scene.name}: view {view}: depths of {picture.depth.shape[1]} x {picture.depth.shape[0]} pixels for a picture "
                f"of {width} x {height}; both must have one size"
            )
        try:
            return self._sized(picture)
        except DataError as error:
            raise DataError(f"{scene.name}: view {view}: {error}") from error

    def _sized(self, picture: Picture) -> Picture:
        config: PosedConfig = self.config
        is_official, is_object = config.compat == "official", config.kind == "object"
        default: Filter = ("nearest" if is_object else "lanczos") if is_official else "area"
        square = squared(picture, config.square or ("pad" if is_object else "crop"))
        return resized(square, config.size, config.size, config.resize or default, from_corner=is_official)

    def _add_depths(self, fields: dict[str, Any], pictures: list[Picture], factor: float, name: str) -> None:
        depths = [picture.depth for picture in pictures if picture.depth is not None]
        if len(depths) == len(pictures):
            fields["depths"] = (np.stack(depths) * factor).astype(np.float32)
        elif self.config.depth == "require":
            raise DataError(
                f"{name}: {len(pictures) - len(depths)} of {len(pictures)} views have no depth, and `depth: require` wants it"
            )
