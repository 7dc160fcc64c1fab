"""Comparison of our networks with recorded outputs of the published ones: `python -m tests.parity`."""
