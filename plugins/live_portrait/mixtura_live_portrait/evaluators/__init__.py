"""Measurements: `reenactment` and `retargeting`, and the `meter` that reads faces for both."""
