"""The settings of LivePortrait: sizes of the networks, terms of the losses, critics, what judges pictures and identities.

`LivePortraitConfig` is the `system:` section. `size: tiny` trains on two CPU cores, `size: full` is the published size; single
numbers of `nets.sizes.Sizes` can be changed beside it. Weights of the terms stand in each stage's `loss:`; numbers that belong
to a term stand here, with where they are from: paper (arXiv 2407.03168), face-vid2vid (arXiv 2011.15126), FOMM (arXiv
2003.00196), or ours.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.errors import ConfigError
from mixtura.metrics.perceptual import PerceptualConfig
from mixtura.system import SystemConfig
from mixtura_live_portrait.faces.layouts import GUIDES
from mixtura_live_portrait.nets.sizes import TINY, Sizes

SIZES = {"tiny": TINY, "full": Sizes()}
"""What `size` stands for."""
Region = Literal["whole", "face", "lips", "eyes"]
REGIONS: tuple[Region, ...] = ("whole", "face", "lips")
"""What pictures are compared in, one inside the other (paper, section 3.2: cascaded). Eyes may be had beside."""


class Section(BaseModel):
    """Base of the sections below: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EquivarianceConfig(Section):
    """The random transform under which keypoints must move as the picture does (FOMM, section 3.1; its numbers)."""

    affine: float = Field(0.05, ge=0, description="standard deviation of each number of the affine map")
    bend: float = Field(0.005, ge=0, description="standard deviation of the weights of the thin-plate spline")
    points: int = Field(5, ge=2, description="control points of the spline along a side")


class PriorConfig(Section):
    """Where keypoints may be (face-vid2vid, section A.2; its numbers but for the sign of the depth)."""

    distance: float = Field(0.1, ge=0, description="squared distance below which two keypoints push each other away")
    depth: float = Field(
        -0.33,
        description="mean z of the keypoints. Face-vid2vid: 0.33; with our poses z points into the picture and a face lies "
        "before the axes it turns about. Constant depths differ by a shift alone, which M learns beside",
    )


class WingConfig(Section):
    """The Wing loss of landmark guidance (Feng et al. 2018): logarithmic below `width`, linear above.

    In units of keypoints, 2 for the side of a picture. Feng's 10 and 2 pixels of 256; what LivePortrait takes is not known.
    """

    width: float = Field(0.08, gt=0)
    bend: float = Field(0.016, gt=0, description="smaller is steeper at 0")


class CriticConfig(Section):
    """The discriminators, one for each region (paper: cascaded; face-vid2vid: patches at several scales, hinge loss)."""

    regions: tuple[Region, ...] = Field(REGIONS, min_length=1)
    width: int | None = Field(None, ge=1, description="channels of the first convolution; tiny 16, full 64")
    widest: int | None = Field(None, ge=1, description="channels of the last one at most; tiny 64, full 512")
    blocks: int | None = Field(None, ge=1, description="convolutions that halve the picture; tiny 3, full 4")
    scales: int | None = Field(None, ge=1, description="sizes of the picture that are judged, each half of the one before")


class IdentityConfig(Section):
    """What tells people apart: none, or an ArcFace network (iresnet18 to 100) whose weights are given."""

    type: Literal["none", "arcface"] = "none"
    weights: str | None = Field(None, description="file of tensors by the names of ArcFace's PyTorch code (arcface)")

    @model_validator(mode="after")
    def _has_weights(self) -> IdentityConfig:
        if (self.type == "arcface") != bool(self.weights):
            raise ValueError("`weights` and type arcface belong together; without weights use `type: none`")
        return self


CRITICS: dict[str, dict[str, int]] = {
    "tiny": {"width": 16, "widest": 64, "blocks": 3, "scales": 1},
    "full": {"width": 64, "widest": 512, "blocks": 4, "scales": 2},
}


CROPS = {"tiny": {"crop": 32, "patch": 24}, "full": {"crop": 224, "patch": 64}}


