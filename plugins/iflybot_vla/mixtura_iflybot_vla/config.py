"""The settings of iFlyBot-VLA: sizes of the three networks, the heads, the fields of the data.

`IFlyBotConfig` is the `system:` section. `size: tiny` trains on two CPU cores, `size: full` is the published
size (Qwen2.5-VL-3B layout, 36-block action expert, 344 M latent action model). Single numbers can be changed
below `vlm:`, `expert:` and `lam:`; what is left out comes from the size.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.system import SystemConfig


class Section(BaseModel):
    """Base of the sections below: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VisionLanguageConfig(Section):
    """Sizes of the vision-language model; None takes the value of `size`."""

    hidden: int | None = Field(None, ge=8)
    layers: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    kv_heads: int | None = Field(None, ge=1)
    mlp: int | None = Field(None, ge=8)
    vision_hidden: int | None = Field(None, ge=8)
    vision_layers: int | None = Field(None, ge=1)
    vision_heads: int | None = Field(None, ge=1)
    vision_mlp: int | None = Field(None, ge=8)
    patch: int | None = Field(None, ge=2)
    stem: Literal["patch", "conv"] | None = Field(
        None, description="patch: the published linear patch embedding; conv: a small convolution stem, for training from nothing"
    )
    text_vocab: int = Field(512, ge=300, description="text tokens of a tokenizer trained on the data")
    fast_vocab: int = Field(384, ge=64, description="FAST tokens")
    tokenizer: str | None = Field(None, description="folder of a published tokenizer, instead of training one")


class ExpertConfig(Section):
    """Sizes of the action expert; its depth is that of the language model."""

    hidden: int | None = Field(None, ge=8)
    heads: int | None = Field(None, ge=1)
    gated: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)


class LatentConfig(Section):
    """Sizes of the latent action model; None takes the value of `size`."""

    dim: int | None = Field(None, ge=8)
    image: int | None = Field(None, ge=16)
    patch: int | None = Field(None, ge=2)
    spatial_layers: int | None = Field(None, ge=1)
    temporal_layers: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    dim_head: int | None = Field(None, ge=4)
    codebook: int = Field(32, ge=2)
    code_dim: int = Field(32, ge=2)
    codes: Literal[1, 4, 8] = 8


SIZES: dict[str, dict[str, dict[str, int | str]]] = {
    "tiny": {
        "vlm": {"hidden": 96, "layers": 3, "heads": 4, "kv_heads": 2, "mlp": 288, "vision_hidden": 64,
                "vision_layers": 1, "vision_heads": 4, "vision_mlp": 192, "patch": 8, "stem": "conv"},
        "expert": {"hidden": 96, "heads": 4},
        "lam": {"dim": 64, "image": 40, "patch": 8, "spatial_layers": 2, "temporal_layers": 1, "heads": 4, "dim_head": 16},
    },
    "full": {
        "vlm": {"hidden": 2048, "layers": 36, "heads": 16, "kv_heads": 2, "mlp": 11008, "vision_hidden": 1280,
                "vision_layers": 32, "vision_heads": 16, "vision_mlp": 3420, "patch": 14, "stem": "patch"},
        "expert": {"hidden": 1024, "heads": 16},
        "lam": {"dim": 1024, "image": 224, "patch": 32, "spatial_layers": 8, "temporal_layers": 8, "heads": 16, "dim_head": 64},
    },
}  # fmt: skip
"""What `size` stands for (sheet: VLM of report section 2, expert and LAM of the published code)."""


class IFlyBotConfig(SystemConfig):
    """The `system:` section of iFlyBot-VLA."""

    size: Literal["tiny", "full"] = "tiny"
    compat: Literal["fixed", "official"] = Field("fixed", description="official reproduces the defects of the published code")
    prompt: Literal["new", "old"] = Field("new", description="old: task flags before the images, as the first checkpoints")

    cameras: tuple[str, ...] = Field(("observation.images.head",), min_length=1, description="image fields, head camera first")
    state: str = Field("observation.state", description="field of the robot state")
    action: str = Field("action", description="field of the actions")
    image_size: int = Field(80, ge=16, description="pixels; images are square")
    chunk: int = Field(8, ge=1, description="actions in a chunk")
    width: int = Field(20, ge=2, description="channels that states and actions are padded to")
    normalise: Literal["quantile", "bounds", "normal"] = "quantile"
    latent_span: int = Field(8, ge=1, description="frames between the two images of a latent action")

    latent: bool = Field(True, description="write latent action codes before acting")
    fast: bool = Field(True, description="learn FAST action tokens as well")
    insulate: bool = Field(False, description="keep the flow loss from changing the vision-language model")
    flow_time: Literal["beta", "iflybot", "uniform", "skewed"] = "beta"
    noise_samples: int = Field(4, ge=1, description="noise draws for each chunk; they share one pass of the language model")
    flow_steps: int = Field(5, ge=1, description="Euler steps at inference")
    temperature: float = Field(
        1.0, ge=0, le=2, description="scale of the noise that inference starts from; below 1 keeps to the likeliest actions"
    )
    shift: int = Field(0, ge=0, description="training images are shifted by up to so many pixels, alike in all views of a sample")

    vlm: VisionLanguageConfig = VisionLanguageConfig()
    expert: ExpertConfig = ExpertConfig()
    lam: LatentConfig = LatentConfig()

    @model_validator(mode="after")
    def _fill_sizes(self) -> IFlyBotConfig:
        """Missing sizes come from `size`; a given number stays."""
        for part, values in SIZES[self.size].items():
            section = getattr(self, part)
            missing = {key: value for key, value in values.items() if getattr(section, key) is None}
            if missing:
                # Frozen models take no assignment; a `before` validator would turn strict JSON lists into Python ones.
                self.__dict__[part] = section.model_copy(update=missing)
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> IFlyBotConfig:
        step = 2 * (self.vlm.patch or 1)
        if self.image_size % step:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {step} (two patches of {self.vlm.patch} pixels)"
            )
        for name, section in (("vlm", self.vlm), ("expert", self.expert)):
            if (section.hidden or 0) % (section.heads or 1):
                raise ValueError(f"{name}.hidden {section.hidden} must be a multiple of {name}.heads {section.heads}")
        if (self.lam.image or 0) % (self.lam.patch or 1):
            raise ValueError(f"lam.image {self.lam.image} must be a multiple of lam.patch {self.lam.patch}")
        return self

    @property
    def view_tokens(self) -> int:
        """Tokens of one image after the 2x2 merge."""
        return (self.image_size // (self.vlm.patch or 1) // 2) ** 2
