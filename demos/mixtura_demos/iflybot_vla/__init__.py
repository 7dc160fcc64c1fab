"""The demo of iFlyBot-VLA: a policy acts in the simulator, chunk by chunk, with its latent codes and discrete tokens shown."""

from __future__ import annotations

from mixtura_demos.iflybot_vla.page import build

title = "iFlyBot-VLA"
__all__ = ["build", "title"]
