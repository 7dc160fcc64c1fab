"""Other colours for a frame: brightness, contrast, saturation, hue, a little blur and noise. Nothing moves.

What the motion network sees of the driving frame must tell it how a face moves and not what it looks like (§6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GREY = np.array((0.299, 0.587, 0.114))


def jittered(image: NDArray[np.uint8], strength: float, draw: np.random.Generator) -> NDArray[np.uint8]:
    """An image (H, W, 3) in other colours; strength 0 leaves it as it is, 1 is strong but still natural."""
    if strength <= 0:
        return image
    pixels = image.astype(np.float32) * np.float32(1 / 255)
    contrast, saturation = np.exp(strength * draw.uniform(-0.35, 0.35)), np.exp(strength * draw.uniform(-0.8, 0.45))
    mixing = contrast * _hue(strength * draw.uniform(-0.45, 0.45)) @ _saturation(saturation)
    middle = pixels.mean((0, 1), dtype=np.float64) @ mixing.T
    offset = middle / contrast - middle + strength * (draw.uniform(-0.15, 0.15) + draw.uniform(-0.05, 0.05, 3))
    pixels = pixels @ mixing.T.astype(np.float32) + offset.astype(np.float32)
    if draw.random() < 0.3 * min(strength, 1):
        pixels += np.float32(draw.uniform(0.2, 0.7)) * (_blurred(pixels) - pixels)
    noise = strength * draw.uniform(0, 0.02)
    pixels += np.float32(noise) * draw.standard_normal(pixels.shape, np.float32)
    return (np.minimum(np.maximum(pixels, 0), 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _saturation(factor: float) -> NDArray[np.float64]:
    """Colours (3, 3) farther from grey by a factor."""
    return factor * np.eye(3) + (1 - factor) * np.ones((3, 1)) * GREY


def _hue(angle: float) -> NDArray[np.float64]:
    """Colours (3, 3) turned around the grey axis, by radians."""
    cosine, third = np.cos(angle), (1 - np.cos(angle)) / 3
    sine = np.sin(angle) / np.sqrt(3)
    return np.array(
        [
            [cosine + third, third - sine, third + sine],
            [third + sine, cosine + third, third - sine],
            [third - sine, third + sine, cosine + third],
        ]
    )


def _blurred(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of three by three pixels; the border repeats."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 9)
