"""What can be set about an animation: words `name=value` of `mixtura infer`, fields of a form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mixtura_live_portrait.animate.animator import Adjust
from mixtura_live_portrait.animate.editing import Edit, Ratio
from mixtura_live_portrait.animate.looking import Crop
from mixtura_live_portrait.animate.regions import Lists, Region
from mixtura_live_portrait.animate.smoothing import OBSERVATION
from mixtura_live_portrait.animate.transfer import Rules
from mixtura_live_portrait.faces.pictures import LONGEST

Order = Literal["large-small", "small-large", "left-right", "right-left", "top-bottom", "bottom-top"]
Keypoints = tuple[Annotated[int, Field(ge=0)], ...]
SMOOTH = {"auto": None, "on": True, "off": False}


class Settings(BaseModel):
    """All have defaults, which are those of the published method; every field but `edit` is a plain value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = Field("auto", description="what finds faces: auto, mesh, onnx, or a plug-in as module:function")
    models: Path | None = Field(None, description="folder of official ONNX models, or a face_landmarker.task (detector mesh)")
    source_landmarks: Path | None = Field(None, description="landmarks or crops of the source by hand, .json or .npz")
    driving_landmarks: Path | None = Field(None, description="landmarks or crops of the driving by hand, .json or .npz")
    source_crop: Crop = Field("face", description="whole: the source is cropped already")
    driving_crop: Crop = Field("face", description="whole: the driving is cropped already")
    order: Order = Field("large-small", description="how several faces are counted")
    face: int = Field(0, ge=0, description="which face of the source, from 0 on")
    all_faces: bool = Field(False, description="animate every face of the source picture")
    driving_face: int = Field(0, ge=0, description="which face of the driving, from 0 on")
    gaps: int = Field(0, ge=0, description="frames in a row without a face that are bridged")

    relative: bool = Field(True, description="motion relative to the driving's first frame; otherwise its pose as it is")
    region: Region = Field("all", description="what is taken over")
    friendly: bool = Field(False, description="fit absolute motion to the source: start there, and move in its size")
    multiplier: float = Field(1.0, ge=0, le=3, description="how strongly the source moves")
    lip_keypoints: Keypoints | None = Field(None, description="keypoints of the lips, of networks that aren't the published ones")
    eye_keypoints: Keypoints | None = Field(None, description="keypoints of the eyes, likewise")

    stitching: bool = Field(True, description="keep the shoulders where they are")
    lip_normalise: bool = Field(True, description="close the source's lips before relative motion")
    eyes: bool = Field(
        False, description="open the eyes as far as the driving's; with relative motion only eyes and lips move then"
    )
    lips: bool = Field(False, description="open the lips as far as the driving's, likewise")
    eye_ratio: Ratio | None = Field(None, description="open the eyes by this ratio, always")
    lip_ratio: Ratio | None = Field(None, description="open the lips by this ratio, always")
    steady_eyes: bool = Field(False, description="keep the eyes of a source clip as open as in its first frame")
    smoothing: Literal["auto", "on", "off"] = Field("auto", description="over frames; auto: for clips that a clip drives")
    variance: float = Field(OBSERVATION, ge=0, description="variance of jitter that smoothing assumes; larger is smoother")
    edit: Edit = Field(Edit(), description="sliders for a source picture without a driving")

    paste: bool = Field(True, description="paste the face back into the whole frame; otherwise the crop alone")
    longest: int = Field(LONGEST, ge=64, le=4096, description="pixels of the longer side that source and driving are reduced to")
    fps: float | None = Field(None, ge=1, le=120, description="frames a second; empty: the driving's, or the source's")
    max_frames: int | None = Field(None, ge=1, description="at most so many frames")
    sound: Literal["auto", "driving", "source", "none"] = Field("auto", description="auto: the driving's, or else the source's")
    comparison: bool = Field(True, description="write driving, source and result beside each other as well")

    device: str = Field("auto", description="cpu, cuda, …; auto takes a GPU where there is one")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on GPUs, float32 elsewhere")
    compile: bool = Field(False, description="compile the networks: a minute at the start, less for each frame")
    cuda_graphs: bool = Field(False, description="record the networks' work on an NVIDIA GPU and replay it")
    batch: int = Field(8, ge=1, le=256, description="frames that are worked on at once")

    @property
    def lists(self) -> Lists:
        """Keypoints of parts."""
        return Lists(self.lip_keypoints, self.eye_keypoints)

    def rules(self) -> Rules:
        """For the transfer."""
        return Rules(self.relative, self.region, self.friendly, self.multiplier, self.lists)

    def adjust(self) -> Adjust:
        """For what comes after it."""
        return Adjust(
            stitching=self.stitching,
            lip_normalise=self.lip_normalise,
            eyes=self.eyes or self.eye_ratio is not None,
            lips=self.lips or self.lip_ratio is not None,
            eye_ratio=self.eye_ratio,
            lip_ratio=self.lip_ratio,
            steady_eyes=self.steady_eyes,
            smooth=SMOOTH[self.smoothing],
            variance=self.variance,
        )
