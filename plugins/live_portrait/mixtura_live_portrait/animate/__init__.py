"""Animation: a source face moved as a driving face moves.

`transfer`, `regions`, `retarget`, `smoothing` and `editing` are pure functions of keypoints; `templates` keeps the motion of a
driving clip in a file, `official` converts the original's. `looking` finds faces in frames, `portrait` prepares a source,
`animator` brings all together, `stream` does so live. `files` is `mixtura infer`.
"""
