"""The networks of DiffusionGS."""
