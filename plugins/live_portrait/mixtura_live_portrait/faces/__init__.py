"""Faces in pictures and clips: landmarks, ratios, crops, detectors.

`layouts` knows the landmark layouts; `crop` cuts the upright square of a face and pastes it back; `detector` says what a
detector is, chooses among several faces and finds detectors by name; `tracking` follows one face through a clip. `mesh` is the
default detector (478 points, models from an installed wheel), `onnx` reads the official models when they are given, `given`
reads landmarks and crops from files. `pictures` and `clips` read whatever a user has; `examples` finds real ones to try.
"""
