"""Demos of Mixtura's systems in the browser; see `mixtura_demos.hub`."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="demos",
    api=1,
    summary="demos of the systems in the browser",
    demos={
        "training": "mixtura_demos.training:build",
        "iflybot_vla": "mixtura_demos.iflybot_vla:build",
        "diffusion_gs": "mixtura_demos.diffusion_gs:build",
        "live_portrait": "mixtura_demos.live_portrait:build",
    },
)
