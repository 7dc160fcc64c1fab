"""Everything the shapes of the networks depend on: `Sizes()` are the published ones, `TINY` trains on two processor cores."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mixtura.errors import ConfigError

STEM = 4
"""Side of the patches with which the motion extractor begins."""


@dataclass(frozen=True)
class Sizes:
    """Widths, depths and counts of all seven networks; checks itself, raises ConfigError naming every field that can't be.

    `image` is the side of what F and M see; the volume has `channels` x `depth` x `side` x `side` values, where
    `side = image / 2^downs`; G paints `output = image * shuffle` pixels along a side.
    """

    image: int = 256
    keypoints: int = 21
    # F: appearance. Widths begin at `base` and double with each halving.
    base: int = 64
    downs: int = 2
    channels: int = 32
    depth: int = 16
    resblocks: int = 6
    # M: motion, a ConvNeXt V2.
    motion_depths: tuple[int, ...] = (3, 3, 9, 3)
    motion_dims: tuple[int, ...] = (96, 192, 384, 768)
    bins: int = 66
    # W: dense motion, an hourglass over the volume.
    compress: int = 4
    dense_base: int = 32
    dense_max: int = 1024
    dense_blocks: int = 5
    coarse: bool = False  # W made for few cells, see `nets.warping`; the published one isn't
    # G: `generator` channels come in from W, `painted` go into the last convolution, `shared` are SPADE's hidden ones.
    generator: int = 256
    middle: int = 6
    painted: int = 64
    shared: int = 128
    shuffle: int = 2
    # Hidden widths of the three small networks. `told_landmarks`: of a source's keypoints, eyes and lips are told those that have
    # a landmark (`faces.layouts.guide`) where the landmark is; the published ones, where M sees them.
    stitching: tuple[int, ...] = (128, 128, 64)
    eyes: tuple[int, ...] = (256, 256, 128, 128, 64)
    lips: tuple[int, ...] = (128, 128, 64)
    told_landmarks: bool = False

    def __post_init__(self) -> None:
        wrong = [
            f"{field.name}: {value}, expected whole numbers above 0"
            for field in fields(self)
            if not self._fits(field.name)
            for value in [getattr(self, field.name)]
        ]
        if not wrong:
            wrong = self._contradictions()
        if wrong:
            raise ConfigError("sizes of the networks: " + "; ".join(wrong))

    def _fits(self, name: str) -> bool:
        value = getattr(self, name)
        numbers = value if isinstance(value, tuple) else (value,)
        return isinstance(value, bool) or (bool(numbers) and all(isinstance(n, int) and n > 0 for n in numbers))

    def _contradictions(self) -> list[str]:
        wrong = []
        if len(self.motion_depths) != len(self.motion_dims):
            wrong.append(f"motion_depths has {len(self.motion_depths)} stages, motion_dims {len(self.motion_dims)}")
        for name, by in (
            ("motion_dims", STEM << (len(self.motion_dims) - 1)),
            ("dense_blocks", 1 << (self.downs + self.dense_blocks)),
        ):
            if self.image % by:
                wrong.append(f"image: {self.image} must be a multiple of {by} (or make {name} smaller)")
        return wrong

    @property
    def side(self) -> int:
        """Height and width of the volume."""
        return self.image >> self.downs

    @property
    def output(self) -> int:
        """Height and width of what G paints."""
        return self.image * self.shuffle

    @property
    def volume(self) -> tuple[int, int, int, int]:
        """Shape of one volume (C, D, h, w)."""
        return (self.channels, self.depth, self.side, self.side)


TINY = Sizes(
    image=64,
    keypoints=10,
    base=16,
    channels=8,
    depth=8,
    resblocks=2,
    motion_depths=(1, 1, 3, 1),
    motion_dims=(24, 48, 96, 192),
    dense_base=8,
    dense_max=64,
    dense_blocks=3,
    coarse=True,
    generator=64,
    middle=2,
    painted=16,
    shared=32,
    shuffle=1,
    stitching=(64, 64, 32),
    eyes=(64, 64, 32),
    lips=(64, 64, 32),
)
"""Networks of about a quarter of the published widths for 64 x 64 pixels."""
