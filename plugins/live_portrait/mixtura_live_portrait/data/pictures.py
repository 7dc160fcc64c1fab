"""The source `portrait_images`: single pictures as clips of one frame, with landmarks beside them where there are some.

Source and driving are the same frame; `driving_seen` has other colours. With `reframe` the driving frame is another crop of the
same picture, a little turned, moved and scaled, so that pictures teach those parts of motion, too.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydantic import Field

from mixtura.data.formats.folders import IMAGE_FILES, fingerprint, found_files
from mixtura.data.source import Sample, SourceInfo
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.augment import jittered
from mixtura_live_portrait.data.clip_files import Picture
from mixtura_live_portrait.data.cropping import cut, squares, whole
from mixtura_live_portrait.data.marks import marks_beside, read_marks
from mixtura_live_portrait.data.portraits import NO_CONTENT, Landmarks, PortraitConfig
from mixtura_live_portrait.data.sample import Array, Frame, fields_of
from mixtura_live_portrait.faces.crop import Square
from mixtura_live_portrait.faces.pictures import read_picture

TURN, MOVE, GROW = 15.0, 0.06, 0.12
"""Degrees, sides of the crop, and logarithm of its side, by which `reframe: 1` changes a crop at most."""


class PortraitImagesConfig(PortraitConfig):
    """`sources: {NAME: {type: portrait_images, path: data/paintings}}`."""

    landmarks: Landmarks = Field("use", description="require: pictures need landmarks; ignore: take the middle of all of them")
    reframe: float = Field(0.0, ge=0, le=2, description="how differently the driving frame is cropped; 0: the same frame")


class PortraitImages:
    """One sample a picture. Raises BadSample for those that can't be decoded."""

    Config = PortraitImagesConfig

    def __init__(self, config: PortraitImagesConfig, name: str, root: Path) -> None:
        self.config, self.name, self.folder = config, name, Path(root) / config.path
        files = found_files(self.folder, IMAGE_FILES, "image")
        beside = [None if config.landmarks == "ignore" else marks_beside(path) for path in files]
        if config.landmarks == "require" and None in beside:
            raise DataError(f"{files[beside.index(None)]}: no landmarks beside it; take the middle of it with `landmarks: use`")
        self.paths = [path.relative_to(self.folder) for path in files]
        marks = [path for path in beside if path is not None]
        content = fingerprint(self.folder, [*files, *marks], *sorted(config.model_dump(exclude=NO_CONTENT).items()))
        self.info = SourceInfo(
            name, len(files), content, tags=("image",), max_epochs=config.max_epochs, extra={"landmarks": len(marks)}
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The picture as a pair; see `sample` for the fields."""
        path, draw = self.folder / self.paths[index], rng.at("frames").numpy()
        try:
            image, landmarks, place = self._opened(path)
            source = self._frame(image, landmarks, place)
            driving = self._frame(image, landmarks, self._reframed(place, draw)) if self.config.reframe else source
        except DataError as error:
            raise BadSample(str(error)) from error
        if self.config.mirror and draw.integers(2):
            source, driving = source.mirrored(), driving.mirrored()
        seen = jittered(driving.image, self.config.jitter, draw)
        return Sample(fields_of(source, driving, seen, False, index, None), key=self.paths[index].as_posix())

    def _opened(self, path: Path) -> tuple[Picture, Array | None, Square]:
        image = read_picture(path, 0, 1)
        beside = None if self.config.landmarks == "ignore" else marks_beside(path)
        if beside is None:
            return image, None, whole(image)
        marks = read_marks(beside)
        if len(marks) != 1:
            raise DataError(f"{beside}: landmarks of {len(marks)} frames for one picture")
        place = whole(image) if marks.is_cropped else squares(marks.landmarks, self.config.framing(), "fixed")[0]
        return image, marks.landmarks[0], place

    def _frame(self, image: Picture, landmarks: Array | None, place: Square) -> Frame:
        return Frame.of(*cut(image, landmarks, place, self.config.size))

    def _reframed(self, place: Square, draw: np.random.Generator) -> Square:
        turn, right, down, grow = (self.config.reframe * draw.uniform(-1, 1, 4)).tolist()
        return Square(
            place.x + MOVE * right * place.side,
            place.y + MOVE * down * place.side,
            place.side * math.exp(GROW * grow),
            place.angle + TURN * turn,
        )
