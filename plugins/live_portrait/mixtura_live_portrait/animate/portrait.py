"""A source face, ready to be animated: `Portrait`. Of a picture it has one frame and its volume, of a clip many frames.

portrait = picture_portrait(engine, frame, look([frame], detector))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_live_portrait.animate.engine import Engine
from mixtura_live_portrait.animate.looking import Looked
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.faces.crop import Frame, Matrix, Square, crop, moved, paste
from mixtura_live_portrait.keypoints import placed

BATCH = 8
"""Frames that the networks see at once."""
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Portrait:
    """One face of a source through its n frames.

    `movement` (n), `ratios` (n, 3), `squares` (n): where it is in each frame. `volume` (1, C, D, h, w) is its appearance when it
    is a picture; a clip's frames each have their own, which is made when their turn comes. `guide` (n, 12, 2) are its landmarks
    in the crops, -1 to 1, for networks that are told them (`Sizes.told_landmarks`).
    """

    movement: Movement
    ratios: Tensor
    squares: tuple[Square, ...]
    volume: Tensor | None = None
    guide: Tensor | None = None

    def __len__(self) -> int:
        return len(self.squares)

    @property
    def is_clip(self) -> bool:
        """Whether each frame has its own appearance."""
        return self.volume is None

    @cached_property
    def x(self) -> Tensor:
        """Keypoints (n, k, 3)."""
        return self.movement.keypoints()

    @cached_property
    def told(self) -> Tensor:
        """Keypoints (n, k, 3) as the networks of eyes and lips are told them."""
        return self.x if self.guide is None else placed(self.x, self.guide)

    def first(self, frames: int) -> Portrait:
        """The first frames alone."""
        guide = None if self.guide is None else self.guide[:frames]
        return Portrait(self.movement.at(slice(frames)), self.ratios[:frames], self.squares[:frames], self.volume, guide)

    def to_frame(self, frame: int, side: int) -> Matrix:
        """M_c2o of a frame, for crops of `side` pixels."""
        return self.squares[min(frame, len(self.squares) - 1)].to_frame(side)

    def pasted(self, result: Tensor, frame: Frame, number: int, mask: Tensor) -> Frame:
        """A painted crop (3, S, S) blended into its frame."""
        return paste(result, frame, self.to_frame(number, result.shape[-1]), mask)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def crops_of(engine: Engine, frames: Sequence[Frame], squares: Sequence[Square]) -> Tensor:
    """What the networks see of frames: (n, 3, image, image) on the engine's device."""
    side = engine.sizes.image
    return crop(np.stack(frames), np.stack([square.to_frame(side) for square in squares]), side, engine.device)


def movement_of(engine: Engine, frames: Iterable[Frame], squares: Sequence[Square], batch: int = BATCH) -> Movement:
    """What moves in frames, seen in their squares. Raises DataError when there are fewer frames than squares, or none."""
    parts, seen = [], 0
    for some in batches(islice(frames, len(squares)), batch):
        crops = crops_of(engine, some, squares[seen : seen + len(some)])
        with torch.inference_mode():
            parts.append(Movement.of(engine.motion(crops)))
        seen += len(some)
    if not seen or seen < len(squares):
        raise DataError(f"{seen} frames, {len(squares)} squares; expected one for each frame")
    return Movement.joined(parts)


def guide_of(engine: Engine, looked: Looked) -> Tensor | None:
    """Landmarks (n, 12, 2) in the crops, -1 to 1, if the networks want them and they are known."""
    if not engine.sizes.told_landmarks or looked.guides is None:
        return None
    inside = [moved(points, square.to_crop(2)) - 1 for points, square in zip(looked.guides, looked.squares, strict=True)]
    return torch.from_numpy(np.stack(inside)).to(engine.device)


def picture_portrait(engine: Engine, frame: Frame, looked: Looked) -> Portrait:
    """The face of a picture."""
    crops = crops_of(engine, [frame], looked.squares[:1])
    with torch.inference_mode():
        movement, volume = Movement.of(engine.motion(crops)), engine.volume(crops)
    guide = guide_of(engine, looked)
    return Portrait(
        movement, looked.ratios[:1].to(engine.device), looked.squares[:1], volume, None if guide is None else guide[:1]
    )


def clip_portrait(engine: Engine, frames: Iterable[Frame], looked: Looked, batch: int = BATCH) -> Portrait:
    """The face of a clip; a clip of one frame is a picture."""
    if len(looked) == 1:
        return picture_portrait(engine, next(iter(frames)), looked)
    movement = movement_of(engine, frames, looked.squares, batch)
    return Portrait(movement, looked.ratios.to(engine.device), looked.squares, guide=guide_of(engine, looked))
