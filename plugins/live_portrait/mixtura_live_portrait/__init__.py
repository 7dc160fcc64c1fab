"""LivePortrait for Mixtura: implicit-keypoint portrait animation, trained on images and videos mixed."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="live_portrait",
    api=1,
    summary="portrait animation by implicit keypoints, images and videos mixed (LivePortrait)",
    systems={"live_portrait": "mixtura_live_portrait.system:LivePortrait"},
    sources={
        "faces": "mixtura_live_portrait.data.procedural:Faces",
        "portrait_clips": "mixtura_live_portrait.data.portraits:PortraitClips",
        "portrait_images": "mixtura_live_portrait.data.pictures:PortraitImages",
    },
    evaluators={
        "reenactment": "mixtura_live_portrait.evaluators.reenactment:Reenactment",
        "retargeting": "mixtura_live_portrait.evaluators.retargeting:Retargeting",
    },
    generators={
        "procedural_faces": "mixtura_live_portrait.data.draw_clips:ProceduralFaces",
        "portrait_clips": "mixtura_live_portrait.data.prepare:PreparedClips",
    },
)
