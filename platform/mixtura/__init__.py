"""Mixtura: one trainer for multimodal and embodied systems that learn from mixed data.

Importing this package is cheap: it never imports torch. The parts:
`mixtura.plugins` (what is installed), `mixtura.config` (strict YAML), `mixtura.data` (sources, plan,
loader), `mixtura.system` (what a plugin implements), `mixtura.trainer` (the loop).
"""

__version__ = "0.1.0"
API_VERSION = 1
"""Version of the plugin contract; a plugin that names another one is refused with a clear message."""
