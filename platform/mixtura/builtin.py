"""What the core itself offers, described like any plugin."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="builtin",
    api=1,
    summary="sources, mixers and evaluators of the core, and a toy system",
    systems={"toy": "mixtura.testing:ToySystem"},
    sources={
        "webdataset": "mixtura.data.formats.webdataset:WebdatasetSource",
        "lerobot": "mixtura.data.formats.lerobot:LeRobotSource",
        "qa": "mixtura.data.formats.qa:QASource",
        "images": "mixtura.data.formats.folders:ImageFolder",
        "clips": "mixtura.data.formats.folders:ClipFolder",
        "toy": "mixtura.testing:ToySource",
    },
    mixers={
        "static": "mixtura.data.mixers.static:Static",
        "temperature": "mixtura.data.mixers.temperature:Temperature",
        "phases": "mixtura.data.mixers.phases:Phases",
    },
    evaluators={"heldout_loss": "mixtura.probes:HeldoutLoss"},
)
