"""Latent action codes of whole robot sources, computed once per data set and kept on disk (sheet section 13, point 13)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from mixtura.data.source import Source
from mixtura.errors import BadSample
from mixtura.rng import KeyedRng
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.data import frame_pair
from mixtura_iflybot_vla.nets.lam import LatentActions

BATCH = 64


def weights_hash(module: torch.nn.Module) -> str:
    """16 hexadecimal digits of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def codes_of(source: Source, name: str, lam: LatentActions, config: IFlyBotConfig, cache: Path) -> np.ndarray:
    """Codes (N, codes) int16 of all samples of a source, from `cache` when these weights and this content were seen before.

    Samples that can't be read get codes 0; they never train, for the loader replaces them.
    """
    path = cache / f"codes-{name}-{source.info.fingerprint[:16]}-{weights_hash(lam.lam)}.npy"
    if path.exists():
        return np.load(path)
    device = next(lam.parameters()).device
    codes = np.zeros((len(source), config.lam.codes), np.int16)
    was_training = lam.training
    lam.eval()
    with torch.no_grad():
        for start in range(0, len(source), BATCH):
            items, frames = [], []
            for item in range(start, min(start + BATCH, len(source))):
                try:
                    frames.append(frame_pair(source.read(item, KeyedRng("codes", item)), config, lam.lam.image))
                    items.append(item)
                except BadSample:
                    continue
            if items:
                codes[items] = lam.indices(torch.from_numpy(np.stack(frames)).to(device)).cpu().numpy()
    lam.train(was_training)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, codes)
    temporary.replace(path)
    return codes
