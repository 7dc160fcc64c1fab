"""Which faces were found: marked pictures, crops, a table. Needs no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mixtura_live_portrait.animate.looking import Looked
    from mixtura_live_portrait.animate.settings import Settings
    from mixtura_live_portrait.faces.crop import Frame

CROP = 256
HEADER = ["face", "x", "y", "side", "turned by (°)", "landmarks", "left eye open", "right eye open", "lips open"]
Side = Literal["source", "driving"]


@dataclass(frozen=True, eq=False)
class Seen:
    """The first frame with its faces marked, the crop of each with its landmarks, and a row of HEADER for each."""

    marked: Frame
    crops: list[Frame]
    rows: list[list[Any]]

    def pictures(self, what: str) -> list[tuple[Frame, str]]:
        """For a gallery."""
        crops = [(crop, f"{what}: crop of face {number}") for number, crop in enumerate(self.crops)]
        return [(self.marked, f"{what}: {len(crops)} found"), *crops]


def see(path: Path, settings: Mapping[str, Any], side: Side, everyone: bool = False) -> Seen:
    """Look at the first frame of a picture or clip as the animation would; `everyone`: at all faces. Raises NoFace."""
    from mixtura.inference import settings_of
    from mixtura_live_portrait.animate.inputs import Frames
    from mixtura_live_portrait.animate.looking import look_for_several
    from mixtura_live_portrait.animate.settings import Settings
    from mixtura_live_portrait.faces.clips import open_clip
    from mixtura_live_portrait.faces.detector import make

    chosen = settings_of(Settings, settings)
    frame = next(iter(Frames(open_clip(path, longest=chosen.longest), 1)))
    how = how_of(chosen, side, path)
    detector = None if how.given is not None else make(chosen.detector)
    count = None if everyone or (chosen.all_faces and side == "source") else 1
    found = look_for_several([frame], detector, how, count)
    return seen(frame, found)


def how_of(chosen: Settings, side: Side, path: Path | str) -> Any:
    """How the plugin would look for the faces of one side."""
    from mixtura_live_portrait.animate.looking import How
    from mixtura_live_portrait.faces.crop import DRIVING, SOURCE
    from mixtura_live_portrait.faces.given import read_given
    from mixtura_live_portrait.faces.tracking import Tracking

    is_source = side == "source"
    by_hand = chosen.source_landmarks if is_source else chosen.driving_landmarks
    return How(
        SOURCE if is_source else DRIVING,
        chosen.source_crop if is_source else chosen.driving_crop,
        Tracking(chosen.order, chosen.face if is_source else chosen.driving_face, gaps=chosen.gaps),
        None if by_hand is None else read_given(by_hand),
        path,
    )


def seen(frame: Frame, found: Sequence[Looked]) -> Seen:
    """Pictures and numbers of faces."""
    from mixtura_live_portrait.animate.showing import marked

    return Seen(
        marked(frame, found), [marked_crop(frame, face) for face in found], [_row(n, face) for n, face in enumerate(found)]
    )


def marked_crop(frame: Frame, face: Looked) -> Frame:
    """(CROP, CROP, 3): what the networks see of a face, with its landmarks."""
    from dataclasses import replace

    from mixtura_live_portrait.animate.showing import cropped, marked
    from mixtura_live_portrait.faces.crop import Square, moved

    crop, around = cropped(frame, face, CROP), Square(CROP / 2, CROP / 2, CROP)
    if face.landmarks is None:
        return crop
    return marked(crop, [replace(face, squares=(around,), landmarks=moved(face.landmarks, face.squares[0].to_crop(CROP)))])


def _row(number: int, face: Looked) -> list[Any]:
    """A line of the table; what landmarks don't tell is left empty."""
    square = face.squares[0]
    openings = [round(float(value), 3) if value == value else "" for value in face.ratios[0].tolist()]
    count = 0 if face.landmarks is None else len(face.landmarks)
    return [number, round(square.x), round(square.y), round(square.side), round(square.angle, 1), count, *openings]