class LivePortraitConfig(SystemConfig):
    """The `system:` section of LivePortrait."""

    size: Literal["tiny", "full"] = "tiny"
    image: int | None = Field(None, ge=16, description="side of what F and M see; G paints `image` x `shuffle` pixels")
    keypoints: int | None = Field(None, ge=1, description="landmarks guide the first `guided` of them")
    guided: int = Field(
        10,
        ge=0,
        le=GUIDES,
        description="keypoints that landmarks guide: ten of eyes and lips (paper, section 3.2), or 12 with the corners of the "
        "lips, by whose distance their opening is measured",
    )
    base: int | None = Field(None, ge=1)
    downs: int | None = Field(None, ge=1)
    channels: int | None = Field(None, ge=1)
    depth: int | None = Field(None, ge=1)
    resblocks: int | None = Field(None, ge=1)
    motion_depths: tuple[int, ...] | None = None
    motion_dims: tuple[int, ...] | None = None
    bins: int | None = Field(None, ge=2)
    compress: int | None = Field(None, ge=1)
    dense_base: int | None = Field(None, ge=1)
    dense_max: int | None = Field(None, ge=1)
    dense_blocks: int | None = Field(None, ge=1)
    coarse: bool | None = Field(None, description="W made for few cells (nets.warping); tiny true, full false as published")
    generator: int | None = Field(None, ge=1)
    middle: int | None = Field(None, ge=1)
    painted: int | None = Field(None, ge=1)
    shared: int | None = Field(None, ge=1)
    shuffle: int | None = Field(None, ge=1)
    stitching: tuple[int, ...] | None = None
    eyes: tuple[int, ...] | None = None
    lips: tuple[int, ...] | None = None
    told_landmarks: bool | None = Field(
        None,
        description="eyes and lips are retargeted from the source's landmarks where these are known, not from where M sees them: "
        "for an M that is too small to see how long lips are; false as published",
    )

    equivariance: EquivarianceConfig = EquivarianceConfig()
    prior: PriorConfig = PriorConfig()
    wing: WingConfig = WingConfig()
    regions: tuple[Region, ...] = Field(REGIONS, min_length=1, description="what is judged besides pixels (perceptual)")
    crop: int | None = Field(None, ge=16, description="side of the cut-out face, lips, eyes that are judged; tiny 32, full 224")
    perceptual: PerceptualConfig = PerceptualConfig()
    identity: IdentityConfig = IdentityConfig()
    critics: CriticConfig = CriticConfig()
    reader: tuple[int, ...] = Field(
        (16, 32, 48), min_length=1, description="channels of the network that reads how far eyes and lips are open (stage two)"
    )
    openings: bool = Field(
        False,
        description="painted eyes and lips must be as far open as the driving frame's, as the reader reads them (term "
        "`openings`); it must have learnt that in an earlier stage",
    )
    teacher_forcing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of samples that are painted with guided keypoints where landmarks are, not where M sees them: W and G "
        "learn what small moves, as of lids, look like while M's errors are as large",
    )
    patch: int | None = Field(None, ge=8, description="side of the eyes and lips that it sees; tiny 24, full 64")
    widest_ratio: float = Field(0.8, gt=0, description="stage two asks for openings from 0 to this (paper)")
    calibration: int = Field(32, ge=2, description="samples of all sources that batch norms are measured on in a new run")

    @model_validator(mode="after")
    def _fill(self) -> LivePortraitConfig:
        """Missing sizes come from `size`."""
        # Frozen models take no assignment; a `before` validator would turn strict JSON lists into Python ones.
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                self.__dict__[name] = value
        wanted = CRITICS[self.size]
        given = {name: value for name in wanted if (value := getattr(self.critics, name)) is not None}
        self.__dict__["critics"] = self.critics.model_copy(update={**wanted, **given})
        return self

    def _defaults(self) -> dict[str, Any]:
        sizes = SIZES[self.size]
        return {name: getattr(sizes, name) for name in NAMES} | CROPS[self.size]

    @model_validator(mode="after")
    def _fits(self) -> LivePortraitConfig:
        try:
            self.sizes()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        for name, regions in (("regions", self.regions), ("critics.regions", self.critics.regions)):
            if len(set(regions)) < len(regions):
                raise ValueError(f"{name} names one twice: {', '.join(regions)}")
        return self

    def sizes(self) -> Sizes:
        """The sizes of the seven networks. Raises ConfigError for those that can't be."""
        return replace(SIZES[self.size], **{name: getattr(self, name) for name in NAMES})

    def guided_keypoints(self) -> int:
        """How many of the keypoints landmarks guide."""
        return min(self.guided, self.sizes().keypoints)


NAMES = tuple(field.name for field in fields(Sizes))
