"""A portrait that sits for one browser session: its face found and its volume computed once, then painted as often as asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtura_demos.live_portrait import directions, seeing
from mixtura_demos.live_portrait.engines import Loaded

if TYPE_CHECKING:
    from mixtura_live_portrait.animate.looking import Looked
    from mixtura_live_portrait.animate.portrait import Portrait
    from mixtura_live_portrait.faces.crop import Frame

TOLD = 0.005
"""By how much a slider of eyes or lips must differ from what they are to count as moved: it shows two digits."""


@dataclass(frozen=True, eq=False)
class Sitting:
    """A picture, its face and what the networks made of it. `key` tells pictures and weights apart."""

    key: tuple[str, ...]
    frame: Frame
    looked: Looked
    portrait: Portrait
    networks: Loaded

    @property
    def openings(self) -> tuple[float | None, float | None]:
        """How far eyes (the mean of both) and lips are open; None where the landmarks don't tell."""
        left, right, lips = self.portrait.ratios[0].tolist()
        eyes = (left + right) / 2
        return (eyes if eyes == eyes else None), (lips if lips == lips else None)


def sit(path: Path, settings: Mapping[str, Any], networks: Loaded, key: tuple[str, ...]) -> Sitting:
    """Find the face of a picture and compute its volume. Raises MixturaError."""
    from mixtura.inference import settings_of
    from mixtura_live_portrait.animate.looking import look_for_several
    from mixtura_live_portrait.animate.portrait import picture_portrait
    from mixtura_live_portrait.animate.settings import Settings
    from mixtura_live_portrait.faces.detector import make
    from mixtura_live_portrait.faces.pictures import read_picture

    chosen = settings_of(Settings, settings)
    frame = read_picture(path, chosen.longest)
    (looked,) = look_for_several([frame], make(chosen.detector), seeing.how_of(chosen, "source", path), 1)
    return Sitting(key, frame, looked, picture_portrait(networks.engine, frame, looked), networks)


def edited(sitting: Sitting, values: Mapping[str, float], amounts: dict[str, float], stitching: bool, paste: bool) -> Frame:
    """The portrait as sliders say: `values` of `Edit`, `amounts` along `directions`. Raises MixturaError."""
    import torch

    from mixtura.inference import settings_of
    from mixtura_live_portrait.animate.animator import Animator
    from mixtura_live_portrait.animate.editing import Edit
    from mixtura_live_portrait.animate.editing import edited as moved

    networks, portrait = sitting.networks, sitting.portrait
    offsets = directions.offsets(networks, amounts)
    edit = settings_of(Edit, {**_asked(sitting, values), "offsets": offsets})
    if edit.is_at_rest:
        return sitting.frame if paste else crop_of(sitting)
    with torch.inference_mode():
        x = moved(portrait.movement, portrait.ratios, edit, networks.engine.small, stitching, told=portrait.told)
    (shot,) = Animator(networks.engine).paint(sitting.frame, [portrait], [x])
    return shot.pasted if paste else shot.crops[0]


def crop_of(sitting: Sitting) -> Frame:
    """The face's square of the picture, as large as what is painted."""
    from mixtura_live_portrait.animate.showing import cropped

    return cropped(sitting.frame, sitting.looked, sitting.networks.engine.sizes.output)


def _asked(sitting: Sitting, values: Mapping[str, float]) -> dict[str, Any]:
    """Values of `Edit`; eyes and lips are left out where their slider stands at what they are."""
    asked: dict[str, Any] = dict(values)
    for name, own in zip(("eye_ratio", "lip_ratio"), sitting.openings, strict=True):
        if name in asked and (own is None or abs(asked[name] - own) <= TOLD):
            del asked[name]
    return asked
