"""A plugin of demos for the hub's tests: one that works, and some that don't in various ways.

Found through MIXTURA_PLUGINS=tests.demos.odd_demos:plugin, as a third party's would be.
"""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="odd",
    summary="demos of the hub's tests",
    demos={
        "plain": "tests.demos.odd_demo:build",
        "unbuildable": "tests.demos.broken_demos:unbuildable",
        "unimportable": "tests.demos.no_such_demo:build",
        "leaving": "tests.demos.broken_demos:leaving",
        'odd "<name>"/..': "tests.demos.broken_demos:nothing",
    },
)
