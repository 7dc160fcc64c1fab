"""Posed pictures of textured furniture, made on one CPU core from Debian's package `sweethome3d-furniture`.

`scenes` is where to begin: `object_scene`, `room_scene`, `posed_views`. Below it, `models` finds and loads furniture, `render`
draws meshes, `rooms` and `shell` furnish and paint rooms, `export` writes files. Needs `embreex` from PyPI. The same arguments
give the same pictures.
"""
