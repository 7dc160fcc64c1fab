"""iFlyBot-VLA for Mixtura: latent actions, FAST tokens and a flow-matching action expert, mixed with questions and answers."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="iflybot_vla",
    api=1,
    summary="vision-language-action model with latent and discrete actions (iFlyBot-VLA)",
    systems={"iflybot_vla": "mixtura_iflybot_vla.system:IFlyBotVLA"},
    evaluators={"closed_loop": "mixtura_iflybot_vla.sim.closed_loop:ClosedLoop"},
    generators={"metaworld_demos": "mixtura_iflybot_vla.sim.demos:MetaworldDemos"},
)
