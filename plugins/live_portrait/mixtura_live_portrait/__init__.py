"""LivePortrait for Mixtura: implicit-keypoint portrait animation, trained on images and videos mixed."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="live_portrait",
    api=1,
    summary="portrait animation by implicit keypoints, images and videos mixed (LivePortrait)",
)
