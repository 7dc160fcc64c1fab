"""The layout of published DiffusionGS checkpoints, read and written."""
