"""Procedural portraits on one CPU core: a 3D head with hair, ears, neck and shoulders, drawn with every label exact.

`identity` draws who somebody is, `state` says what a head does in a frame (pose and expression), `render` draws the frame,
`points` gives its landmarks, `motion` makes clips. All angles are degrees, all head coordinates x right, y down, z inward, with
the eyes at y = 0, the chin near y = 1 and the crown near y = -1.
"""
