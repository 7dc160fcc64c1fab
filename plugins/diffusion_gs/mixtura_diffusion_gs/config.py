"""The settings of DiffusionGS: sizes of the denoiser, kinds with their rays and depths, diffusion, terms of the loss.

`DiffusionGSConfig` is the `system:` section. `size: tiny` trains on two CPU cores, `size: full` is the published size (width
1024, 24 blocks); single numbers can be changed beside it, what is left out comes from the size.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.metrics.perceptual import PerceptualConfig
from mixtura.system import SystemConfig

Kind = Literal["object", "scene"]


class Section(BaseModel):
    """Base of the sections below: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DepthConfig(Section):
    """Where on its ray a pixel's Gaussian may lie, in world units.

    centred: within `reach` of the ray's point nearest to the origin; range: from `near` to `far`.
    """

    rule: Literal["centred", "range"] = "centred"
    reach: float = Field(1.8, gt=0)
    near: float = Field(0.0, ge=0)
    far: float = Field(500.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> DepthConfig:
        if self.near >= self.far:
            raise ValueError(f"near {self.near:g} must be less than far {self.far:g}")
        return self


SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 192, "layers": 6, "head_dim": 32, "patch": 8, "image_size": 64},
    "full": {"width": 1024, "layers": 24, "head_dim": 64, "patch": 8, "image_size": 256},
}
"""What `size` stands for; `full` is the published denoiser, 460 M weights with one decoder."""
FOVS: dict[str, float] = {"object": 39.6, "scene": 60.0}
"""The published field of view of objects, and a usual one of rooms."""
DEPTHS: dict[str, DepthConfig] = {"object": DepthConfig(), "scene": DepthConfig(rule="range")}
"""The published depth rules."""


class DiffusionGSConfig(SystemConfig):
    """The `system:` section of DiffusionGS."""

    size: Literal["tiny", "full"] = "tiny"
    compat: Literal["fixed", "official"] = Field(
        "fixed",
        description="official: cameras and Gaussians as the published code has them, its rasteriser's rules, rays by kind",
    )
    mirrored: bool = Field(
        False,
        description="the network knows object worlds mirrored, as the published object weights do; cameras and results stay "
        "right-handed all the same, unless compat is official",
    )
    kinds: tuple[Kind, ...] = Field(
        ("object", "scene"), min_length=1, description="kinds of data, each with a decoder of its own"
    )
    objective: Literal["diffusion", "regression"] = Field(
        "diffusion", description="regression: the same network as one step from noise, a baseline"
    )

    width: int | None = Field(None, ge=8)
    layers: int | None = Field(None, ge=1)
    head_dim: int | None = Field(None, ge=4)
    patch: int | None = Field(None, ge=1)
    image_size: int | None = Field(None, ge=16, description="pixels; images are square")
    free: int = Field(2, ge=1, description="Gaussians that belong to no pixel")
    sh_degree: int = Field(0, ge=0, le=3, description="degree of the spherical harmonics; 0 is a colour from all sides")

    views: int = Field(4, ge=2, description="views that the network sees: the condition and the noisy ones")
    rays: dict[Kind, Literal["reference", "pluecker"]] = Field(
        {}, description="encoding of rays by kind; reference (paper) for all, under compat official pluecker for scenes"
    )
    depth: dict[Kind, DepthConfig] = Field({}, description="depth rule by kind; the published ones by default")
    fov: dict[Kind, Annotated[float, Field(gt=1, lt=170)]] = Field(
        {}, description="field of view, in degrees, of the cameras that infer makes, by kind; objects 39.6, scenes 60"
    )
    radius: float = Field(3.0, gt=0, description="distance of the condition camera from an object's centre; the data must agree")

    steps: int = Field(30, ge=1, le=1000, description="denoising steps of inference")
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    condition_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of training items whose condition view is blank, which guidance needs"
    )
    guidance: float = Field(1.0, ge=0, description="inference goes this far from the blank condition; 1 is without guidance")

    terms: tuple[Literal["image", "perceptual", "ssim", "points", "spread"], ...] = Field(
        ("image", "perceptual", "points", "spread"), min_length=1, description="terms of the loss that are computed"
    )
    perceptual: PerceptualConfig = PerceptualConfig()
    ramps: dict[str, tuple[float | int, ...]] = Field(
        {}, description="term -> [start, first, last, end]: factor on its weight over the steps of a stage"
    )
    deferred: bool = Field(False, description="draw view by view and again in the backward pass: less memory, more time")

    @model_validator(mode="after")
    def _fill(self) -> DiffusionGSConfig:
        """Missing sizes come from `size`, missing rays and depths from the kind."""
        for name, value in SIZES[self.size].items():
            if getattr(self, name) is None:
                # Frozen models take no assignment; a `before` validator would turn strict JSON lists into Python ones.
                self.__dict__[name] = value
        official = {"object": "reference", "scene": "pluecker"}
        default: dict[str, Any] = official if self.compat == "official" else dict.fromkeys(official, "reference")
        self.__dict__["rays"] = {kind: self.rays.get(kind, default[kind]) for kind in self.kinds}
        self.__dict__["fov"] = {kind: self.fov.get(kind, FOVS[kind]) for kind in self.kinds}
        self.__dict__["depth"] = {kind: self.depth.get(kind, DEPTHS[kind]) for kind in self.kinds}
        return self

    @model_validator(mode="after")
    def _check(self) -> DiffusionGSConfig:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds names one twice: {', '.join(self.kinds)}")
        for name, whole in (("image_size", self.patch), ("width", self.head_dim)):
            if (getattr(self, name) or 0) % (whole or 1):
                part = "patch" if name == "image_size" else "head_dim"
                raise ValueError(f"{name} {getattr(self, name)} must be a multiple of {part} {whole}")
        for term, rule in self.ramps.items():
            if term not in self.terms:
                raise ValueError(f"ramps names '{term}'; terms are {', '.join(self.terms)}")
            if len(rule) not in (3, 4) or (rule[0] if len(rule) == 4 else 0) >= rule[-1]:
                raise ValueError(f"ramps.{term} must be [start, first, last, end] with start before end, not {list(rule)}")
        if self.guidance != 1 and not self.condition_dropout:
            raise ValueError(f"guidance {self.guidance:g} needs a network trained with condition_dropout, which is 0")
        return self

    def kind_number(self, kind: str) -> int:
        """Place of a kind among `kinds`. Raises ValueError for one that the network has no decoder for."""
        if kind not in self.kinds:
            raise ValueError(f"kind '{kind}': this network knows {', '.join(self.kinds)}")
        return list(self.kinds).index(kind)
