"""DiffusionGS for Mixtura: one image to 3D Gaussians in one diffusion stage, objects and scenes mixed."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="diffusion_gs",
    api=1,
    summary="one image to 3D Gaussians, objects and scenes mixed (DiffusionGS)",
    systems={"diffusion_gs": "mixtura_diffusion_gs.system:DiffusionGS"},
    sources={
        "views": "mixtura_diffusion_gs.data.folders:ViewFolders",
        "gobjaverse": "mixtura_diffusion_gs.data.gobjaverse:GObjaverse",
        "re10k": "mixtura_diffusion_gs.data.re10k:RealEstate",
        "mesh_views": "mixtura_diffusion_gs.data.meshes:MeshViews",
    },
    evaluators={"novel_views": "mixtura_diffusion_gs.novel_views:NovelViews"},
    generators={"furniture_views": "mixtura_diffusion_gs.data.synth:FurnitureViews"},
)
