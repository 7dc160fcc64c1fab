"""The version of mixtura-splat; a file of its own, so that packaging reads it without importing torch."""

VERSION = "0.1.0"
