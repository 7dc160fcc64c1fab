"""Mixers: what gives the proportions of every step. `base` is the contract, each other file one rule."""
